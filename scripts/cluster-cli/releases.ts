import type { OpenSsh } from "../../components/remote/openssh";
import { utc } from "../lib/time";
import type { Inventory } from "./inventory";
import type { MachineReport } from "./probe";
import { type Answer, askAll } from "./status";
import { columns } from "./table";

/** What a real server has of the speech app; null when it could not be asked or never had any. */
export interface NodeReleases {
  readonly name: string;
  /** Why it could not be asked; null when it could. */
  readonly reason: string | null;
  readonly releases: MachineReport["releases"];
}

/** One release on the cluster. */
export interface ReleaseStatus {
  readonly digest: string;
  /** When the last real server had it whole (ISO 8601). */
  readonly staged: string;
  /** Names of real servers. */
  readonly completeOn: readonly string[];
  readonly activeOn: readonly string[];
  readonly previousOn: readonly string[];
}

/** Asks the real servers which releases they have. */
export async function readReleases(inventory: Inventory, ssh: OpenSsh): Promise<NodeReleases[]> {
  const machines = inventory.machines.filter(({ role }) => role === "realServer");
  const answers = await askAll(inventory, machines, ssh);
  return machines.map(({ name }) => nodeReleases(name, answers.get(name)));
}

function nodeReleases(name: string, answer: Answer | undefined): NodeReleases {
  if (answer === undefined || "reason" in answer) {
    return { name, reason: answer?.reason ?? "it was not asked", releases: null };
  }
  return { name, reason: null, releases: answer.report.releases };
}

/** The releases of all real servers, the newest first. Pure. */
export function listReleases(nodes: readonly NodeReleases[]): ReleaseStatus[] {
  const digests = new Set(
    nodes.flatMap(({ releases }) => releases?.staged.map(({ digest }) => digest) ?? []),
  );
  const on = (test: (releases: NonNullable<NodeReleases["releases"]>) => boolean) =>
    nodes.filter(({ releases }) => releases && test(releases)).map(({ name }) => name);
  const since = (digest: string) =>
    Math.max(
      ...nodes.flatMap(
        ({ releases }) =>
          releases?.staged.filter((entry) => entry.digest === digest).map((entry) => entry.since) ?? [],
      ),
    );
  return [...digests]
    .sort((a, b) => since(b) - since(a) || a.localeCompare(b))
    .map((digest) => ({
      digest,
      staged: new Date(since(digest) * 1000).toISOString(),
      completeOn: on(({ staged }) => staged.some((entry) => entry.digest === digest && entry.complete)),
      activeOn: on(({ current }) => current === digest),
      previousOn: on(({ previous }) => previous === digest),
    }));
}

/**
 * The release to go back to. Pure.
 *
 * It is the one that was active before: on every real server either the previous one or, where a deployment was given
 * up half-way, still the active one. Where that says nothing, the newest one that is active nowhere.
 *
 * @param wanted a digest, or its beginning, to go to that one instead.
 * @throws an Error when there is none, more than one, or a real server lacks it.
 */
export function chooseRelease(nodes: readonly NodeReleases[], wanted?: string): ReleaseStatus {
  const unasked = nodes.filter(({ reason }) => reason !== null);
  if (unasked.length > 0) {
    const list = unasked.map(({ name, reason }) => `${name} (${reason})`).join(", ");
    throw new Error(
      `Not gone back: these real servers cannot be asked, and pulumi deploys to all or none: ${list}. ` +
        "Repair them, or take them out of the config and run scripts/cluster forget NAME.",
    );
  }
  const all = listReleases(nodes);
  const chosen = wanted === undefined ? before(all, nodes.length) : named(all, wanted);
  const lacking = nodes.filter(({ name }) => !chosen.completeOn.includes(name)).map(({ name }) => name);
  if (lacking.length > 0) {
    throw new Error(
      `Not gone back: ${lacking.join(", ")} ${lacking.length > 1 ? "do" : "does"} not have the whole release ${chosen.digest}. ` +
        "To deploy it again, check its version of app/ out and run pulumi up. What there is: scripts/cluster releases",
    );
  }
  return chosen;
}

function named(all: readonly ReleaseStatus[], wanted: string): ReleaseStatus {
  const found = all.filter(({ digest }) => digest.startsWith(wanted));
  const [only] = found;
  if (only && found.length === 1) return only;
  const have = all.map(({ digest }) => digest).join(", ") || "none";
  throw new Error(
    `Not gone back: ${found.length === 0 ? "no real server has" : "more than one begins with"} the release "${wanted}". There are: ${have}.`,
  );
}

function before(all: readonly ReleaseStatus[], nodes: number): ReleaseStatus {
  const fitting = all.filter(
    ({ activeOn, previousOn }) =>
      previousOn.length > 0 && new Set([...activeOn, ...previousOn]).size === nodes,
  );
  if (fitting.length > 1) {
    const list = fitting.map(({ digest, activeOn }) => `${digest} (active on ${activeOn.join(", ")})`);
    throw new Error(
      `Not gone back: the real servers run different releases, so the previous one is not clear. Give --to one of: ${list.join(", ")}.`,
    );
  }
  const found =
    fitting[0] ??
    all.find(({ activeOn, completeOn }) => activeOn.length === 0 && completeOn.length === nodes);
  if (found) return found;
  throw new Error(
    "Not gone back: no release but the active one is on every real server. " +
      "To deploy an older one, check its version of app/ out and run pulumi up. What there is: scripts/cluster releases",
  );
}

/** The releases for people. */
export function renderReleases(nodes: readonly NodeReleases[]): string {
  const all = listReleases(nodes);
  const some = (names: readonly string[]) =>
    names.length === nodes.length ? "all" : names.length === 0 ? "-" : names.join(", ");
  const table = [
    ["RELEASE", "STAGED", "WHOLE ON", "ACTIVE ON", "ACTIVE BEFORE ON"],
    ...all.map((release) => [
      release.digest,
      utc(Date.parse(release.staged)),
      some(release.completeOn),
      some(release.activeOn),
      some(release.previousOn),
    ]),
  ];
  const unasked = nodes.filter(({ reason }) => reason !== null);
  return [
    ...(all.length === 0 ? ["No real server has a release."] : columns(table)),
    ...unasked.map(({ name, reason }) => `! ${name} cannot be asked: ${reason}.`),
  ].join("\n");
}
