import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { availableParallelism, freemem } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Accelerator, acceleratorArguments, kvmKnowledge, rememberKvm } from "./accelerator";
import { LabError } from "./errors";
import type { Image } from "./image";
import { network } from "./machines";
import { sshGreets } from "./ports";

/** Guest memory, MiB. With QEMU's own (up to 1 GiB under emulation) the lab stays under 6 GiB. */
const vmMemory = 4096;

/** What a started virtual machine is made of. */
export interface VmSettings {
  /** The virtual machine's own disk, kernel and initial RAM disk; only read. */
  readonly vm: Image;
  /** The machines' shared root file system; only read. @default none, for the benchmark's virtual machine */
  readonly machine?: Image;
  /** The data disk; everything that is written goes there. */
  readonly data: string;
  /** Port of 127.0.0.1 to the virtual machine's SSH server. */
  readonly sshPort: number;
  /** Port of 127.0.0.1 to the VIP. @default none */
  readonly vipPort?: number;
  /** Further ports of 127.0.0.1, each with the virtual machine's port that it leads to. @default none */
  readonly forwards?: readonly (readonly [here: number, there: number])[];
  /** Further kernel parameters. @default none */
  readonly kernelParameters?: string;
}

/** What is known of a running QEMU. */
export interface VmProcess {
  readonly pid: number;
  readonly accelerator: Accelerator;
}

/** The one QEMU process of a lab; what is known of it lies in `directory`. */
export class Vm {
  /** The virtual machine's serial console. */
  readonly consoleLog: string;
  private readonly qemuLog: string;
  private readonly processFile: string;

  /** @param directory the lab's, which exists by the time of `start` */
  constructor(directory: string) {
    this.consoleLog = join(directory, "console.log");
    this.qemuLog = join(directory, "qemu.log");
    this.processFile = join(directory, "vm.json");
  }

  /** The running QEMU of this lab, if there is one. */
  async running(): Promise<VmProcess | undefined> {
    const text = await readFile(this.processFile, "utf8").catch(() => undefined);
    if (text === undefined) return undefined;
    const process = JSON.parse(text) as VmProcess;
    // The number may belong to another process by now.
    const commandLine = await readFile(`/proc/${process.pid}/cmdline`, "utf8").catch(() => "");
    return commandLine.includes(this.consoleLog) ? process : undefined;
  }

  /**
   * Starts the virtual machine and waits until its SSH server greets. With KVM where a guest makes progress on it,
   * else emulated.
   *
   * @param note is told what goes on
   * @throws LabError when it does not come up within `limit` seconds.
   */
  async start(settings: VmSettings, note: (text: string) => void, limit = 240): Promise<VmProcess> {
    const kvm = await kvmKnowledge();
    if (kvm !== "no") {
      note("trying KVM");
      const process = await this.spawn(settings, "kvm");
      if (await this.makesProgress(process.pid, 10)) {
        if (kvm === "untried") await rememberKvm(true);
        await this.waitForSsh(process, settings.sshPort, note, limit);
        return process;
      }
      await this.kill();
      await rememberKvm(false);
      note("no guest makes progress on KVM here, going on with emulation");
    }
    const process = await this.spawn(settings, "tcg");
    await this.waitForSsh(process, settings.sshPort, note, limit);
    return process;
  }

  /** Waits until QEMU has ended, which it does when the guest is shut down; after `limit` seconds it is killed. */
  async waitForEnd(limit: number): Promise<void> {
    const end = Date.now() + limit * 1000;
    while ((await this.running()) !== undefined) {
      if (Date.now() > end) await this.kill();
      await sleep(200);
    }
    await rm(this.processFile, { force: true });
  }

  /** Ends QEMU at once: a power cut for the whole lab, which loses what no machine had synced. */
  async kill(): Promise<void> {
    for (let tries = 0; tries < 100; tries++) {
      const running = await this.running();
      if (running === undefined) break;
      try {
        process.kill(running.pid, "SIGKILL");
      } catch {
        // It ended meanwhile.
      }
      await sleep(50);
    }
    await rm(this.processFile, { force: true });
  }

