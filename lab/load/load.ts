import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { repository } from "../../scripts/lib/paths";
import type { Lab } from "../lab";
import { clientAddresses, network } from "../machines";
import { type Log, parseLog } from "./summary";

/** What the load client sends; its defaults are in lab/load/load-client.py. */
export interface LoadOptions {
  /** ADDRESS:PORT. @default the lab's VIP */
  readonly target?: string;
  /** Light requests a second, a new connection each. */
  readonly rate?: number;
  /** Connections that stay open, with a request every half second each. */
  readonly kept?: number;
  /** Event streams held open. */
  readonly streams?: number;
  /** Syntheses at the same time. */
  readonly syntheses?: number;
  /** Length of a synthesis's text. */
  readonly characters?: number;
  /** s between two syntheses of a lane. */
  readonly pause?: number;
  /** s, of a light request. */
  readonly timeout?: number;
  /** s after which a light answer counts as slow. */
  readonly slow?: number;
  /** s, of a synthesis. */
  readonly "synthesis-timeout"?: number;
  /** s until it ends by itself. @default it does not */
  readonly duration?: number;
  /** s that what is under way at the end may take. */
  readonly finish?: number;
  readonly path?: string;
}

const directory = join(repository, "lab/load");

/** A program of lab/load that runs in a machine; what it writes comes line by line, as it happens. */
export class Watcher {
  readonly lines: string[] = [];
  /** Resolves when it has ended, with its exit code; never rejects. */
  readonly ended: Promise<number>;
  private complaint = "";

  private constructor(
    private readonly lab: Lab,
    private readonly machine: string,
    private readonly file: string,
    args: readonly string[],
    onLine: (line: string) => void,
  ) {
    const child = lab.exec(machine, [file, ...args], { reject: false, stdin: "ignore", buffer: false });
    let rest = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      const parts = (rest + chunk.toString()).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) {
        this.lines.push(line);
        onLine(line);
      }
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      this.complaint = (this.complaint + chunk.toString()).slice(-2000);
    });
    this.ended = child.then(({ exitCode }) => exitCode ?? 1);
  }

  /** Brings the program to the machine (its /run, so that a full disk does not matter) and starts it. */
  static async start(
    lab: Lab,
    machine: string,
    program: string,
    args: readonly string[],
    onLine: (line: string) => void = () => undefined,
  ): Promise<Watcher> {
    const file = `/run/${program}`;
    const install = `cat >${file}.new && chmod 755 ${file}.new && mv ${file}.new ${file}`;
    await lab.exec(machine, ["sh", "-c", install], {
      input: await readFile(join(directory, `${program}.py`), "utf8"),
    });
    return new Watcher(lab, machine, file, args, onLine);
  }

  /** What it complained of. */
  get stderr(): string {
    return this.complaint.trim();
  }

  /** Tells it to end. */
  async terminate(): Promise<void> {
    await this.lab.exec(this.machine, ["pkill", "-TERM", "-f", `^/usr/bin/python3 -IS ${this.file}`], {
      stdin: "ignore",
      reject: false,
    });
  }
}

/** Traffic on the cluster, from the lab's client. */
export class Load {
  private constructor(private readonly watcher: Watcher) {}

  /** Starts it; the first request has been sent soon after this resolves. */
  static async start(lab: Lab, options: LoadOptions = {}): Promise<Load> {
    const sources = `${clientAddresses[0]}-${clientAddresses.at(-1)}`;
    const args = { target: `${network.vip}:${network.port}`, sources, ...options };
    const flags = Object.entries(args).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const watcher = await Watcher.start(lab, "client", "load-client", flags);
    const load = new Load(watcher);
    for (let tries = 0; watcher.lines.length === 0; tries += 1) {
      if (tries > 300) throw new Error(`The load client does not start: ${watcher.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return load;
  }

  /** What it has written so far. */
  get log(): Log {
    return parseLog(this.watcher.lines);
  }

  /** Ends it and gives its whole log. @throws Error when it broke off. */
  async stop(): Promise<Log> {
    await this.watcher.terminate();
    return this.finished();
  }

  /** Waits for the end of its `duration`. @throws Error when it broke off. */
  async finished(): Promise<Log> {
    const exitCode = await this.watcher.ended;
    const { log } = this;
    if (!log.whole) throw new Error(`The load client failed (exit code ${exitCode}): ${this.watcher.stderr}`);
    return log;
  }

  /** Waits until it is gone, whatever became of it, and gives what it wrote until then. */
  async abandoned(): Promise<Log> {
    await this.watcher.ended;
    return this.log;
  }
}
