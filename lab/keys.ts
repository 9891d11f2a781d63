import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import type { DiskKeys } from "./diskFiles";
import { machines } from "./machines";

/** The virtual machine's name among the keys and in the SSH configuration. */
export const vmName = "vm";

/**
 * One lab's SSH keys, made once and kept (mode 0600) in a directory of its state: the key that may log in, and the host
 * keys of the virtual machine and of every machine. Both ends are known beforehand, so no connection trusts at first use.
 */
export class LabKeys {
  constructor(private readonly directory: string) {}

  /** Path of the private key that may log in as root everywhere in the lab. */
  get loginKeyFile(): string {
    return join(this.directory, "login");
  }

  /** Makes the keys that are not there yet. */
  async ensure(): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    for (const name of ["login", ...hostNames]) {
      const file = join(this.directory, name);
      if (existsSync(file)) continue;
      const comment = name === "login" ? "cosyvoice-lvs lab" : name;
      await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file]);
    }
  }

  /** What goes onto the data disk. */
  async forDisk(): Promise<DiskKeys> {
    const host: Record<string, string> = {};
    for (const name of hostNames) host[name] = await readFile(join(this.directory, name), "utf8");
    return { login: await readFile(`${this.loginKeyFile}.pub`, "utf8"), host };
  }

  /** A machine's (or the virtual machine's) public host key, `ssh-ed25519 AAAA...`, without a comment. */
  async hostKey(name: string): Promise<string> {
    const [type, key] = (await readFile(join(this.directory, `${name}.pub`), "utf8")).trim().split(" ");
    return `${type} ${key}`;
  }
}

const hostNames: readonly string[] = [vmName, ...machines.map(({ name }) => name)];
