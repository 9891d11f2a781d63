/** What became of one attempt, as lab/load/load-client.py writes it. Times in s of the lab's one monotonic clock. */
export interface Attempt {
  readonly kind: "request" | "kept" | "stream" | "synthesis";
  readonly source: string;
  readonly start: number;
  readonly end: number;
  readonly result: "ok" | "slow" | "lost" | "cut";
  /** Why it was lost: one word, a colon, details. */
  readonly why?: string;
  /** Who answered. */
  readonly node?: string;
  readonly status?: number;
  /** Of a synthesis: the result's name, and length and digest of what came. */
  readonly name?: string;
  readonly bytes?: number;
  readonly sha256?: string;
  /** Of a stream: how many events came. */
  readonly beats?: number;
}

/** Time in which the client itself was late, so that nothing is known of what it did not send. */
export interface Stall {
  readonly start: number;
  readonly end: number;
}

/** A client's whole log. */
export interface Log {
  readonly attempts: readonly Attempt[];
  readonly stalls: readonly Stall[];
  /** Whether the client came to its own end; a log that was cut off says nothing of what was under way. */
  readonly whole: boolean;
}

/** Counts of what happened between two moments. */
export interface Summary {
  /** Light requests, on new and on kept connections. */
  readonly requests: number;
  /** Of them: without a whole, successful answer. */
  readonly lost: number;
  /** Of the lost: by a reset, refused, without an answer in time, with an error status. */
  readonly reset: number;
  readonly refused: number;
  readonly timeout: number;
  readonly errors: number;
  /** Whole and successful, later than the client's threshold. */
  readonly slow: number;
  /** Longest time in which every light request failed or hung, s: from the first such one's start to the next good one's. */
  readonly gap: number;
  /** The same over the requests of the addresses that one real server served before, for the worst such share, s. */
  readonly shareGap: number;
  /** The node of that share. */
  readonly shareNode?: string;
  /** Source addresses that after the fault were served by another real server than before, of those that were seen. */
  readonly moved: number;
  readonly sources: number;
  /** Longest time between two light requests that ended well, s. */
  readonly silence: number;
  /** Median and 99th percentile of the time that good and slow light requests took, s. */
  readonly p50: number;
  readonly p99: number;
  readonly streams: number;
  readonly streamsBroken: number;
  readonly syntheses: number;
  /** Syntheses without a whole WAV: broken ones and clear errors. */
  readonly synthesesLost: number;
  /** Of them: with a clear error of the service (status and message). */
  readonly synthesesRefused: number;
  /** Light requests that ended well, by node. */
  readonly nodes: Readonly<Record<string, number>>;
  /** Attempts that were lost, by kind and reason. */
  readonly reasons: Readonly<Record<string, number>>;
  /** Longest time that the client itself was late, s. */
  readonly stall: number;
}

/**
 * Reads a client's log.
 *
 * @throws Error when a line is not one of its.
 */
export function parseLog(lines: Iterable<string>): Log {
  const attempts: Attempt[] = [];
  const stalls: Stall[] = [];
  let whole = false;
  for (const line of lines) {
    if (line.trim() === "") continue;
    const found = parseLine(line);
    if (found.kind === "end") whole = true;
    else if (found.kind === "stall") stalls.push(found as unknown as Stall);
    else if (found.kind !== "begin") attempts.push(found as unknown as Attempt);
  }
  return { attempts, stalls, whole };
}

function parseLine(line: string): { kind: string } {
  try {
    return JSON.parse(line) as { kind: string };
  } catch {
    throw new Error(`The load client wrote what is not JSON: ${line.slice(0, 200)}`);
  }
}

/** Which real server serves a source address, by name. */
export type RealServerOf = ReadonlyMap<string, string>;

/** The node that served each source address most often, from what ended well before a moment. */
export function homes(attempts: readonly Attempt[], before: number): RealServerOf {
  const counts = new Map<string, Map<string, number>>();
  for (const { kind, source, end, result, node } of attempts) {
    if (!isLight(kind) || end >= before || result === "lost" || node === undefined) continue;
    const own = counts.get(source) ?? new Map<string, number>();
    own.set(node, (own.get(node) ?? 0) + 1);
    counts.set(source, own);
  }
  const most = (own: Map<string, number>) => [...own].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  return new Map([...counts].map(([source, own]) => [source, most(own)]));
}

