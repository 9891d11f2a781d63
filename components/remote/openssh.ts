import { rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { onExit } from "signal-exit";
import { renderKnownHosts, renderSshConfig, type SshEntry } from "../../render/ssh";

const JUMP_HOST = "jump-host";

/** One host as OpenSSH is told of it. */
export interface Target {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly user: string;
  readonly hostKey: string;
}

export interface OpenSshOptions {
  readonly machines: readonly Target[];
  readonly jumpHost?: Omit<Target, "name"> | undefined;
  /** Path of the private key ("~/" is the home directory). */
  readonly privateKeyFile?: string | undefined;
  /** Text of the private key, where it is not a file; kept in a private temporary file while in use. */
  readonly privateKey?: string | undefined;
  /** Seconds for one dial. */
  readonly connectTimeout: number;
}

/** What a command reads, where it is more than a text. */
export type RemoteInput = string | AsyncIterable<string | Uint8Array>;

export interface RunOptions {
  readonly input?: RemoteInput;
  /** Seconds until it is given up. @default 60 */
  readonly timeout?: number;
  /** File on this computer that its standard output goes to, whatever is in it; the result has none then. */
  readonly outputFile?: string;
}

/** A command under way on a machine. Its standard input is open until {@link end}. */
export interface RemoteProcess {
  /** Waits until its standard error has that in it. @returns false when it ended without. */
  said(pattern: RegExp): Promise<boolean>;
  /** Closes its standard input, and waits for its end. @throws UnreachableError as {@link OpenSsh.run} does. */
  end(): Promise<RemoteResult>;
}

export interface RemoteResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A host that OpenSSH could not log in to. */
export class UnreachableError extends Error {
  constructor(
    readonly machine: string,
    readonly address: string,
    readonly reason: string,
    readonly fix: string,
  ) {
    super(`${machine} (${address}): ${reason}. ${fix}`);
    this.name = "UnreachableError";
  }
}

/**
 * Runs commands on machines with the OpenSSH client: host keys pinned, no prompts, a limit on every wait. Dials
 * through a jump host share one connection to it, since sshd drops connections above its MaxStartups.
 *
 * @example
 * await using ssh = await OpenSsh.open(options);
 * await ssh.run("rs-1", "uptime");
 */
export class OpenSsh implements AsyncDisposable {
  private constructor(
    private readonly directory: string,
    private readonly targets: ReadonlyMap<string, Target>,
    private readonly jumpHost: Target | undefined,
    private readonly forgetExit: () => void,
  ) {}

  /** @throws UnreachableError when there is a jump host and it cannot be logged in to. */
  static async open(options: OpenSshOptions): Promise<OpenSsh> {
    const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-ssh-"));
    // An interrupt, by which some commands are meant to be ended, would leave the private key behind.
    const forgetExit = onExit(() => rmSync(directory, { recursive: true, force: true }));
    const jumpHost = options.jumpHost && { name: JUMP_HOST, ...options.jumpHost };
    const identityFile = await identity(directory, options);
    const entries: SshEntry[] = [...(jumpHost ? [jumpHost] : []), ...options.machines].map((host) => ({
      ...host,
      ...(jumpHost && host !== jumpHost ? { through: JUMP_HOST } : {}),
    }));
    const knownHosts = join(directory, "known_hosts");
    await writeFile(knownHosts, renderKnownHosts(entries), { mode: 0o600 });
    const text = renderSshConfig({
      entries,
      knownHostsFiles: [knownHosts],
      ...(identityFile === undefined ? {} : { identityFile }),
      connectTimeout: options.connectTimeout,
      controlPath: join(directory, "jump"),
    });
    await writeFile(join(directory, "config"), text, { mode: 0o600 });
    const ssh = new OpenSsh(
      directory,
      new Map(options.machines.map((machine) => [machine.name, machine])),
      jumpHost,
      forgetExit,
    );
    if (jumpHost) {
      try {
        // The first login becomes the connection that all dials through the jump host share.
        await ssh.login(jumpHost, options.connectTimeout + 15);
      } catch (error) {
        await ssh[Symbol.asyncDispose]();
        throw error;
      }
    }
    return ssh;
  }

  /** The arguments that make the OpenSSH client use this configuration. */
  private args(machine: string): string[] {
    return ["-F", join(this.directory, "config"), machine];
  }

  /** Logs in and does nothing. @throws UnreachableError with the reason. */
  async check(machine: string, timeout: number): Promise<void> {
    await this.login(this.target(machine), timeout);
  }

  /**
   * Runs a shell command on a machine.
   *
   * @throws UnreachableError when the machine cannot be logged in to; a command that fails is a result.
   */
  async run(machine: string, command: string, options: RunOptions = {}): Promise<RemoteResult> {
    const target = this.target(machine);
    const { input, timeout = 60, outputFile } = options;
    const ended = await this.logged(target, (args) =>
      execa("ssh", [...args, command], {
        reject: false,
        timeout: timeout * 1000,
        ...(typeof input === "string" ? { input } : { stdin: input ?? "ignore" }),
        ...(outputFile === undefined ? {} : { stdout: { file: outputFile } }),
        stripFinalNewline: false,
      }),
    );
    return outcome(target, timeout, ended);
  }

  /**
   * Starts a shell command on a machine and leaves its standard input open.
   *
   * @param options.input what it reads first
   */
  start(machine: string, command: string, options: { input: string; timeout: number }): RemoteProcess {
    const target = this.target(machine);
    const { input, timeout } = options;
    let errors = "";
    const listeners = new Set<() => void>();
    let close = () => {};
    const ended = this.logged(target, (args) => {
      const child = execa("ssh", [...args, command], {
        reject: false,
        timeout: timeout * 1000,
        stdin: "pipe",
        stripFinalNewline: false,
      });
      child.stdin.write(input);
      close = () => child.stdin.end();
      child.stderr.on("data", (chunk: Buffer) => {
        errors += chunk.toString();
        for (const look of listeners) look();
      });
      return child;
    });
    return {
      said: (pattern) =>
        new Promise((resolve) => {
          const look = () => pattern.test(errors) && resolve(true);
          listeners.add(look);
          look();
          ended.then(() => resolve(pattern.test(errors)));
        }),
      end: async () => {
        close();
        return outcome(target, timeout, await ended);
      },
    };
  }

  /** Logs in for a person, on this terminal, or runs a command there. @returns the session's exit code */
  async session(machine: string, command: readonly string[] = []): Promise<number> {
    const terminal = process.stdin.isTTY ? ["-t"] : [];
    const args = [...terminal, ...this.args(this.target(machine).name), ...command];
    return (await execa("ssh", args, { reject: false, stdio: "inherit" })).exitCode ?? 255;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.jumpHost) {
      await execa("ssh", ["-O", "exit", ...this.args(this.jumpHost.name)], {
        reject: false,
        stdio: "ignore",
      });
    }
    await rm(this.directory, { recursive: true, force: true });
    this.forgetExit();
  }

  private sequence = 0;

  private target(machine: string): Target {
    const target = this.targets.get(machine);
    if (!target) {
      const known = [...this.targets.keys()].join(", ");
      throw new Error(`There is no machine "${machine}" in this stack. Machines: ${known}.`);
    }
    return target;
  }

  private async login(target: Target, timeout: number): Promise<void> {
    // stdio is ignored because the shared connection's process would hold its pipes open for as long as it lives.
    const { result, said } = await this.logged(target, (args) =>
      execa("ssh", [...args, "true"], { reject: false, timeout: timeout * 1000, stdio: "ignore" }),
    );
    if (result.exitCode !== 0)
      throw explain(target, result.timedOut ? `no answer within ${timeout} s` : said, said);
  }

  /** Runs the client with a log of its own, so that its words are never mixed with the remote command's. */
  private async logged<R>(target: Target, start: (args: string[]) => PromiseLike<R>) {
    const log = join(this.directory, `log-${target.name}-${++this.sequence}`);
    const result = await start(["-E", log, ...this.args(target.name)]);
    const said = await readFile(log, "utf8").catch(() => "");
    await rm(log, { force: true });
    return { result, said };
  }
}

