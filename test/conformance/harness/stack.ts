import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** A resource of the program, as data. */
export interface Resource {
  readonly name: string;
  readonly type: "local.Command" | "remote.Command" | "remote.CopyToRemote" | "remote.CopyFile";
  readonly args: Readonly<Record<string, unknown>>;
  readonly options?: {
    readonly dependsOn?: string[];
    readonly additionalSecretOutputs?: string[];
    readonly deleteBeforeReplace?: boolean;
    readonly ignoreChanges?: string[];
    readonly customTimeouts?: { readonly create: string };
  };
}

/** A resource in the state. Secret properties have lost their value. */
export interface Stored {
  readonly id: string;
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<Record<string, unknown>>;
}

/** What a run of pulumi came to, without anything that changes from run to run. */
export interface Outcome {
  readonly failed: boolean;
  /** What was done to which resource: `create`, `update`, `replace`, `delete`, `same`, ... */
  readonly steps: Readonly<Record<string, string[]>>;
  /** Error diagnostics by resource; `""` for those of none. */
  readonly errors: Readonly<Record<string, string[]>>;
  /** Lines that a resource showed while it was worked on. */
  readonly lines: Readonly<Record<string, string[]>>;
  readonly state: Readonly<Record<string, Stored>>;
  readonly outputs: Readonly<Record<string, unknown>>;
  /** Standard output, for previews. */
  readonly text: string;
}

/** What is replaced in every text before it is compared. */
export type Scrub = readonly (readonly [RegExp, string])[];

interface EngineEvent {
  readonly diagnosticEvent?: { urn?: string; message: string; severity: string; ephemeral?: boolean };
  readonly resourcePreEvent?: { metadata: { op: string; urn: string } };
}

const nameOf = (urn: string | undefined): string => urn?.split("::").at(3) ?? "";
const SIGNATURE = "4dabf18193072939515e22adb298388d";
const CIPHER = "1b47061264138c4ac30d75fd1eb44270";

/** The outcomes of all runs, by name, for the comparison of one plugin with the other. */
export const record: Record<string, Outcome> = {};

/** How pulumi is started. */
export interface Runner {
  readonly pulumi: string;
  readonly env: NodeJS.ProcessEnv;
  readonly scrub: Scrub;
}

/** A stack of the program in a folder and with a state of its own. */
export class Stack {
  private readonly program: string;
  private readonly project: string;
  private readonly env: NodeJS.ProcessEnv;
  private runs = 0;

  constructor(
    readonly name: string,
    readonly folder: string,
    private readonly runner: Runner,
  ) {
    this.project = join(folder, "project");
    this.program = join(folder, "program.json");
    mkdirSync(join(folder, "backend"), { recursive: true });
    cpSync(join(here, "..", "program"), this.project, { recursive: true });
    symlinkSync(join(here, "..", "..", "..", "node_modules"), join(this.project, "node_modules"));
    this.env = {
      ...process.env,
      ...runner.env,
      PULUMI_BACKEND_URL: `file://${join(folder, "backend")}`,
      PULUMI_CONFIG_PASSPHRASE: "conformance",
      // Unlocks --event-log, which is how tools get at what happened.
      PULUMI_DEBUG_COMMANDS: "true",
      CONFORMANCE_PROGRAM: this.program,
    };
  }

  async init(): Promise<void> {
    const { code, text } = await this.start(["stack", "init", this.name]);
    if (code !== 0) throw new Error(`pulumi stack init failed:\n${text}`);
  }

  async up(resources: Resource[], options: RunOptions = {}): Promise<Outcome> {
    return this.run(["up", "--yes", "--skip-preview", "--non-interactive"], resources, options);
  }

  async preview(resources: Resource[], options: RunOptions = {}): Promise<Outcome> {
    return this.run(["preview", "--diff", "--non-interactive"], resources, options);
  }

  async destroy(options: RunOptions = {}): Promise<Outcome> {
    return this.run(["destroy", "--yes", "--skip-preview", "--non-interactive"], [], options);
  }

