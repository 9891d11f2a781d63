import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Options } from "execa";
import { stateDir } from "../scripts/lib/paths";
import { createDataDisk } from "./disk";
import { LabError } from "./errors";
import { ensureImage, type Image, imageAt, imageExists, imageHash, imagesDir } from "./image";
import { LabKeys, vmName } from "./keys";
import { machineNamed, machines, network } from "./machines";
import { freePortFrom, isFree } from "./ports";
import { LabSsh } from "./ssh";
import { type LabStatus, running, stopped } from "./status";
import { Vm, type VmProcess } from "./vm";

const control = "/usr/local/lib/lab/machine";

/** What a lab is, between one start and the next. */
interface LabRecord {
  /** Hash of the root file system that the machines' own layers lie over; it must stay the same. */
  readonly machineImage: string;
  /** Ports of 127.0.0.1: to the virtual machine's SSH server, to the VIP, and to the VIP's HTTPS. */
  readonly sshPort: number;
  readonly vipPort: number;
  /** Absent in a lab that an older version started. */
  readonly httpsPort?: number;
  /** By the port of the monitoring machine: the one of 127.0.0.1 that leads there. */
  readonly monitorPorts: Readonly<Record<string, number>>;
}

/**
 * The cluster's machines in a box: one QEMU virtual machine, in it one systemd-nspawn machine each. What `scripts/lab`
 * does, for programs (the end-to-end tests).
 */
export class Lab {
  readonly ssh: LabSsh;
  readonly keys: LabKeys;
  readonly vm: Vm;

  /** @param directory everything that this lab keeps. @default `lab` in the state directory */
  constructor(readonly directory: string = join(stateDir(), "lab")) {
    this.keys = new LabKeys(join(directory, "keys"));
    this.ssh = new LabSsh(directory, this.keys);
    this.vm = new Vm(directory);
  }

  /** The images this lab runs on, built when they are not in the cache. */
  async images(note: (text: string) => void): Promise<{ vm: Image; machine: Image }> {
    const record = await this.record();
    const wanted = await imageHash("machine");
    if (record !== undefined && record.machineImage !== wanted) {
      const kept = imageAt("machine", record.machineImage);
      if (!(await imageExists(kept))) {
        throw new LabError(
          `The machines' image ${kept.hash}, which this lab was made with, is no longer in the cache, and the work tree describes another one (${wanted}).`,
          "scripts/lab destroy, then scripts/lab up, makes a new lab.",
        );
      }
      note(
        "the image's description changed; this lab keeps the one it was made with until scripts/lab destroy",
      );
      return { vm: await ensureImage("vm", note), machine: kept };
    }
    const [vm, machine] = await Promise.all([ensureImage("vm", note), ensureImage("machine", note)]);
    return { vm, machine };
  }

  /** Starts the virtual machine, unless it runs; makes keys and disk at the first time. */
  async boot(images: { vm: Image; machine: Image }, note: (text: string) => void): Promise<VmProcess> {
    const present = await this.vm.running();
    if (present !== undefined) {
      note("runs already");
      return present;
    }
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    await this.keys.ensure();
    const data = join(this.directory, "data.img");
    const before = await this.record();
    if (!existsSync(data)) await createDataDisk(data, await this.keys.forDisk());
    const record: LabRecord = {
      machineImage: images.machine.hash,
      sshPort:
        before !== undefined && (await isFree(before.sshPort)) ? before.sshPort : await freePortFrom(42200),
      vipPort: await freePortFrom(network.port),
      httpsPort: await freePortFrom(network.httpsForward),
      monitorPorts: await freePorts(network.monitorPorts),
    };
    await writeFile(`${this.recordFile}.new`, `${JSON.stringify(record)}\n`);
    await rename(`${this.recordFile}.new`, this.recordFile);
    await this.ssh.configure(record.sshPort);
    await this.ssh.close();
    const { sshPort, vipPort, httpsPort, monitorPorts } = record;
    const forwards = [
      ...(httpsPort === undefined ? [] : [[httpsPort, network.httpsPort] as const]),
      ...Object.entries(monitorPorts).map(([there, here]) => [here, Number(there)] as const),
    ];
    const process = await this.vm.start({ ...images, data, sshPort, vipPort, forwards }, note);
    if (vipPort !== network.port)
      note(`port ${network.port} of this computer is taken: the VIP is at ${vipPort}`);
    return process;
  }

