import pLimit from "p-limit";
import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import { utc } from "../lib/time";
import type { Inventory, InventoryMachine } from "./inventory";
import { type MachineReport, probe } from "./probe";

/** Machines asked at once. */
const AT_ONCE = 32;

export interface DirectorStatus {
  readonly name: string;
  readonly address: string;
  readonly reachable: boolean;
  /** Why it is not reachable; null when it is. */
  readonly reason: string | null;
  readonly holdsVip: boolean;
  /** systemd's word for keepalived. */
  readonly keepalived: string;
}

/** Whether new connections reach a real server, by the table of the director that holds the VIP. */
export type PoolState = "serving" | "drained" | "out" | "unknown";

export interface RealServerStatus {
  readonly name: string;
  readonly address: string;
  readonly reachable: boolean;
  readonly reason: string | null;
  readonly pool: PoolState;
  /** IPVS weight; null when it is not in the kernel's table. */
  readonly weight: number | null;
  readonly activeConnections: number;
  readonly inactiveConnections: number;
  /** systemd's word for cosyvoice.service. */
  readonly service: string;
  readonly ready: boolean;
  /** Why it is drained, and since when (ISO 8601): by hand or by a deployment. Null when it is not. */
  readonly drain: { readonly reason: string; readonly since: string } | null;
  /** What is mounted at /root/CosyVoice/outputs; null when nothing is. */
  readonly outputs: string | null;
}

export interface ClusterStatus {
  readonly vip: string;
  readonly port: number;
  /** Name of the director that holds the VIP; null unless exactly one does. */
  readonly holder: string | null;
  readonly scheduler: string | null;
  readonly directors: readonly DirectorStatus[];
  readonly realServers: readonly RealServerStatus[];
  /** What is not as it should be, each in a sentence; empty when all is well. */
  readonly findings: readonly string[];
}

/** A machine's report, or why there is none. */
export type Answer = { readonly report: MachineReport } | { readonly reason: string };

/** Asks every director and real server how it is, and puts the answers together. */
export async function clusterStatus(inventory: Inventory, ssh: OpenSsh): Promise<ClusterStatus> {
  const asked = inventory.machines.filter(({ role }) => role === "director" || role === "realServer");
  return summarise(inventory, await askAll(inventory, asked, ssh));
}

/** Asks machines how they are, all at once. The answers are by name. */
export async function askAll(
  inventory: Inventory,
  machines: readonly InventoryMachine[],
  ssh: OpenSsh,
): Promise<Map<string, Answer>> {
  const limit = pLimit(AT_ONCE);
  const answers = machines.map((machine) =>
    limit(async () => [machine.name, await ask(inventory, machine, ssh)] as const),
  );
  return new Map(await Promise.all(answers));
}

async function ask(inventory: Inventory, machine: InventoryMachine, ssh: OpenSsh): Promise<Answer> {
  try {
    return { report: await probe(inventory, machine, ssh) };
  } catch (error) {
    if (error instanceof UnreachableError) return { reason: error.reason };
    // One machine that cannot even be asked must not hide the others.
    return { reason: error instanceof Error ? error.message : String(error) };
  }
}

/** What a machine said of itself; undefined when it was not asked, or did not answer. */
export function reportOf(
  answers: ReadonlyMap<string, Answer>,
  { name }: InventoryMachine,
): MachineReport | undefined {
  const answer = answers.get(name);
  return answer && "report" in answer ? answer.report : undefined;
}

/** Puts the machines' answers together. Of one that was not asked nothing is known, and nothing is said against it. Pure. */
export function summarise(inventory: Inventory, answers: ReadonlyMap<string, Answer>): ClusterStatus {
  const { vip, port, machines } = inventory;
  const contact = (machine: InventoryMachine) => {
    const answer = answers.get(machine.name);
    const reason = answer && "reason" in answer ? answer.reason : null;
    return { name: machine.name, address: machine.address, reachable: reason === null, reason };
  };

  const directorMachines = machines.filter(({ role }) => role === "director");
  const directors = directorMachines.map((machine): DirectorStatus => {
    const report = reportOf(answers, machine);
    return {
      ...contact(machine),
      holdsVip: report !== undefined && report.vip !== null,
      keepalived: report?.units["keepalived.service"] ?? "unknown",
    };
  });
  const holders = directors.filter(({ holdsVip }) => holdsVip);
  const holder = holders.length === 1 ? (holders[0]?.name ?? null) : null;
  const holding = directorMachines.find(({ name }) => name === holder);
  const table = holding && reportOf(answers, holding);

  const realServers = machines
    .filter(({ role }) => role === "realServer")
    .map((machine): RealServerStatus => {
      const report = reportOf(answers, machine);
      const entry = table?.ipvs?.find(({ address }) => address === machine.address);
      return {
        ...contact(machine),
        pool: poolState(table, entry?.weight),
        weight: entry?.weight ?? null,
        activeConnections: entry?.active ?? 0,
        inactiveConnections: entry?.inactive ?? 0,
        service: report?.units["cosyvoice.service"] ?? "unknown",
        ready: report?.ready === true,
        drain: report?.drain
          ? { reason: report.drain.reason, since: new Date(report.drain.since * 1000).toISOString() }
          : null,
        outputs: report?.outputs ?? null,
      };
    });
  const status = { vip, port, holder, scheduler: table?.scheduler ?? null, directors, realServers };
  return { ...status, findings: findings(status) };
}

/** What the reason of a drain begins with when `scripts/cluster drain` made it. */
export const BY_HAND = "by hand";

/** Whether a drain was made by `scripts/cluster drain`, by its reason. */
export function isByHand(reason: string): boolean {
  return reason.startsWith(BY_HAND);
}

function poolState(table: MachineReport | undefined, weight: number | undefined): PoolState {
  if (!table?.ipvs) return "unknown";
  if (weight === undefined) return "out";
  return weight > 0 ? "serving" : "drained";
}

function findings(status: Omit<ClusterStatus, "findings">): string[] {
  const { vip, holder, directors, realServers } = status;
  const found: string[] = [];
  for (const { name, address, reachable, reason } of [...directors, ...realServers]) {
    if (!reachable) found.push(`${name} (${address}) cannot be reached: ${reason}.`);
  }
  for (const { name, reachable, keepalived } of directors) {
    if (reachable && keepalived !== "active")
      found.push(`${name}: keepalived is ${keepalived} (journalctl -u keepalived).`);
  }
  if (holder === null) {
    const holders = directors.filter(({ holdsVip }) => holdsVip).map(({ name }) => name);
    found.push(
      holders.length === 0
        ? `No director that can be reached holds the VIP ${vip}.`
        : `${holders.join(" and ")} both hold the VIP ${vip}.`,
    );
  }
  for (const { name, reachable, pool, ready, service, drain, outputs } of realServers) {
    if (drain) {
      const undrain = isByHand(drain.reason) ? ` (scripts/cluster undrain ${name})` : "";
      found.push(`${name} is drained since ${utc(Date.parse(drain.since))}: ${drain.reason}${undrain}.`);
      if (pool === "serving") found.push(`${name} gets new connections although it is drained.`);
    } else if (pool === "out" || pool === "drained") {
      found.push(`${name} gets no new connections (${pool}).`);
    }
    if (!reachable) continue;
    // A drained one says that it is not ready, as it should.
    if (service !== "active" || !(ready || drain)) {
      found.push(
        `${name}: the service is ${service}${ready ? "" : ", not ready"} (journalctl -u cosyvoice).`,
      );
    }
    if (outputs === null) found.push(`${name}: the share is not mounted at /root/CosyVoice/outputs.`);
  }
  return found;
}
