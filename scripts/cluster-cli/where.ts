import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import type { Inventory } from "./inventory";
import { scheduledByMh } from "./mh";
import { runAsRoot } from "./run";
import { askAll, reportOf } from "./status";

/** Connections of a client that a director's kernel has in its table, with one machine. */
export interface Open {
  readonly address: string;
  /** How many are in each state, by the kernel's words: ESTABLISHED, FIN_WAIT, ... */
  readonly states: Readonly<Record<string, number>>;
}

/** Where a client's connections go. */
export interface Whereabouts {
  readonly client: string;
  /** Director whose table this is: the one that holds the VIP. */
  readonly director: string;
  readonly scheduler: string;
  /** The real server that a new connection goes to, as computed; null when none has a weight, or the scheduler is not mh. */
  readonly realServer: { readonly name: string | null; readonly address: string } | null;
  /** What the kernel has of it now; null when that could not be asked. */
  readonly connections: readonly (Open & { readonly name: string | null })[] | null;
}

/**
 * Which real server a client's new connections go to, and where those are that it has.
 *
 * @param client IPv4 address, as the directors see it
 * @throws when no director holds the VIP.
 */
export async function where(inventory: Inventory, ssh: OpenSsh, client: string): Promise<Whereabouts> {
  const { vip, port, servicePort = port, machines } = inventory;
  const directors = machines.filter(({ role }) => role === "director");
  const answers = await askAll(inventory, directors, ssh);
  const holding = directors.find((director) => (reportOf(answers, director)?.vip ?? null) !== null);
  const holder = holding && reportOf(answers, holding);
  if (!holding || !holder?.ipvs || holder.scheduler === null)
    throw new Error("No director that can be reached holds the VIP (scripts/cluster status).");
  const named = (address: string) => ({
    address,
    name: machines.find((machine) => machine.address === address)?.name ?? null,
  });
  const computed = holder.scheduler === "mh" ? scheduledByMh(holder.ipvs, client) : undefined;
  // Its own lines only: a table may have a hundred thousand.
  const list = `ipvsadm -Lnc | awk '$4 ~ /^${client.replaceAll(".", "[.]")}:/'`;
  const connections = await runAsRoot(holding, ssh, list)
    .then((said) =>
      openTo(said, `${vip}:${servicePort}`).map((open) => ({ ...open, ...named(open.address) })),
    )
    .catch((error: unknown) => {
      if (error instanceof UnreachableError) return null;
      throw error;
    });
  return {
    client,
    director: holding.name,
    scheduler: holder.scheduler,
    realServer: computed === undefined ? null : named(computed),
    connections,
  };
}

/**
 * The connections to a virtual service in lines of `ipvsadm -Lnc`, by machine. Pure.
 *
 * @param service `VIP:port`
 */
export function openTo(lines: string, service: string): Open[] {
  const found = new Map<string, Record<string, number>>();
  for (const line of lines.split("\n")) {
    // TCP 14:59  ESTABLISHED 10.1.2.3:40000 10.0.0.100:7860 10.0.0.1:7860
    const [, , state = "", , virtual, destination = ""] = line.trim().split(/\s+/);
    if (virtual !== service) continue;
    const address = destination.replace(/:\d+$/, "");
    const states = found.get(address) ?? {};
    states[state] = (states[state] ?? 0) + 1;
    found.set(address, states);
  }
  return [...found].map(([address, states]) => ({ address, states }));
}

/** Where a client's connections go, for people. */
export function renderWhere({ client, director, scheduler, realServer, connections }: Whereabouts): string {
  const machine = ({ name, address }: NonNullable<Whereabouts["realServer"]>) =>
    `${name ?? "a machine that this stack does not know"} (${address})`;
  const goes =
    scheduler !== "mh"
      ? `Where a new connection of ${client} goes depends on earlier connections: the scheduler is ${scheduler}, and only mh can be computed.`
      : realServer === null
        ? "Nowhere: no real server has a weight."
        : `${client} goes to ${machine(realServer)}, by the table of ${director}.`;
  if (connections === null) return `${goes}\nWhat it has open is not known: ${director} did not answer.`;
  if (connections.length === 0) return `${goes}\nThe kernel has no connection of it now.`;
  const open = connections.map((each) => {
    const states = Object.entries(each.states).map(([state, count]) => `${count} ${state}`);
    const other = realServer !== null && each.address !== realServer.address;
    return `  with ${machine(each)}: ${states.join(", ")}${other ? ", from before the table changed" : ""}`;
  });
  return [goes, "The kernel has of it now (ipvsadm -Lnc):", ...open].join("\n");
}
