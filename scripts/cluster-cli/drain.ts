import { hostname, userInfo } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory, InventoryMachine } from "./inventory";
import type { MachineReport } from "./probe";
import type { ProgressLine } from "./progress";
import { runAsRoot } from "./run";
import { askAll, BY_HAND, type ClusterStatus, clusterStatus, reportOf } from "./status";

/** While it exists on a real server, the speech app there says at /readyz that it is draining, with its text as reason. */
const DRAIN_FILE = "/run/cosyvoice-lvs/drain";

/** Seconds, and only other than these in tests. */
export interface Limits {
  /** For the directors to follow: a few polls of the slowest kind, and logins on slow machines. */
  readonly pool: number;
  /** For a real server to say at all what it works on. */
  readonly answer: number;
}
const LIMITS: Limits = { pool: 60, answer: 15 };

export interface DrainOptions {
  /** Why, for those who see it in the status. */
  readonly reason?: string | undefined;
  /** Also when nobody would serve any more. */
  readonly force: boolean;
  /** Seconds to wait for its queue to become empty. */
  readonly wait: number;
}

/** What a drain came to. */
export interface Drained {
  readonly realServer: string;
  /** By whom and why, as the status shows it. */
  readonly reason: string;
  /** Requests that it still works on; null when it does not say. */
  readonly left: number | null;
  /** The directors that could not be asked. */
  readonly unasked: readonly string[];
  /** What speaks against work on the machine, each in a sentence; empty when it has nothing left to do. */
  readonly findings: readonly string[];
}

/** What the end of a drain came to. */
export interface Undrained {
  readonly realServer: string;
  readonly wasDrained: boolean;
  /** The directors that could not be asked. */
  readonly unasked: readonly string[];
}

/**
 * Takes a real server out of the pool for work by hand: it finishes what it has, and gets nothing new until
 * {@link undrain} or a restart of the machine.
 *
 * @throws an Error when it is no real server, cannot be reached, is the last that serves, or the directors do not
 *   follow (the drain is then taken back).
 */
export async function drain(
  inventory: Inventory,
  name: string,
  ssh: OpenSsh,
  options: DrainOptions,
  progress: ProgressLine,
  limits = LIMITS,
): Promise<Drained> {
  const machine = realServerNamed(inventory, name, "drain");
  progress.show(`${name}: looking at the cluster`);
  refuseLast(await clusterStatus(inventory, ssh), name, options.force);

  const who = `${userInfo().username}@${hostname()}`;
  const reason = `${BY_HAND} (${who}): ${oneLine(options.reason ?? "no reason given")}`;
  const write = `umask 022 && mkdir -p /run/cosyvoice-lvs && cat >${DRAIN_FILE}.new && mv ${DRAIN_FILE}.new ${DRAIN_FILE}`;
  await runAsRoot(machine, ssh, write, `${reason}\n`);

  const { waiting, unasked } = await untilPool(
    inventory,
    machine,
    ssh,
    progress,
    limits.pool,
    (weight) => weight === 0,
  );
  if (waiting.length > 0) {
    await runAsRoot(machine, ssh, `rm -f ${DRAIN_FILE}`);
    throw new Error(
      `${waiting.join(" and ")} still ${waiting.length > 1 ? "send" : "sends"} ${name} new connections after ${limits.pool} s, so the drain was taken back.\n` +
        `Directors learn of a drain from /readyz: that takes loadBalancer.check.kind poller or http, and a deployed app that is new enough to know drains. Otherwise: scripts/cluster status, and stop cosyvoice.service on ${name} when it has no connections.`,
    );
  }
  const left = (await untilIdle(inventory, machine, ssh, options.wait, limits.answer, progress)) ?? null;
  const still =
    left === null
      ? "does not say what it still works on (journalctl -u cosyvoice)"
      : `still works on ${left} request${left === 1 ? "" : "s"} after ${options.wait} s`;
  return { realServer: name, reason, left, unasked, findings: left === 0 ? [] : [`${name} ${still}.`] };
}

/** A drain for people. */
export function renderDrained({ realServer, unasked, findings }: Drained): string {
  return [
    findings.length === 0
      ? `${realServer} is drained and has nothing left to do.`
      : `${realServer} is drained. ${findings.join(" ")}`,
    ...aside(unasked),
    `Back into the pool: scripts/cluster undrain ${realServer}. A restart of the machine does that too.`,
  ].join(" ");
}

/** The end of a drain for people. */
export function renderUndrained({ realServer, wasDrained, unasked }: Undrained): string {
  const what = wasDrained ? "serves again" : "was not drained, and serves";
  return [`${realServer} ${what}.`, ...aside(unasked)].join(" ");
}

function aside(unasked: readonly string[]): string[] {
  return unasked.length > 0 ? [`${unasked.join(" and ")} could not be asked.`] : [];
}

/**
 * Puts a real server back into the pool.
 *
 * @throws an Error when it is no real server, cannot be reached, or does not come back.
 */
