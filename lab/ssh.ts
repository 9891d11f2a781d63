import { createHash } from "node:crypto";
import { lstatSync, mkdirSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa, type Options } from "execa";
import { shellQuote } from "../render/text";
import { LabError, reason } from "./errors";
import { type LabKeys, vmName } from "./keys";
import { machines } from "./machines";

/** OpenSSH's way into one lab: a configuration and pinned host keys for `ssh -F`, over one shared connection. */
export class LabSsh {
  /** For `ssh -F`: hosts by machine name, the virtual machine as `vm`. */
  readonly configFile: string;
  private readonly knownHostsFile: string;

  constructor(
    private readonly directory: string,
    private readonly keys: LabKeys,
  ) {
    this.configFile = join(directory, "ssh_config");
    this.knownHostsFile = join(directory, "known_hosts");
  }

  /** Writes the configuration for a virtual machine whose SSH server is at that port of 127.0.0.1. */
  async configure(port: number): Promise<void> {
    const known: string[] = [];
    for (const name of [vmName, ...machines.map((machine) => machine.name)]) {
      known.push(`${name} ${await this.keys.hostKey(name)}`);
    }
    await writeFile(this.knownHostsFile, `${known.join("\n")}\n`);
    const hosts = [
      `Host ${vmName}\n  HostName 127.0.0.1\n  Port ${port}\n  HostKeyAlias ${vmName}`,
      // Commands share one connection: a new one costs about a second under emulation.
      `  ControlMaster auto\n  ControlPath ${controlDirectory(this.directory)}/%n\n  ControlPersist 900`,
      ...machines.map(
        ({ name, address }) =>
          `Host ${name}\n  HostName ${address}\n  HostKeyAlias ${name}\n  ProxyJump ${vmName}`,
      ),
      [
        "Host *",
        "  User root",
        `  IdentityFile ${quoted(this.keys.loginKeyFile)}`,
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        `  UserKnownHostsFile ${quoted(this.knownHostsFile)}`,
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  UpdateHostKeys no",
        "  BatchMode yes",
        "  ConnectTimeout 30",
        "  LogLevel ERROR",
      ].join("\n"),
    ];
    await writeFile(this.configFile, `${hosts.join("\n")}\n`);
    await chmod(this.configFile, 0o600);
  }

  /** Runs a command in the virtual machine; its output comes back, a failure throws. */
  async inVm(...command: string[]): Promise<string> {
    try {
      const { stdout } = await this.spawn(vmName, command, { stdin: "ignore" });
      return String(stdout);
    } catch (error) {
      throw new LabError(
        `In the lab's virtual machine '${command.join(" ")}' failed: ${reason(error)}`,
        "scripts/lab status shows what runs; scripts/lab down, then up, starts it anew with the same disk.",
        undefined,
        { cause: error },
      );
    }
  }

  /** Starts a command on a host of the configuration; arguments arrive there as they are here. */
  spawn<T extends Options>(
    host: string,
    command: readonly string[],
    options: T,
    flags: readonly string[] = [],
  ) {
    const args = [
      "-F",
      this.configFile,
      ...flags,
      host,
      ...(command.length > 0 ? ["--", command.map(shellQuote).join(" ")] : []),
    ];
    return execa("ssh", args, options);
  }

  /** Ends the shared connection, if there is one. */
  async close(): Promise<void> {
    await execa("ssh", ["-F", this.configFile, "-O", "exit", vmName], { reject: false, stdio: "ignore" });
  }
}

function quoted(path: string): string {
  return `"${path}"`;
}

/**
 * A socket's path has room for about a hundred characters, which a state directory may exceed: it is in the system's
 * temporary directory, in a directory of this user alone.
 */
function controlDirectory(state: string): string {
  const uid = process.getuid?.() ?? 0;
  const hash = createHash("sha256").update(state).digest("hex").slice(0, 10);
  const directory = join(tmpdir(), `cosyvoice-lvs-${uid}-${hash}`);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const found = lstatSync(directory);
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new LabError(
      `${directory} is not a directory of this user alone.`,
      "Remove it, then run this again.",
    );
  }
  return directory;
}
