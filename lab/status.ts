import { readFile } from "node:fs/promises";
import { machines } from "./machines";
import type { VmProcess } from "./vm";

/** One machine, as `lab status` shows it. */
export interface MachineStatus {
  readonly name: string;
  readonly role: string;
  readonly address: string;
  readonly state: "on" | "off";
  /** Its link, on the virtual machine's side. */
  readonly plugged: boolean;
  /** Whether its SSH server answers. */
  readonly ssh: boolean;
  /** Memory of its control group with the page cache, MiB. */
  readonly memory: number;
}

/** The lab, as `lab status` shows it. */
export interface LabStatus {
  readonly exists: boolean;
  readonly running: boolean;
  readonly url?: string;
  /** Prometheus and Alertmanager, in this order. */
  readonly monitorUrls?: readonly string[];
  readonly sshPort?: number;
  readonly vm?: VmProcess & { readonly memory: number };
  readonly machines: readonly MachineStatus[];
}

/** The status of a lab that does not run. */
export function stopped(exists: boolean): LabStatus {
  return { exists, running: false, machines: [] };
}

/**
 * The status of a running lab.
 *
 * @param report what `machine status` printed in the virtual machine
 */
export async function running(
  vm: VmProcess,
  ports: {
    readonly sshPort: number;
    readonly vipPort: number;
    readonly monitorPorts?: Readonly<Record<string, number>>;
  },
  report: string,
): Promise<LabStatus> {
  const states = new Map(report.split("\n").map((line) => [line.split(" ")[0], line.split(" ").slice(1)]));
  return {
    exists: true,
    running: true,
    url: `http://127.0.0.1:${ports.vipPort}/`,
    monitorUrls: Object.values(ports.monitorPorts ?? {}).map((port) => `http://127.0.0.1:${port}/`),
    sshPort: ports.sshPort,
    vm: { ...vm, memory: await residentMemory(vm.pid) },
    machines: machines.map(({ name, role, address }) => {
      const [state, plugged, ssh, memory] = states.get(name) ?? [];
      return {
        name,
        role,
        address,
        state: state === "on" ? "on" : "off",
        plugged: plugged === "plugged",
        ssh: ssh === "yes",
        memory: Math.round(Number(memory ?? 0) / 2 ** 20),
      };
    }),
  };
}

/** The status for people. */
export function statusText(found: LabStatus): string {
  if (!found.running || found.vm === undefined) {
    return found.exists ? "The lab is stopped: scripts/lab up" : "There is no lab: scripts/lab up";
  }
  const { vm } = found;
  const rows = found.machines.map(({ name, role, address, state, plugged, ssh, memory }) => [
    name,
    role,
    address,
    state === "off" ? "off" : plugged ? "on" : "on, unplugged",
    state === "off" ? "-" : ssh ? "answers" : "no answer",
    `${memory} MiB`,
  ]);
  const table = [["MACHINE", "ROLE", "ADDRESS", "STATE", "SSH", "MEMORY"], ...rows];
  const widths =
    table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? [];
  const lines = table.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const how = vm.accelerator === "kvm" ? "KVM" : "emulated (TCG)";
  return [
    ...lines,
    "",
    `virtual machine: ${how}, process ${vm.pid}, ${vm.memory} MiB resident`,
    `VIP: ${found.url}`,
    ...(found.monitorUrls?.length ? [`Prometheus, Alertmanager: ${found.monitorUrls.join(" ")}`] : []),
  ].join("\n");
}

/** Memory that QEMU holds just now, MiB. */
async function residentMemory(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(text)?.[1] ?? 0) / 1024);
}
