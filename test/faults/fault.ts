import type { LoadOptions } from "../../lab/load/load";
import type { Samplers } from "../../lab/load/samplers";
import type { Log, Summary } from "../../lab/load/summary";
import type { Outcome } from "../lab/bench";

/** What a fault may do with the lab, and what it knows of it. Times in s of the lab's one monotonic clock. */
export interface Scene {
  /** The director that held the VIP when the case began, and the other one. */
  readonly holder: string;
  readonly standby: string;
  readonly samplers: Samplers;
  /** What the client has written so far. */
  log(): Log;
  /** Runs a shell command as root in a machine; when it began. It works without the machine's network. */
  on(machine: string, command: string): Promise<number>;
  /** The same in the virtual machine that holds the machines. */
  around(command: string): Promise<number>;
  /** Runs one of `scripts/`. */
  script(name: string, ...args: string[]): Promise<Outcome>;
  /** Keeps a line of explanation for the report. */
  note(text: string): void;
  /** Lets the clock of the computer that runs the tests go on. */
  sleep(seconds: number): Promise<void>;
}

/** A fault, when it came, and what undoes it. */
export interface Fault {
  readonly name: string;
  /** Heading of its row. */
  readonly title: string;
  readonly group: "directors" | "real servers" | "share" | "deployments" | "everything";
  /** Whether `scripts/test` runs it on its way, and not only `scripts/test faults`. */
  readonly quick?: true;
  /** What the load differs in. */
  readonly load?: LoadOptions;
  /** The real server that it hits. */
  readonly realServer?: string;
  /** Causes it. @returns when it came */
  inject(scene: Scene): Promise<number>;
  /** How long it lasts, s, when it does not end with {@link inject}. @default 0 */
  readonly hold?: number;
  /** Ends it. @returns when it ended. @default it ends by itself */
  restore?(scene: Scene): Promise<number>;
  /** How long the cluster may take until all is as before, s. */
  readonly recovery?: number;
  readonly expect: Expectations;
  /** What else must hold; it throws when it does not. */
  check?(scene: Scene, measured: Measured): Promise<void>;
}

/** What must hold; what is not named may be anything. Times in s. */
export interface Expectations {
  /** At most so many light requests without a whole answer. @default 0 */
  readonly lost?: number;
  /** At most so many of them were of another real server's share, or sent after the one that it hits was out of the pool. */
  readonly strays?: number;
  /** At most so many light requests that were late. */
  readonly slow?: number;
  /** The longest time in which nobody was served. */
  readonly gap?: number;
  /** The real server that it hits gets no new connection any more after this time. */
  readonly out?: number;
  /** It is back, after the end of the fault, within. */
  readonly back?: number;
  /** No real server leaves a director's table, or gets weight 0 there. */
  readonly poolStays?: true;
  /** At least one real server serves at every moment. @default true */
  readonly poolNeverEmpty?: boolean;
  /** Exactly one holder, after the fault and after its end, within. */
  readonly oneHolder?: number;
  /** At most so many source addresses are served by another real server than before, at any time. */
  readonly moved?: number;
  /** How often the VIP goes to another director, from the beginning to the end. */
  readonly moves?: number;
  /** At most so many event streams break. @default 0 */
  readonly streamsBroken?: number;
  /** At most so many syntheses come to nothing. @default 0 */
  readonly synthesesLost?: number;
  /** Syntheses that fail do so with a clear answer, not by silence or a broken connection. */
  readonly clearErrors?: true;
}

/** What a case came to. */
export interface Measured {
  readonly summary: Summary;
  /** After the fault: s until the real server is out of the holder's pool; null: it did not leave it. */
  readonly out: number | null;
  /** After its end: s until it serves again in all directors' pools, or (a director) until all is as before. */
  readonly back: number | null;
  /** Light requests that were lost although their address's real server was not the one that was hit, or was out already. */
  readonly strays: number;
  /** s until exactly one director held the VIP for good: after the fault, after its end; null: never. */
  readonly oneHolder: readonly [number | null, number | null];
  /** Who held it from when to when, s after the fault. */
  readonly holdings: readonly { readonly director: string; readonly from: number; readonly to: number }[];
  /** s in which two held it. */
  readonly shared: number;
  readonly moves: number;
  /** Fewest real servers that served at any moment, by the table of who held the VIP. */
  readonly fewest: number;
  /** When: the fault, its end, the end of the measurement. */
  readonly times: readonly [number, number, number];
  readonly notes: readonly string[];
}
