import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { homedir, hostname } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { parse } from "yaml";
import { ago, utc } from "../lib/time";

const run = promisify(execFile);

/** A lock on a stack as the file backend keeps it: one JSON file for each `pulumi` that changes the stack. */
export interface Lock {
  readonly file: string;
  /** Undefined when the file cannot be read as a lock. */
  readonly holder?: {
    readonly pid: number;
    readonly username: string;
    readonly hostname: string;
    /** Milliseconds since 1970. */
    readonly since: number;
  };
}

/**
 * Whether the `pulumi` that holds a lock still lives. `dead` is only said where that is certain; `unknown` is for
 * other computers and other containers.
 */
export interface Verdict {
  readonly state: "alive" | "dead" | "unknown";
  /** A clause that follows "process 123 ...:". */
  readonly because: string;
}

/** Where the processes of this computer are listed, and its name: other than these only in tests. */
export interface Here {
  readonly hostname: string;
  readonly proc: string;
}
const HERE: Here = { hostname: hostname(), proc: "/proc" };

/**
 * The directory of a backend that keeps its state in files; undefined for the others.
 *
 * @param url as `pulumi whoami --json` tells it, such as "file://~" or "file:///srv/state?no_tmp_dir=true".
 * @param directory what a relative path is relative to.
 */
export function fileBackend(url: string, directory: string): string | undefined {
  const path = /^file:\/\/([^?]*)/.exec(url)?.[1];
  if (path === undefined) return undefined;
  return resolve(directory, path.replace(/^~(?=\/|$)/, homedir()));
}

/** The locks on a stack, oldest first. `stack` may be a plain name or "organization/project/name". */
export async function readLocks(backend: string, project: string, stack: string): Promise<Lock[]> {
  const name = stack.includes("/") ? stack : `organization/${project}/${stack}`;
  const folder = join(backend, ".pulumi", "locks", ...name.split("/"));
  if (!existsSync(folder)) return [];
  const locks: Lock[] = [];
  for (const entry of readdirSync(folder).filter((candidate) => candidate.endsWith(".json"))) {
    const file = join(folder, entry);
    const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
      // Its holder ended between the listing and now.
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (text !== undefined) locks.push(parseLock(file, text));
  }
  return locks.sort((a, b) => (a.holder?.since ?? 0) - (b.holder?.since ?? 0));
}

function parseLock(file: string, text: string): Lock {
  try {
    const { pid, username, hostname, timestamp } = JSON.parse(text);
    const since = Date.parse(timestamp);
    if (!Number.isInteger(pid) || pid <= 0 || typeof hostname !== "string" || Number.isNaN(since))
      return { file };
    return { file, holder: { pid, username: String(username), hostname, since } };
  } catch {
    return { file };
  }
}

/** Times of start are kept to a hundredth of a second, but the computer's own only to the second. */
const CLOCK_SLACK = 3000;

/** Whether a lock's holder lives, by what can be seen from this computer. */
export function judge({ holder }: Lock, here: Here = HERE): Verdict {
  if (!holder) return { state: "unknown", because: "the file does not say who holds it (was it cut short?)" };
  if (holder.hostname !== here.hostname) {
    return {
      state: "unknown",
      because: `that is another computer, and this one (${here.hostname}) cannot see it`,
    };
  }
  const { pid, since } = holder;
  if (!existsSync(join(here.proc, "self", "stat"))) return judgeBySignal(pid);
  const boot = bootTime(here);
  if (since < boot - CLOCK_SLACK) {
    return { state: "dead", because: `this computer was started after that, at ${utc(boot)}` };
  }
  const found = processOf(pid, here, boot);
  if (found?.state === "Z" || found?.state === "X") return { state: "dead", because: "it has ended" };
  if (found && found.started > since + CLOCK_SLACK) {
    return {
      state: "dead",
      because: `its number now belongs to "${found.name}", started at ${utc(found.started)}`,
    };
  }
  if (found && isPulumi(found.name)) return { state: "alive", because: "it is at work" };
  const inside = containerProcess(pid, here);
  if (inside !== undefined) {
    return {
      state: "unknown",
      because: `a pulumi with that number runs in a container here (process ${inside})`,
    };
  }
  // It had that number before the lock was made, so what made the lock counts its processes apart from us.
  if (found) {
    return { state: "unknown", because: `that number is "${found.name}" here: was it in a container?` };
  }
  return { state: "dead", because: "there is no such process any more" };
}

/** Where there is no /proc: a process that is there is taken for the holder. */
function judgeBySignal(pid: number): Verdict {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") {
      return { state: "dead", because: "there is no such process any more" };
    }
  }
  return { state: "alive", because: "there is such a process" };
}

function isPulumi(name: string): boolean {
  return name.includes("pulumi");
}

function bootTime({ proc }: Here): number {
  return Number(/^btime (\d+)$/m.exec(readFileSync(join(proc, "stat"), "utf8"))?.[1] ?? 0) * 1000;
}

interface Process {
  readonly name: string;
  /** R, S, D, T: it lives; Z, X: it has ended. */
  readonly state: string;
  /** Milliseconds since 1970. */
  readonly started: number;
}

/** The kernel tells user space times in hundredths of a second, whatever its own clock is. */
const TICK = 10;

