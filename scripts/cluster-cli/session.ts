import { createInterface } from "node:readline/promises";
import { type Command, InvalidArgumentError } from "commander";
import type { OpenSsh } from "../../components/remote/openssh";
import { parseIPv4 } from "../../config/addresses";
import { stackName as LAB } from "../../lab/stack";
import { connect, type Inventory, readInventory } from "./inventory";
import { parseSince } from "./logs";
import { ProgressLine } from "./progress";

/** Exit codes: what a script can tell from them. */
export const EXIT = { well: 0, findings: 1, failed: 2, declined: 3 } as const;

/** What a command came to. */
export type Outcome = keyof typeof EXIT;

/** The stack that a command is about where none is said. */
export const DEFAULT_STACK = process.env.PULUMI_STACK ?? "lab";

/**
 * A text in which every `scripts/cluster COMMAND` and `pulumi up` says which stack is meant, where that is not the one that it would be
 * about by itself: whoever types what stands below the status of another stack must not put a machine of the lab back into its pool.
 * Of the lab, whose state is elsewhere, pulumi knows by scripts/lab only.
 */
export function namingStack(text: string, stack: string, unsaid = DEFAULT_STACK): string {
  const unlike = stack !== unsaid;
  const named = unlike
    ? text.replace(/scripts\/cluster (?=[a-z])(?!.* --stack )/g, `scripts/cluster --stack ${stack} `)
    : text;
  if (stack === LAB) return named.replace(/(?<!scripts\/lab )\bpulumi up\b/g, "scripts/lab pulumi up");
  return unlike ? named.replace(/\bpulumi up\b(?! --stack )/g, `pulumi up --stack ${stack}`) : named;
}

/** What a command works with: the stack's machines, a way to them, and a line for its progress. */
export interface Session {
  readonly stack: string;
  readonly inventory: Inventory;
  readonly ssh: OpenSsh;
  readonly progress: ProgressLine;
  /** Takes the progress away and prints a text, in which commands name the stack where they must. */
  print(text: string): void;
}

/** The stack that a command is about. */
export function stackOf(program: Command): string {
  return program.opts<{ stack: string }>().stack;
}

/** Opens a session for a command and ends it, whatever happens. What it comes to is the program's exit code. */
export async function within(
  program: Command,
  work: (session: Session) => Promise<Outcome | undefined>,
): Promise<void> {
  const stack = stackOf(program);
  const progress = new ProgressLine();
  try {
    progress.show(`reading the stack ${stack}`);
    const inventory = await readInventory(stack);
    await using ssh = await connect(stack, inventory);
    const print = (text: string) => {
      progress.clear();
      console.log(namingStack(text, stack));
    };
    const outcome = await work({ stack, inventory, ssh, progress, print });
    if (outcome !== undefined) process.exitCode = EXIT[outcome];
  } finally {
    progress.clear();
  }
}

/** Ends a command's help: what its exit codes mean beyond the usual, and how it is called. */
export function explain(
  command: Command,
  { exit, examples }: { readonly exit: string; readonly examples: readonly string[] },
): void {
  const calls = examples.map((example) => `  scripts/cluster ${example}`).join("\n");
  command.addHelpText("after", `\nExit status: ${exit}, 2 it failed.\n\nExamples:\n${calls}`);
}

/** Asks the user. @throws an Error when there is no terminal to ask at. */
export async function agreed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY) throw new Error(`${question} There is no terminal to ask at: give --yes.`);
  const line = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await line.question(`${question} [y/N] `)).trim());
  } finally {
    line.close();
  }
}

/** An option's argument: seconds, 0 or more. */
export function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError("Give a number of seconds, 0 or more.");
  return value;
}

/** An option's argument: a whole number between two others. */
export function whole(least: number, most: number) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < least || value > most)
      throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`);
    return value;
  };
}

/** An argument: an IPv4 address. */
export function ipv4(text: string): string {
  if (parseIPv4(text) === undefined)
    throw new InvalidArgumentError("Give an IPv4 address, such as 192.168.1.201.");
  return text;
}

/** An option's argument: a moment, as seconds since 1970. */
export function since(text: string): number {
  const moment = parseSince(text, Date.now() / 1000);
  if (moment === undefined)
    throw new InvalidArgumentError("Give a span such as 10m, 2h or 1d, or a time such as 2026-01-31T03:00Z.");
  return moment;
}

/** An option's argument that can be given more than once. */
export function several(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text];
}
