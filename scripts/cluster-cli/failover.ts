import { setTimeout as sleep } from "node:timers/promises";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory, InventoryMachine } from "./inventory";
import type { ProgressLine } from "./progress";
import { runAsRoot } from "./run";
import { askAll, clusterStatus } from "./status";

/** Seconds for the VIP to move, logins on slow machines included. */
const LIMIT = 30;

/**
 * Has the other director take the VIP, by restarting keepalived on the one that holds it; it says goodbye, so that the other
 * one need not wait for it.
 *
 * @param force also when the other one does not send to every real server that serves now.
 * @returns what came of it, in a sentence.
 * @throws when it would leave the cluster without a director, or when the VIP does not move.
 */
export async function failover(
  inventory: Inventory,
  ssh: OpenSsh,
  force: boolean,
  progress: ProgressLine,
): Promise<string> {
  progress.show("looking at the cluster");
  const { holder, directors } = await clusterStatus(inventory, ssh);
  if (holder === null)
    throw new Error(
      "Not moved: no single director that can be reached holds the VIP (scripts/cluster status).",
    );
  const standby = directors.find(({ name }) => name !== holder);
  if (!standby?.reachable || standby.keepalived !== "active") {
    const why = standby?.reachable
      ? `keepalived on it is ${standby.keepalived}`
      : `it cannot be reached: ${standby?.reason}`;
    throw new Error(`Not moved: ${standby?.name ?? "the other director"} could not take the VIP, ${why}.`);
  }
  const pair = inventory.machines.filter(({ role }) => role === "director");
  const pools = await poolsOf(inventory, pair, ssh);
  const lacking = [...(pools.get(holder) ?? [])].filter((address) => !pools.get(standby.name)?.has(address));
  if (lacking.length > 0 && !force) {
    throw new Error(
      `Not moved: ${standby.name} sends nothing to ${lacking.join(", ")}, which ${holder} does. See why (scripts/cluster doctor), or say --force.`,
    );
  }
  progress.show(`${holder} gives the VIP to ${standby.name}`);
  const start = Date.now();
  await runAsRoot(
    pair.find(({ name }) => name === holder) as InventoryMachine,
    ssh,
    "systemctl restart keepalived",
  );
  for (;;) {
    const now = (await clusterStatus(inventory, ssh)).holder;
    const passed = (Date.now() - start) / 1000;
    if (now === standby.name) return `${standby.name} holds the VIP, ${holder} stands by.`;
    if (passed > LIMIT)
      throw new Error(
        `${now ?? "Nobody"} holds the VIP after ${LIMIT} s, and ${standby.name} should (journalctl -u keepalived).`,
      );
    await sleep(500);
  }
}

/** By director: addresses of the real servers that its kernel would send new connections to. */
async function poolsOf(inventory: Inventory, directors: readonly InventoryMachine[], ssh: OpenSsh) {
  const answers = await askAll(inventory, directors, ssh);
  return new Map(
    directors.map(({ name }) => {
      const answer = answers.get(name);
      const entries = answer && "report" in answer ? (answer.report.ipvs ?? []) : [];
      return [name, new Set(entries.filter(({ weight }) => weight > 0).map(({ address }) => address))];
    }),
  );
}