/**
 * Counts what was started in [from, to), and what was under way at `from`.
 *
 * @param fault when the first fault came; addresses are told apart by who served them before it. @default from
 */
export function summarise(
  log: Log,
  from = Number.NEGATIVE_INFINITY,
  to = Number.POSITIVE_INFINITY,
  fault = from,
): Summary {
  const within = log.attempts.filter(({ start, end }) => start < to && end >= from);
  const light = within
    .filter(({ kind, result }) => isLight(kind) && result !== "cut")
    .sort((a, b) => a.start - b.start);
  const lost = light.filter(({ result }) => result === "lost");
  const because = (word: string) => lost.filter(({ why }) => why?.startsWith(`${word}:`)).length;
  const streams = within.filter(({ kind, result }) => kind === "stream" && result !== "cut");
  const syntheses = within.filter(({ kind, result }) => kind === "synthesis" && result !== "cut");
  const lostSyntheses = syntheses.filter(({ result }) => result === "lost");
  const took = light.filter(({ result }) => result !== "lost").map(({ start, end }) => end - start);
  took.sort((a, b) => a - b);

  const nodes: Record<string, number> = {};
  for (const { result, node } of light) if (result !== "lost" && node) nodes[node] = (nodes[node] ?? 0) + 1;
  const reasons: Record<string, number> = {};
  for (const attempt of within) {
    if (attempt.result !== "lost") continue;
    const key = `${attempt.kind}: ${attempt.why ?? "?"}`.replace(/\d{4,}/g, "N").slice(0, 160);
    reasons[key] = (reasons[key] ?? 0) + 1;
  }

  const home = homes(log.attempts, fault);
  const moved = new Set(
    light
      .filter(({ source, node, start, result }) => {
        const before = home.get(source);
        return start >= fault && result !== "lost" && node && before && node !== before;
      })
      .map(({ source }) => source),
  );
  let shareGap = 0;
  let shareNode: string | undefined;
  for (const node of new Set(home.values())) {
    const gap = longestGap(light.filter(({ source }) => home.get(source) === node));
    if (gap > shareGap) [shareGap, shareNode] = [gap, node];
  }

  return {
    requests: light.length,
    lost: lost.length,
    reset: because("reset") + because("closed") + because("incomplete"),
    refused: because("refused"),
    timeout: because("timeout") + because("unreachable"),
    errors: because("status") + because("wrong"),
    slow: light.filter(({ result }) => result === "slow").length,
    gap: longestGap(light),
    shareGap,
    ...(shareNode === undefined ? {} : { shareNode }),
    moved: moved.size,
    sources: home.size,
    silence: longestSilence(light),
    p50: percentile(took, 0.5),
    p99: percentile(took, 0.99),
    streams: streams.length,
    streamsBroken: streams.filter(({ result }) => result === "lost").length,
    syntheses: syntheses.length,
    synthesesLost: lostSyntheses.length,
    synthesesRefused: lostSyntheses.filter(({ why }) => why?.startsWith("status:")).length,
    nodes,
    reasons,
    stall: Math.max(0, ...log.stalls.map(({ start, end }) => (start < to && end >= from ? end - start : 0))),
  };
}

/** The value below which that part of them lies. @param sorted the smallest first; of none it is NaN */
export function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

function isLight(kind: Attempt["kind"]): boolean {
  return kind === "request" || kind === "kept";
}

/** Over attempts in the order of their starts. A gap that lasts until the end ends with the last attempt. */
function longestGap(attempts: readonly Attempt[]): number {
  let longest = 0;
  let since: number | undefined;
  for (const { start, result } of attempts) {
    if (result !== "ok") since ??= start;
    else if (since !== undefined) {
      longest = Math.max(longest, start - since);
      since = undefined;
    }
  }
  if (since !== undefined) longest = Math.max(longest, ...attempts.map(({ end }) => end - (since as number)));
  return longest;
}

function longestSilence(attempts: readonly Attempt[]): number {
  const ends = attempts.filter(({ result }) => result !== "lost").map(({ end }) => end);
  ends.sort((a, b) => a - b);
  return ends.reduce((longest, end, i) => Math.max(longest, end - (ends[i - 1] ?? end)), 0);
}
