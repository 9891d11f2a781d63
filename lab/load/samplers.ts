import type { Lab } from "../lab";
import { network } from "../machines";
import { Watcher } from "./load";

/** From a moment on, until the next one of its kind. Times in s of the lab's one monotonic clock. */
interface Change<T> {
  readonly at: number;
  readonly value: T;
}

/** Weight by real server's address; null without IPVS. */
export type Pool = Readonly<Record<string, number>> | null;

/** What is known of one director. It is off from the last sign of life of a sampler until the next one's first. */
class History {
  readonly holds: Change<boolean>[] = [];
  readonly pools: Change<Pool>[] = [];
  seen = Number.NEGATIVE_INFINITY;
  watcher: Watcher | undefined;
  ended = true;
}

/** A time in which a director held the VIP. */
export interface Holding {
  readonly director: string;
  readonly from: number;
  readonly to: number;
}

/** Follows who holds the VIP and who is in the directors' tables, from inside the directors (director-sampler.py). */
export class Samplers {
  private readonly histories: Map<string, History>;

  constructor(
    private readonly lab: Lab,
    directors: readonly string[],
    private readonly interval = 0.05,
  ) {
    this.histories = new Map(directors.map((name) => [name, new History()]));
  }

  /** Starts those that do not run: at the beginning, and after a director was off. */
  async start(): Promise<void> {
    await Promise.all(
      [...this.histories].map(async ([name, history]) => {
        if (!history.ended) return;
        history.ended = false;
        try {
          const args = [network.vip, String(this.interval)];
          const watcher = await Watcher.start(this.lab, name, "director-sampler", args, (line) =>
            this.take(history, line),
          );
          history.watcher = watcher;
          void watcher.ended.then(() => {
            history.ended = true;
            // What it held or knew is over: a machine without power holds nothing.
            history.holds.push({ at: history.seen, value: false });
            history.pools.push({ at: history.seen, value: null });
          });
        } catch {
          history.ended = true; // it is off
        }
      }),
    );
  }

  async stop(): Promise<void> {
    await Promise.all(
      [...this.histories.values()].map(async (history) => {
        if (history.ended) return;
        await history.watcher?.terminate();
        await history.watcher?.ended;
      }),
    );
  }

  /** Newest moment that is known of this director. */
  seen(director: string): number {
    return this.of(director).seen;
  }

  /** Whether a sampler runs there. */
  watches(director: string): boolean {
    return !this.of(director).ended;
  }

  holdsNow(director: string): boolean {
    return this.of(director).holds.at(-1)?.value === true;
  }

  poolNow(director: string): Pool {
    return this.of(director).pools.at(-1)?.value ?? null;
  }

  /** The pools of a director from a moment on, the one in force then first. */
  pools(director: string, from: number): readonly Change<Pool>[] {
    const all = this.of(director).pools;
    const first = all.findLastIndex(({ at }) => at <= from);
    return all.slice(Math.max(first, 0));
  }

  /** Who held the VIP from when to when, as far as it concerns [from, to). */
  holdings(from: number, to: number): Holding[] {
    const found: Holding[] = [];
    for (const [director, { holds, seen }] of this.histories) {
      holds.forEach(({ at, value }, i) => {
        const end = holds[i + 1]?.at ?? Math.max(seen, at);
        if (value && end > from && at < to) found.push({ director, from: at, to: end });
      });
    }
    return found.sort((a, b) => a.from - b.from);
  }

  /** When exactly one held the VIP for good, seen from a moment on: s after it; undefined: it did not come to that. */
  settled(from: number, to: number): number | undefined {
    const holdings = this.holdings(from, to);
    const moments = [from, ...holdings.flatMap((h) => [h.from, h.to])].filter((t) => t >= from && t < to);
    const holdersAt = (t: number) => holdings.filter((h) => h.from <= t && t < h.to).length;
    // The last moment of the log is nobody's end.
    const last = Math.max(...[...this.histories.values()].map(({ seen }) => seen));
    const wrong = moments.filter((t) => t < last - 1 && holdersAt(t) !== 1).sort((a, b) => a - b);
    const worst = wrong.at(-1);
    if (worst === undefined) return 0;
    const next = moments.filter((t) => t > worst && holdersAt(t) === 1).sort((a, b) => a - b)[0];
    return next === undefined ? undefined : next - from;
  }

  /** How long more than one held the VIP in [from, to), s. */
  shared(from: number, to: number): number {
    const holdings = this.holdings(from, to);
    let sum = 0;
    for (const [i, a] of holdings.entries()) {
      for (const b of holdings.slice(i + 1)) {
        if (a.director === b.director) continue;
        sum += Math.max(0, Math.min(a.to, b.to, to) - Math.max(a.from, b.from, from));
      }
    }
    return sum;
  }

  /** How often the VIP came to a director in [from, to). */
  moves(from: number, to: number): number {
    return this.holdings(from, to).filter((h) => h.from >= from && h.from < to).length;
  }

  private of(director: string): History {
    const history = this.histories.get(director);
    if (!history) throw new Error(`${director} is not watched`);
    return history;
  }

  private take(history: History, line: string): void {
    const { t, holds, pool } = JSON.parse(line) as { t: number; holds?: boolean; pool?: Pool };
    history.seen = t;
    if (holds !== undefined) history.holds.push({ at: t, value: holds });
    if (pool !== undefined) history.pools.push({ at: t, value: pool });
  }
}