export async function undrain(
  inventory: Inventory,
  name: string,
  ssh: OpenSsh,
  progress: ProgressLine,
  limits = LIMITS,
): Promise<Undrained> {
  const machine = realServerNamed(inventory, name, "undrain");
  progress.show(`${name}: ending the drain`);
  const found = await runAsRoot(machine, ssh, `test -e ${DRAIN_FILE} && echo drained; rm -f ${DRAIN_FILE}`);
  const { waiting, unasked } = await untilPool(
    inventory,
    machine,
    ssh,
    progress,
    limits.pool,
    (weight) => weight > 0,
  );
  if (waiting.length > 0) {
    const report = reportOf(await askAll(inventory, [machine], ssh), machine);
    const why =
      report?.ready === true
        ? `it is ready: see the checks there (journalctl -u cosyvoice-health -u keepalived)`
        : `it is not ready: ${report?.ready ?? "its service does not run"} (journalctl -u cosyvoice on ${name})`;
    throw new Error(
      `${name} is not drained any more, but ${waiting.join(" and ")} had not taken it back after ${limits.pool} s; ${why}.`,
    );
  }
  return { realServer: name, wasDrained: found.trim() === "drained", unasked };
}

/** The real server of that name. @throws an Error that lists them. */
function realServerNamed(inventory: Inventory, name: string, verb: string): InventoryMachine {
  const machine = inventory.machines.find((candidate) => candidate.name === name);
  if (machine?.role === "realServer") return machine;
  const names = inventory.machines.filter(({ role }) => role === "realServer").map((other) => other.name);
  const what = machine
    ? `${name} is the ${machine.role === "director" ? "director" : machine.role} ${machine.address}, and only a real server can be ${verb}ed.`
    : `There is no machine "${name}" in this stack.`;
  throw new Error(`${what} Real servers: ${names.join(", ")}.`);
}

/** @throws an Error when nobody else serves, or that cannot be told. */
function refuseLast(status: ClusterStatus, name: string, force: boolean): void {
  if (force) return;
  const { realServers, holder } = status;
  if (holder === null) {
    throw new Error(
      `Not drained: no single director that can be reached holds the VIP, so who else serves is not known (scripts/cluster status). --force drains it anyway.`,
    );
  }
  const self = realServers.find((server) => server.name === name);
  if (self?.pool !== "serving" || realServers.some((other) => other !== self && other.pool === "serving"))
    return;
  throw new Error(
    `Not drained: ${name} is the last real server that serves, and without it every request would fail. Bring another back first (scripts/cluster status), or say --force.`,
  );
}

/**
 * Waits until every director that can be reached gives a real server a fitting weight (0 also when it is out of the
 * table).
 *
 * @returns the directors that do not in time, and those that could not be asked.
 */
async function untilPool(
  inventory: Inventory,
  machine: InventoryMachine,
  ssh: OpenSsh,
  progress: ProgressLine,
  limit: number,
  fits: (weight: number) => boolean,
): Promise<{ waiting: string[]; unasked: string[] }> {
  const directors = inventory.machines.filter(({ role }) => role === "director");
  const start = Date.now();
  for (;;) {
    const answers = await askAll(inventory, directors, ssh);
    const unasked = directors.filter((director) => !reportOf(answers, director)).map(({ name }) => name);
    if (unasked.length === directors.length) {
      throw new Error(
        `No director can be reached, so whether ${machine.name} gets new connections is not known (scripts/cluster status).`,
      );
    }
    const waiting = directors
      .filter((director) => {
        const report = reportOf(answers, director);
        return report && !fits(weightOf(report, machine.address));
      })
      .map(({ name }) => name);
    const passed = Math.round((Date.now() - start) / 1000);
    if (waiting.length === 0 || passed >= limit) return { waiting, unasked };
    progress.show(`${machine.name}: waiting for ${waiting.join(" and ")} to follow`);
    await sleep(500);
  }
}

/** The weight that a director's kernel gives a real server; 0 when it is not in the table. */
function weightOf({ ipvs }: MachineReport, address: string): number {
  return ipvs?.find((entry) => entry.address === address)?.weight ?? 0;
}

/** Waits until a real server has nothing in its queue. @returns what is left; undefined when it does not say. */
async function untilIdle(
  inventory: Inventory,
  machine: InventoryMachine,
  ssh: OpenSsh,
  limit: number,
  answerLimit: number,
  progress: ProgressLine,
): Promise<number | undefined> {
  const start = Date.now();
  let answered = start;
  for (;;) {
    const report = reportOf(await askAll(inventory, [machine], ssh), machine);
    const left = report && leftToDo(report);
    const now = Date.now();
    if (left !== undefined) answered = now;
    const passed = Math.round((now - start) / 1000);
    if (left === 0 || passed >= limit || now - answered > answerLimit * 1000) return left;
    const what = left === undefined ? "its answer" : `${left} request${left === 1 ? "" : "s"} to finish`;
    progress.show(`${machine.name}: drained, waiting at most ${limit} s for`, ` ${what}`);
    await sleep(500);
  }
}

/** How many requests a real server has in its queue and at work; undefined when it does not say. */
export function leftToDo({ queue, units }: MachineReport): number | undefined {
  if (queue) return queue.waiting + queue.running;
  return ["inactive", "failed"].includes(units["cosyvoice.service"] ?? "") ? 0 : undefined;
}

/** A reason is one line, in the status and in the answers of /readyz. */
function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim().slice(0, 200);
}
