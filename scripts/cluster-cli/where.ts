import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory } from "./inventory";
import { scheduledByMh } from "./mh";
import { askAll, reportOf } from "./status";

/**
 * Which real server a client's new connections go to.
 *
 * @param client IPv4 address, as the directors see it
 * @returns a sentence
 * @throws when no director holds the VIP, or the scheduler does not decide by the client's address alone.
 */
export async function where(inventory: Inventory, ssh: OpenSsh, client: string): Promise<string> {
  const directors = inventory.machines.filter(({ role }) => role === "director");
  const answers = await askAll(inventory, directors, ssh);
  const holding = directors.find((director) => (reportOf(answers, director)?.vip ?? null) !== null);
  const holder = holding && reportOf(answers, holding);
  if (!holding || !holder?.ipvs)
    throw new Error("No director that can be reached holds the VIP (scripts/cluster status).");
  if (holder.scheduler !== "mh")
    throw new Error(
      `The scheduler is ${holder.scheduler}: where a connection goes depends on what came before. Only mh can be computed.`,
    );
  const address = scheduledByMh(holder.ipvs, client);
  if (address === undefined) return "Nowhere: no real server has a weight.";
  const name = inventory.machines.find((machine) => machine.address === address)?.name;
  return `${client} goes to ${name ?? "a machine that this stack does not know"} (${address}), by the table of ${holding.name}.`;
}
