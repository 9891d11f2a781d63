import pLimit from "p-limit";
import * as z from "zod";
import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import { utc } from "../lib/time";
import type { Inventory, InventoryMachine } from "./inventory";
import { type MachineReport, probe } from "./probe";
import { runProgram } from "./run";

/** Machines asked at once. */
const AT_ONCE = 32;

/** Days before its end from which a certificate is a finding: ACME renews at thirty. */
const CERTIFICATE_DAYS = 14;

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
  /** What waits and what is spoken there; null when it does not say. */
  readonly queue: { readonly waiting: number; readonly running: number } | null;
  /** Digest of the speech app's release that runs there; null when it could not be asked. */
  readonly release: string | null;
  /** Name of the engine that speaks, and upstream's commit of it where there is one. */
  readonly engine: MachineReport["engine"];
  /** Null where there is none. */
  readonly gpus: MachineReport["gpus"];
  /** What is mounted at /root/CosyVoice/outputs; null when nothing is. */
  readonly outputs: string | null;
  /** Why results can be neither kept nor read there, in the service's words; null when they can, or it does not say. */
  readonly outputsProblem: string | null;
}

const alertSchema = z.object({
  name: z.string(),
  severity: z.string(),
  summary: z.string(),
  since: z.string(),
  silenced: z.boolean(),
});

/** What Alertmanager has, as `host/alerts.py` says it. */
export type AlertStatus = z.infer<typeof alertSchema>;

/** The certificate of HTTPS that ends first. */
export interface CertificateStatus {
  /** ISO 8601 */
  readonly until: string;
  readonly days: number;
}

export interface ClusterStatus {
  readonly vip: string;
  readonly port: number;
  /** Name of the director that holds the VIP; null unless exactly one does. */
  readonly holder: string | null;
  readonly scheduler: string | null;
  readonly directors: readonly DirectorStatus[];
  readonly realServers: readonly RealServerStatus[];
  /** Null without HTTPS. */
  readonly certificate: CertificateStatus | null;
  /** What fires now; null when nothing watches, or what does cannot be asked. It is no finding: it ends minutes after its reason. */
  readonly alerts: readonly AlertStatus[] | null;
  /** What is not as it should be, each in a sentence; empty when all is well. */
  readonly findings: readonly string[];
}

/** A machine's report, or why there is none. */
export type Answer = { readonly report: MachineReport } | { readonly reason: string };

/** Asks every director and real server how it is, and puts the answers together. */
export async function clusterStatus(inventory: Inventory, ssh: OpenSsh): Promise<ClusterStatus> {
  const asked = inventory.machines.filter(({ role }) => role === "director" || role === "realServer");
  const [answers, alerts] = await Promise.all([askAll(inventory, asked, ssh), askAlerts(inventory, ssh)]);
  return summarise(inventory, answers, alerts);
}

/** Alerts, or why they are not known; null where nothing watches. */
type AlertsAnswer = readonly AlertStatus[] | { readonly reason: string } | null;

/** Asks Alertmanager, through the machine that it is on. */
async function askAlerts({ machines, alertmanagerPort }: Inventory, ssh: OpenSsh): Promise<AlertsAnswer> {
  const monitor = machines.find(({ role }) => role === "monitor");
  if (monitor === undefined || alertmanagerPort === undefined) return null;
  try {
    const said = await runProgram(monitor, ssh, "alerts.py", [alertmanagerPort]);
    return z.array(alertSchema).parse(JSON.parse(said));
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) };
  }
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
export function summarise(
  inventory: Inventory,
  answers: ReadonlyMap<string, Answer>,
  alerts: AlertsAnswer = null,
  now = Date.now(),
): ClusterStatus {
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
        queue: report?.queue ?? null,
        release: report?.releases?.current ?? null,
        engine: report?.engine ?? null,
        gpus: report?.gpus ?? null,
        outputs: report?.outputs ?? null,
        outputsProblem: report?.share === "ok" ? null : (report?.share ?? null),
      };
    });
  const ends = [...answers.values()].flatMap((answer) =>
    "report" in answer && answer.report.certificate !== null ? [answer.report.certificate] : [],
  );
  const status = {
    vip,
    port,
    holder,
    scheduler: table?.scheduler ?? null,
    directors,
    realServers,
    certificate: ends.length === 0 ? null : certificateStatus(Math.min(...ends) * 1000, now),
    alerts: alerts !== null && "reason" in alerts ? null : alerts,
  };
  const unheard = alerts !== null && "reason" in alerts ? [`Alerts are not known: ${alerts.reason}.`] : [];
  return { ...status, findings: [...findings(status), ...unheard] };
}

function certificateStatus(until: number, now: number): CertificateStatus {
  return { until: new Date(until).toISOString(), days: Math.floor((until - now) / 86_400_000) };
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
  const { vip, holder, directors, realServers, certificate } = status;
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
  // Where the storage is away all of them say it, and it is one thing.
  for (const problem of new Set(realServers.flatMap(({ outputsProblem }) => outputsProblem ?? []))) {
    const names = realServers.filter((server) => server.outputsProblem === problem).map(({ name }) => name);
    found.push(
      `${names.join(", ")}: the share cannot be used, so requests fail: ${problem} (docs/runbooks/OutputsAway.md).`,
    );
  }
  const releases = new Set(realServers.flatMap(({ release }) => release ?? []));
  if (releases.size > 1)
    found.push(`The real servers run ${releases.size} releases: ${[...releases].join(", ")} (pulumi up).`);
  if (certificate !== null && certificate.days < CERTIFICATE_DAYS)
    found.push(
      certificate.days < 0
        ? `The certificate of HTTPS has ended (${certificate.until}).`
        : `The certificate of HTTPS ends in ${certificate.days} days (${certificate.until}).`,
    );
  return found;
}