  private async spawn(settings: VmSettings, accelerator: Accelerator): Promise<VmProcess> {
    if (freemem() < vmMemory * 1.1 * 2 ** 20) {
      throw new LabError(
        `The lab's virtual machine needs ${vmMemory} MiB of memory, ${Math.floor(freemem() / 2 ** 20)} MiB are free.`,
        "Close other programs, then run this again.",
      );
    }
    await rm(this.consoleLog, { force: true });
    const log = openSync(this.qemuLog, "w");
    // Its own process group and no terminal: it outlives this program, and Ctrl-C does not reach it.
    const child = spawn("qemu-system-x86_64", this.arguments(settings, accelerator), {
      detached: true,
      stdio: ["ignore", log, log],
    });
    child.on("error", () => undefined);
    child.unref();
    closeSync(log);
    if (child.pid === undefined)
      throw this.failed("QEMU (qemu-system-x86_64) could not be started", this.qemuLog);
    const started: VmProcess = { pid: child.pid, accelerator };
    await writeFile(this.processFile, `${JSON.stringify(started)}\n`);
    return started;
  }

  private arguments(settings: VmSettings, accelerator: Accelerator): string[] {
    const { vm, machine, data, sshPort, vipPort, forwards = [], kernelParameters } = settings;
    const disk = (id: string, file: string, options: string) => [
      "-drive",
      `id=${id},if=none,format=raw,file=${file.replaceAll(",", ",,")},${options}`,
      "-device",
      `virtio-blk-pci,drive=${id}`,
    ];
    const forwarded = [
      [sshPort, 22],
      ...(vipPort === undefined ? [] : [[vipPort, network.port]]),
      ...forwards,
    ].map(([host, guest]) => `hostfwd=tcp:127.0.0.1:${host}-:${guest}`);
    const kernel = [
      "console=ttyS0 loglevel=6 panic=1 net.ifnames=0 random.trust_cpu=on audit=0 lsm=capability nowatchdog rcupdate.rcu_expedited=1",
      // Nothing in the lab is worth protecting from the processor's leaks, and emulation pays dearly for it.
      "mitigations=off systemd.show_status=false",
      ...(kernelParameters === undefined ? [] : [kernelParameters]),
    ];
    return [
      ...["-name", "cosyvoice-lvs-lab", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
      ...["-machine", "q35", ...acceleratorArguments(accelerator)],
      ...["-smp", String(Math.min(4, Math.max(2, availableParallelism()))), "-m", `${vmMemory}M`],
      ...["-kernel", vm.kernel, "-initrd", vm.initrd, "-append", kernel.join(" ")],
      // The order makes them vda, vdb, vdc. snapshot: changes go to a temporary file that ends with QEMU.
      ...disk("vm", vm.disk, "snapshot=on"),
      ...(machine === undefined ? [] : disk("machine", machine.disk, "readonly=on")),
      ...disk("data", data, "cache=writeback"),
      "-netdev",
      ["user,id=net,restrict=on", ...forwarded].join(","),
      ...["-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"],
      ...["-serial", `file:${this.consoleLog}`],
    ];
  }

  /** Does the guest's kernel say something within `limit` seconds? */
  private async makesProgress(pid: number, limit: number): Promise<boolean> {
    for (const end = Date.now() + limit * 1000; Date.now() < end; await sleep(100)) {
      if ((await this.running())?.pid !== pid) return false;
      const said = await readFile(this.consoleLog, "utf8").catch(() => "");
      if (said.includes("Linux version")) return true;
    }
    return false;
  }

  private async waitForSsh(
    vm: VmProcess,
    port: number,
    note: (text: string) => void,
    limit: number,
  ): Promise<void> {
    note(`booting, ${vm.accelerator === "kvm" ? "KVM" : "emulated (TCG)"}`);
    const end = Date.now() + limit * 1000;
    while (!(await sshGreets(port, 5000))) {
      if ((await this.running()) === undefined) throw this.failed("QEMU ended while it booted", this.qemuLog);
      if (Date.now() > end) {
        await this.kill();
        throw this.failed(`The virtual machine did not answer on SSH within ${limit} s`, this.consoleLog);
      }
      await sleep(200);
    }
  }

  private failed(what: string, log: string): LabError {
    return new LabError(
      `${what}.`,
      `The serial console is in ${this.consoleLog}. scripts/lab up tries again; scripts/lab destroy, then up, starts from nothing.`,
      log,
    );
  }
}
