import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { LabError, reason } from "../lab/errors";
import { ensureImage, type Image } from "../lab/image";
import { LabKeys, vmName } from "../lab/keys";
import { freePortFrom } from "../lab/ports";
import { LabSsh } from "../lab/ssh";
import { Vm, type VmProcess } from "../lab/vm";
import { stateDir } from "../scripts/lib/paths";

/** Where what is sent to the virtual machine lies in it. */
export const guestDirectory = "/bench";

/** The benchmark's own virtual machine. It lasts as long as the run, and nothing that it writes is kept. */
export class BenchMachine {
  private readonly keys: LabKeys;
  private readonly ssh: LabSsh;
  private readonly vm: Vm;

  /** @param directory everything that it keeps. @default `bench` in the state directory */
  constructor(private readonly directory: string = join(stateDir(), "bench")) {
    this.keys = new LabKeys(join(directory, "keys"));
    this.ssh = new LabSsh(directory, this.keys);
    this.vm = new Vm(directory);
  }

  /** The image, from the cache or else built (a minute or two). */
  image(note: (text: string) => void): Promise<Image> {
    return ensureImage("bench", note);
  }

  /**
   * Starts it afresh. One that still runs is ended: it is the leftover of a run that was killed.
   *
   * @throws LabError when it does not come up.
   */
  async start(image: Image, note: (text: string) => void): Promise<VmProcess> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    await this.vm.kill();
    await this.ssh.close();
    await this.keys.ensure();
    const data = join(this.directory, "keys.tar");
    await this.packKeys(data);
    const sshPort = await freePortFrom(42400);
    await this.ssh.configure(sshPort);
    // Every kind of object in the kernel's memory on an account of its own: how much IPVS takes can be read.
    return this.vm.start({ vm: image, data, sshPort, kernelParameters: "slab_nomerge" }, note);
  }

  /** Ends it at once. */
  async stop(): Promise<void> {
    await this.ssh.close();
    await this.vm.kill();
  }

  /** Writes files below {@link guestDirectory}; text by path. */
  async send(files: Readonly<Record<string, string>>): Promise<void> {
    const scratch = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-bench-"));
    try {
      for (const [path, text] of Object.entries(files)) {
        await mkdir(dirname(join(scratch, path)), { recursive: true });
        await writeFile(join(scratch, path), text, { mode: text.startsWith("#!") ? 0o755 : 0o644 });
      }
      const archive = await execa(
        "tar",
        ["--owner=root:0", "--group=root:0", "-c", "-f", "-", "-C", scratch, "."],
        { encoding: "buffer" },
      );
      await this.ssh.spawn(vmName, ["tar", "-x", "-f", "-", "-C", guestDirectory], { input: archive.stdout });
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }

  /**
   * Runs a program in it until it ends.
   *
   * @param line gets every line of its standard output
   * @param limit seconds
   * @throws LabError with its last words when it fails or takes longer than `limit`.
   */
  async run(command: readonly string[], line: (text: string) => void, limit: number): Promise<void> {
    // In a process and mount namespace of its own: what it started, and the network namespaces it made, end with it.
    const alone = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", ...command];
    // The time limit in the guest ends what hangs there; the one here covers a guest that hangs itself.
    const bounded = ["timeout", "-k", "10", String(Math.ceil(limit)), ...alone];
    const child = this.ssh.spawn(vmName, bounded, {
      stdin: "ignore",
      timeout: (limit + 60) * 1000,
    });
    try {
      for await (const text of child.iterable()) line(String(text));
    } catch (error) {
      throw new LabError(
        `In the benchmark's virtual machine '${command.join(" ")}' failed: ${reason(error)}`,
        "Run it again; with --keep the virtual machine stays, to be looked at.",
        this.vm.consoleLog,
        { cause: error },
      );
    }
  }

  /** What to type for a shell in it. */
  get shell(): string {
    return `ssh -F ${this.ssh.configFile} ${vmName}`;
  }

  /** The guest unpacks this disk at boot: a tar archive needs neither a file system nor a loop device here. */
  private async packKeys(path: string): Promise<void> {
    const scratch = await mkdtemp(join(this.directory, "keys-"));
    try {
      const target = join(scratch, "bench");
      await mkdir(target);
      await cp(`${this.keys.loginKeyFile}.pub`, join(target, "authorized_keys"));
      await writeFile(join(target, "ssh_host_ed25519_key"), (await this.keys.forDisk()).host[vmName] ?? "", {
        mode: 0o600,
      });
      await execa("tar", ["--owner=root:0", "--group=root:0", "-c", "-f", path, "-C", scratch, "bench"]);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }
}
