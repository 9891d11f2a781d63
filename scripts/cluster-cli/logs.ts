import { setTimeout as sleep } from "node:timers/promises";
import pc from "picocolors";
import * as z from "zod";
import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import type { Inventory, InventoryMachine } from "./inventory";
import { machineIn, runProgram } from "./run";

/** Seconds between two looks while following. */
const EVERY = 2;

const lineSchema = z.object({ at: z.number(), source: z.string(), text: z.string() });

/** One line of a log. */
export interface LogLine extends z.infer<typeof lineSchema> {
  readonly machine: string;
}

export interface LogOptions {
  /** Of this machine only. @default all */
  readonly machine?: string | undefined;
  /** Only what has this request id in it. */
  readonly request?: string | undefined;
  /** Seconds since 1970. */
  readonly since: number;
}

/**
 * Reads the journals of the cluster's units and the service's own logs, of all machines, in the order of time.
 *
 * @returns the lines, and why a machine has none.
 */
export async function readLogs(
  { machines }: Inventory,
  ssh: OpenSsh,
  { machine, request, since }: LogOptions,
): Promise<{ readonly lines: LogLine[]; readonly missing: string[] }> {
  const asked = machine === undefined ? machines : [machineIn(machines, machine)];
  const missing: string[] = [];
  const read = async (from: InventoryMachine): Promise<LogLine[]> => {
    try {
      const args = [from.name, since, ...(request === undefined ? [] : [request])];
      const output = await runProgram(from, ssh, "journal.py", args);
      const texts = output.split("\n").filter((line) => line !== "");
      return texts.map((line) => ({ machine: from.name, ...lineSchema.parse(JSON.parse(line)) }));
    } catch (error) {
      // One machine that cannot be read must not hide the others.
      const reached = !(error instanceof UnreachableError);
      missing.push(reached ? (error as Error).message : `${from.name} cannot be reached: ${error.reason}`);
      return [];
    }
  };
  const lines = (await Promise.all(asked.map(read))).flat();
  return { lines: lines.sort((a, b) => a.at - b.at), missing: missing.sort() };
}

/**
 * Goes on with what comes after, until the program is ended.
 *
 * @param complain gets the machines that have nothing to show and why, whenever they become others.
 */
export async function followLogs(
  inventory: Inventory,
  ssh: OpenSsh,
  options: LogOptions,
  show: (lines: readonly LogLine[]) => void,
  complain: (missing: readonly string[]) => void,
): Promise<never> {
  // Lines arrive late: over NFS, and from machines that answer slowly. So each look goes back a little.
  const shown = new Set<string>();
  let { since } = options;
  let complained = "";
  for (;;) {
    const began = Date.now() / 1000;
    const { lines, missing } = await readLogs(inventory, ssh, { ...options, since });
    if (missing.join() !== complained) complain(missing);
    complained = missing.join();
    const fresh = lines.filter((line) => !shown.has(JSON.stringify(line)));
    show(fresh);
    for (const line of fresh) shown.add(JSON.stringify(line));
    since = Math.max(since, began - 30);
    await sleep(EVERY * 1000);
  }
}

const COLOURS = [pc.cyan, pc.magenta, pc.yellow, pc.green, pc.blue];

/** Lines for people: when, where, what. The day is said where a line is not of today. */
export function renderLogs(lines: readonly LogLine[], { machines }: Inventory, now = Date.now()): string {
  const today = new Date(now).toISOString().slice(0, 10);
  const [first] = lines;
  const days = first !== undefined && !new Date(first.at * 1000).toISOString().startsWith(today);
  const width = Math.max(...machines.map(({ name }) => name.length));
  return lines
    .map(({ at, machine, source, text }) => {
      const colour = COLOURS[machines.findIndex(({ name }) => name === machine) % COLOURS.length] ?? String;
      const when = new Date(at * 1000)
        .toISOString()
        .slice(days ? 0 : 11)
        .replace("T", " ");
      return `${pc.dim(when)} ${colour(machine.padEnd(width))} ${pc.dim(source)} ${text}`;
    })
    .join("\n");
}

/** When something was, as seconds since 1970: "10m" ago, or a moment as ISO 8601. Undefined for anything else. */
export function parseSince(text: string, now: number): number | undefined {
  const span = /^(\d+)(s|m|h|d)$/.exec(text);
  if (span)
    return now - Number(span[1]) * { s: 1, m: 60, h: 3600, d: 86_400 }[span[2] as "s" | "m" | "h" | "d"];
  // Date.parse takes nearly anything.
  const moment = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(moment) ? undefined : moment / 1000;
}
