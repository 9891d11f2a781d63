import { setTimeout as sleep } from "node:timers/promises";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory, InventoryMachine } from "./inventory";
import type { ProgressLine } from "./progress";
import { runAsRoot } from "./run";
import { askAll, reportOf, summarise } from "./status";

/** Seconds for the VIP to move, logins on slow machines included. */
const LIMIT = 30;

/** Who is what after the VIP has moved. */
export interface FailedOver {
  readonly holder: string;
  readonly standby: string;
  /** Addresses of the real servers to which the one sent and the other does not; some only where it was forced. */
  readonly lacking: readonly string[];
}

/** The same for people. */
export function renderFailedOver({ holder, standby, lacking }: FailedOver): string {
  const less = lacking.length > 0 ? ` It sent nothing to ${lacking.join(", ")} when it took it.` : "";
  return `${holder} holds the VIP, ${standby} stands by.${less}`;
}

/**
 * Has the other director take the VIP, by restarting keepalived on the one that holds it; it says goodbye, so that the other
 * one need not wait for it.
 *
 * @param force also when the other one does not send to every real server that serves now.
 * @throws when it would leave the cluster without a director, or when the VIP does not move.
 */
export async function failover(
  inventory: Inventory,
  ssh: OpenSsh,
  force: boolean,
  progress: ProgressLine,
): Promise<FailedOver> {
  progress.show("looking at the directors");
  const pair = inventory.machines.filter(({ role }) => role === "director");
  const answers = await askAll(inventory, pair, ssh);
  const { holder, directors } = summarise(inventory, answers);
  const holding = pair.find(({ name }) => name === holder);
  if (holding === undefined)
    throw new Error(
      "Not moved: no single director that can be reached holds the VIP (scripts/cluster status).",
    );
  const standby = pair.find((director) => director !== holding);
  const found = directors.find(({ name }) => name === standby?.name);
  if (standby === undefined || !found?.reachable || found.keepalived !== "active") {
    const why = found?.reachable
      ? `keepalived on it is ${found.keepalived}`
      : `it cannot be reached: ${found?.reason}`;
    throw new Error(`Not moved: ${standby?.name ?? "the other director"} could not take the VIP, ${why}.`);
  }
  /** Addresses of the real servers that a director's kernel sends new connections to. */
  const served = (director: InventoryMachine) =>
    (reportOf(answers, director)?.ipvs ?? [])
      .filter(({ weight }) => weight > 0)
      .map(({ address }) => address);
  const lacking = served(holding).filter((address) => !served(standby).includes(address));
  if (lacking.length > 0 && !force) {
    throw new Error(
      `Not moved: ${standby.name} sends nothing to ${lacking.join(", ")}, but ${holder} does. Find out why (scripts/cluster doctor), or use --force.`,
    );
  }
  progress.show(`${holder} gives the VIP to ${standby.name}`);
  const start = Date.now();
  await runAsRoot(holding, ssh, "systemctl restart keepalived");
  for (;;) {
    const now = summarise(inventory, await askAll(inventory, pair, ssh)).holder;
    const passed = (Date.now() - start) / 1000;
    if (now === standby.name) return { holder: standby.name, standby: holding.name, lacking };
    if (passed > LIMIT)
      throw new Error(
        `${now ?? "Nobody"} holds the VIP after ${LIMIT} s, but ${standby.name} should (journalctl -u keepalived).`,
      );
    await sleep(500);
  }
}