function processOf(pid: number, { proc }: Here, boot: number): Process | undefined {
  try {
    const text = readFileSync(join(proc, String(pid), "stat"), "utf8");
    // The name is in parentheses and may hold any character, a parenthesis too.
    const end = text.lastIndexOf(")");
    const fields = text.slice(end + 2).split(" ");
    return {
      name: text.slice(text.indexOf("(") + 1, end),
      state: fields[0] ?? "",
      started: boot + Number(fields[19]) * TICK,
    };
  } catch {
    return undefined;
  }
}

/** The process (as numbered here) of a pulumi that counts as `pid` in a container on this computer. */
function containerProcess(pid: number, { proc }: Here): number | undefined {
  for (const entry of readdirSync(proc)) {
    if (!/^\d+$/.test(entry)) continue;
    let status: string;
    try {
      status = readFileSync(join(proc, entry, "status"), "utf8");
    } catch {
      continue;
    }
    const numbers = /^NSpid:\t(.*)$/m.exec(status)?.[1]?.split("\t") ?? [];
    if (numbers.length < 2 || Number(numbers.at(-1)) !== pid) continue;
    if (isPulumi(/^Name:\t(.*)$/m.exec(status)?.[1] ?? "")) return Number(entry);
  }
  return undefined;
}

/** Takes one lock away, and no other: `pulumi cancel` would take them all, one just made too. */
export async function lift({ file }: Lock): Promise<void> {
  await rm(file, { force: true });
  await rm(`${file}.attrs`, { force: true });
}

/** A lock in one line: who, since when, and whether that process lives. */
export function describe(lock: Lock, verdict: Verdict, now = Date.now()): string {
  const { holder } = lock;
  if (!holder) return `${lock.file}: ${verdict.because}`;
  const { username, hostname, pid, since } = holder;
  const who = `${username}@${hostname}, process ${pid}, since ${utc(since)} (${ago(now - since)})`;
  return `${who}: ${verdict.because}`;
}

/** What to do about the locks on a stack, in lines. */
export function advice(stack: string, judged: readonly (readonly [Lock, Verdict])[]): string[] {
  const unlock = `scripts/cluster unlock --stack ${stack}`;
  const states = new Set(judged.map(([, { state }]) => state));
  if (states.has("alive")) {
    return ["Wait until it has ended, then run this again. To stop it: Ctrl-C where it runs, once."];
  }
  if (states.has("unknown")) {
    return [
      "See whether it still runs (there: ps -p NUMBER). If it does, wait. If not, lift the lock, then run this again:",
      `  ${unlock} --force`,
    ];
  }
  return [
    "It was killed and left its lock behind. Lift it, then run this again, which finishes what was begun:",
    `  ${unlock}`,
  ];
}

/** Who has a stack locked and what to do about it; undefined when nobody has. */
export async function explainLocks(
  backendUrl: string,
  project: string,
  stack: string,
  directory = process.cwd(),
): Promise<string | undefined> {
  const backend = fileBackend(backendUrl, directory);
  if (backend === undefined) return undefined;
  const judged = (await readLocks(backend, project, stack)).map((lock) => [lock, judge(lock)] as const);
  if (judged.length === 0) return undefined;
  return [
    `The stack "${stack}" is locked, so that nobody else changes it at the same time, by`,
    ...judged.map(([lock, verdict]) => `  ${describe(lock, verdict)}`),
    ...advice(stack, judged),
  ].join("\n");
}

/** The name in the nearest Pulumi.yaml, upwards from a directory. */
export function projectName(directory: string): string | undefined {
  for (let folder = resolve(directory); ; folder = dirname(folder)) {
    const file = join(folder, "Pulumi.yaml");
    if (existsSync(file)) return (parse(readFileSync(file, "utf8")) as { name?: string } | null)?.name;
    if (folder === dirname(folder)) return undefined;
  }
}

/** Commands that lock the stack they change. */
const LOCKING = new Set(["up", "update", "destroy", "down", "refresh", "import", "stack", "state", "watch"]);

/**
 * After a `pulumi ARGS` that failed: the explanation of the lock that stood in its way, if one did. It looks at the
 * backend rather than at what pulumi wrote, so that pulumi keeps its terminal.
 */
export async function lockHint(
  pulumi: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  if (!args.some((arg) => LOCKING.has(arg))) return undefined;
  const option = (long: string, short: string): string | undefined => {
    for (const [index, arg] of args.entries()) {
      if (arg === long || arg === short) return args[index + 1];
      if (arg.startsWith(`${long}=`)) return arg.slice(long.length + 1);
    }
    return undefined;
  };
  const cwd = resolve(option("--cwd", "-C") ?? ".");
  const ask = async (...words: string[]) => {
    const options = { cwd, env, timeout: 10_000 };
    return (await run(pulumi, [...words, "--non-interactive"], options)).stdout;
  };
  try {
    const project = projectName(cwd);
    if (project === undefined) return undefined;
    const { url } = JSON.parse(await ask("whoami", "--json")) as { url: string };
    const stack = option("--stack", "-s") ?? (await ask("stack", "--show-name")).trim();
    return await explainLocks(url, project, stack, cwd);
  } catch {
    // Not logged in, no stack selected, a backend that is away: pulumi's own words, above, say so.
    return undefined;
  }
}