  /**
   * Starts and plugs in every machine and waits until each answers on SSH.
   *
   * @throws LabError with the silent ones' names after `limit` seconds.
   */
  async startMachines(note: (text: string) => void, limit = 240): Promise<void> {
    const waiting = new Set(machines.map(({ name }) => name));
    const command = ["env", `LAB_WAIT=${limit}`, control, "start-all"];
    const answer = this.ssh.spawn(vmName, command, { stdin: "ignore", lines: true });
    note("waiting for SSH");
    try {
      for await (const name of answer) {
        waiting.delete(String(name));
        if (waiting.size > 0) note(`waiting for ${[...waiting].join(", ")}`);
      }
    } catch (error) {
      throw new LabError(
        `These machines do not answer on SSH: ${[...waiting].join(", ")}.`,
        `scripts/lab exec ${[...waiting][0] ?? "NAME"} -- journalctl -b shows why; scripts/lab up waits again.`,
        this.vm.consoleLog,
        { cause: error },
      );
    }
    note("");
  }

  /** Shuts all machines down and stops the virtual machine; the disk stays. */
  async down(): Promise<void> {
    if ((await this.vm.running()) === undefined) return;
    // The connection breaks while it shuts down.
    await this.ssh.spawn(vmName, ["systemctl", "poweroff"], {
      stdio: "ignore",
      reject: false,
      timeout: 20_000,
    });
    await this.ssh.close();
    await this.vm.waitForEnd(90);
  }

  /**
   * Removes the lab: machines, disk, keys, the lab stack's state.
   *
   * @param options.cache also the built images
   */
  async destroy(options: { cache?: boolean } = {}): Promise<void> {
    if ((await this.vm.running()) !== undefined) {
      await this.ssh.close();
      await this.vm.kill();
    }
    await rm(this.directory, { recursive: true, force: true });
    if (options.cache === true) await rm(imagesDir(), { recursive: true, force: true });
  }

  /** Where a browser on this computer finds the service. */
  async url(): Promise<string | undefined> {
    const record = await this.record();
    return record && `http://127.0.0.1:${record.vipPort}/`;
  }

  /** Where it is found by HTTPS, for whoever trusts the lab's CA ({@link LabTls}). */
  async httpsUrl(): Promise<string | undefined> {
    const port = (await this.record())?.httpsPort;
    return port === undefined ? undefined : `https://127.0.0.1:${port}/`;
  }

  /** Where this computer finds Prometheus (9090) or Alertmanager (9093) of the lab's monitoring machine. */
  async monitorUrl(port: (typeof network.monitorPorts)[number]): Promise<string | undefined> {
    const here = (await this.record())?.monitorPorts?.[port];
    return here === undefined ? undefined : `http://127.0.0.1:${here}/`;
  }

  /** Port of 127.0.0.1 of the virtual machine's SSH server, the jump host. */
  async sshPort(): Promise<number> {
    const record = await this.record();
    if (record === undefined) throw this.absent();
    return record.sshPort;
  }

  /** What runs. */
  async status(): Promise<LabStatus> {
    const vm = await this.vm.running();
    const record = await this.record();
    if (vm === undefined || record === undefined) return stopped(record !== undefined);
    return running(vm, record, await this.ssh.inVm(control, "status"));
  }

  /**
   * Starts a command in a machine, as root, by way of the virtual machine and not of the machine's network. Its exit
   * code is the result's; 125 means that the machine is off.
   */
  exec<T extends Options>(name: string, command: readonly string[], options: T, tty = false) {
    return this.ssh.spawn(
      vmName,
      [control, "exec", machineNamed(name).name, ...command],
      options,
      tty ? ["-t"] : [],
    );
  }

  /** The machine loses its power: first its link goes down, then all its processes are killed, nothing is cleaned up. */
  async powerCut(name: string): Promise<void> {
    await this.control("power-cut", name);
  }

  /** Starts a machine with its disk and addresses, and waits until it answers on SSH. */
  async powerOn(name: string): Promise<void> {
    await this.control("power-on", name);
    await this.control("wait-ssh", name);
  }

  /** Takes the machine's link down, on the virtual machine's side. */
  async unplug(name: string): Promise<void> {
    await this.control("unplug", name);
  }

  async plug(name: string): Promise<void> {
    await this.control("plug", name);
  }

  /** @throws LabError unless the lab runs. */
  async requireRunning(): Promise<void> {
    if ((await this.vm.running()) === undefined) throw this.absent();
  }

  private async control(verb: string, name: string): Promise<void> {
    const machine = machineNamed(name);
    await this.requireRunning();
    await this.ssh.inVm(control, verb, machine.name);
  }

  private absent(): LabError {
    return new LabError("The lab does not run.", "Start it with: scripts/lab up");
  }

  private get recordFile(): string {
    return join(this.directory, "lab.json");
  }

  private async record(): Promise<LabRecord | undefined> {
    const text = await readFile(this.recordFile, "utf8").catch(() => undefined);
    return text === undefined ? undefined : (JSON.parse(text) as LabRecord);
  }
}

/** For each port one of 127.0.0.1 that is free: the same where possible, and no two alike. */
async function freePorts(ports: readonly number[]): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const port of ports) {
    let free = await freePortFrom(port);
    while (Object.values(found).includes(free)) free = await freePortFrom(free + 1);
    found[port] = free;
  }
  return found;
}