  private async run(command: string[], resources: Resource[], options: RunOptions): Promise<Outcome> {
    const label = `${this.name} ${++this.runs}: ${options.title ?? command[0]}`;
    writeFileSync(this.program, JSON.stringify({ resources, run: options.run }));
    const log = join(this.folder, `events-${this.runs}.log`);
    const args = [...command, "--color", "never", "--event-log", log, ...(options.flags ?? [])];
    const start = Date.now();
    const { code, text } = await this.start(args, options);
    if (process.env.CONFORMANCE_KEEP) process.stderr.write(`${label}: ${Date.now() - start} ms\n`);
    const events = existsSync(log)
      ? readFileSync(log, "utf8")
          .split("\n")
          .filter((line) => line !== "")
          .map((line): EngineEvent => JSON.parse(line))
      : [];
    const outcome: Outcome = {
      failed: code !== 0,
      steps: {},
      errors: {},
      lines: {},
      ...this.readState(),
      text: command[0] === "preview" ? this.scrub(text) : "",
    };
    const add = (to: Readonly<Record<string, string[]>>, name: string, text: string) => {
      const lists = to as Record<string, string[]>;
      lists[name] = [...(lists[name] ?? []), text];
    };
    for (const { diagnosticEvent: diagnostic, resourcePreEvent: step } of events) {
      if (step) add(outcome.steps, nameOf(step.metadata.urn), step.metadata.op);
      if (!diagnostic) continue;
      const name = nameOf(diagnostic.urn);
      const message = this.scrub(diagnostic.message.replace(/<\{%[a-z]+%\}>/g, "")).trimEnd();
      if (diagnostic.severity === "error") add(outcome.errors, name, message.replace(/^error: /, ""));
      else if (diagnostic.ephemeral && message !== "") add(outcome.lines, name, message);
    }
    record[label] = sorted(outcome);
    if (outcome.failed && !options.fails) throw new Error(`${label} failed:\n${text}`);
    if (!outcome.failed && options.fails) throw new Error(`${label} should have failed:\n${text}`);
    return outcome;
  }

  private start(args: string[], options: RunOptions = {}): Promise<{ code: number | null; text: string }> {
    return new Promise((resolve, reject) => {
      const env = options.pluginFolder
        ? { ...this.env, PATH: `${options.pluginFolder}:${this.env.PATH}` }
        : this.env;
      const child = spawn(this.runner.pulumi, args, {
        cwd: this.project,
        env,
        stdio: ["ignore", "pipe", "pipe"],
      });
      const output: Buffer[] = [];
      child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
      child.stderr.on("data", (chunk: Buffer) => output.push(chunk));
      options.started?.(() => child.kill("SIGINT"));
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, text: Buffer.concat(output).toString() }));
    });
  }

  private scrub(text: string): string {
    return this.runner.scrub.reduce((result, [pattern, by]) => result.replace(pattern, by), text);
  }

  private readState(): Pick<Outcome, "state" | "outputs"> {
    const path = join(this.folder, "backend", ".pulumi", "stacks", "conformance", `${this.name}.json`);
    const checkpoint = JSON.parse(readFileSync(path, "utf8")).checkpoint.latest;
    const state: Record<string, Stored> = {};
    let outputs: Readonly<Record<string, unknown>> = {};
    for (const resource of checkpoint?.resources ?? []) {
      if (resource.type === "pulumi:pulumi:Stack")
        outputs = this.hide(resource.outputs ?? {}) as typeof outputs;
      if (!resource.type.startsWith("command:")) continue;
      state[nameOf(resource.urn) + (resource.delete ? " (to be deleted)" : "")] = {
        id: resource.id.replace(/[0-9a-f]{8}$/, "HEX"),
        inputs: this.hide(resource.inputs) as Stored["inputs"],
        outputs: this.hide(resource.outputs) as Stored["outputs"],
      };
    }
    return { state, outputs };
  }

  private hide(value: unknown): unknown {
    if (typeof value === "string") return this.scrub(value);
    if (Array.isArray(value)) return value.map((item) => this.hide(item));
    if (typeof value !== "object" || value === null) return value;
    const map = value as Record<string, unknown>;
    if (map[SIGNATURE] === CIPHER) return "(secret)";
    return Object.fromEntries(Object.entries(map).map(([key, item]) => [key, this.hide(item)]));
  }
}

/** How one run differs from the usual. */
export interface RunOptions {
  /** Names the run in the record. */
  readonly title?: string;
  /** The run has to fail (a run that does, without this, is an error). */
  readonly fails?: boolean;
  readonly flags?: string[];
  /** The arguments of a call of the function `local.run`. */
  readonly run?: Readonly<Record<string, unknown>>;
  /** Gets a function that interrupts the run as Ctrl-C would. */
  readonly started?: (interrupt: () => void) => void;
  /** Another plugin than the suite's own. */
  readonly pluginFolder?: string;
}

/** The same with the keys of maps and the lines of parallel work in one order. */
function sorted<T>(value: T): T {
  if (Array.isArray(value)) return value.map(sorted) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sorted(item)]),
  ) as T;
}