/** What is asked of a client that has ended. */
interface Ended {
  readonly timedOut: boolean;
  readonly exitCode?: number | undefined;
  readonly stdout?: unknown;
  readonly stderr?: unknown;
}

/** What a client's end means. @throws UnreachableError when it is the client's own failure. */
function outcome(
  target: Target,
  timeout: number,
  { result, said }: { readonly result: Ended; readonly said: string },
): RemoteResult {
  // 255 is the client's own failure; a remote command may exit with it too, but then the client logged nothing.
  if (result.timedOut || result.exitCode === undefined || (result.exitCode === 255 && said.trim() !== "")) {
    throw explain(target, result.timedOut ? `no answer within ${timeout} s` : said, said);
  }
  return {
    exitCode: result.exitCode,
    stdout: String(result.stdout ?? ""),
    stderr: String(result.stderr ?? ""),
  };
}

async function identity(directory: string, options: OpenSshOptions): Promise<string | undefined> {
  if (options.privateKey !== undefined) {
    const file = join(directory, "identity");
    await writeFile(file, `${options.privateKey.trimEnd()}\n`, { mode: 0o600 });
    return file;
  }
  return options.privateKeyFile === undefined ? undefined : expandHome(options.privateKeyFile);
}

/** `command` as a machine's login user must type it to have root's rights. */
export function asRoot({ user }: { readonly user: string }, command: string): string {
  return user === "root" ? command : `sudo -n ${command}`;
}

/** `~/x` as the shell would read it. */
export function expandHome(path: string): string {
  return path.replace(/^~(?=\/)/, homedir());
}

/** What OpenSSH wrote, turned into a reason and what to do about it. */
export function explain(target: Target, reason: string, log: string): UnreachableError {
  const because = (text: string, fix: string) => new UnreachableError(target.name, target.address, text, fix);
  if (
    /host key verification failed|identification has changed|no matching host key|no .* host key is known/i.test(
      log,
    )
  ) {
    return because(
      `its SSH host key is not the pinned one (${target.hostKey.split(" ").slice(0, 2).join(" ")})`,
      "If the machine was reinstalled on purpose, put its new key into the stack's config; if not, do not trust it",
    );
  }
  if (/permission denied|too many authentication failures/i.test(log)) {
    return because(
      `it refuses the login of "${target.user}"`,
      `Put the public key into that user's authorized_keys, or correct ssh.user and ssh.privateKeyFile`,
    );
  }
  const lines = reason
    .split("\n")
    .filter((line) => line.trim() !== "" && !/^warning: permanently added/i.test(line));
  // A failed hop through the jump host says why on an earlier line than the one that ends the session.
  const telling = lines.find((line) => /connect failed|timed out|no route|refused|unreachable/i.test(line));
  return because(
    (telling ?? lines.at(-1) ?? "ssh failed without a message").replace(/^ssh: /, "").trim(),
    `Check that it is on, and that ${target.address}:${target.port} can be reached from here or from the jump host`,
  );
}
