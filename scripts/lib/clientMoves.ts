import { paths } from "../../render/paths";
import { type Destination, maglevTable, shareThatMoves } from "../cluster-cli/mh";
import type { ClientRadius } from "./blastRadius";
import type { Manifest } from "./manifests";

/** A virtual service as keepalived's configuration has it. */
interface VirtualService {
  readonly service: string;
  readonly scheduler: string;
  readonly destinations: readonly Destination[];
}

/**
 * For every virtual service, the share of client addresses that meet another real server for good. With mh that is decided by
 * the kernel's table alone, so it can be computed; with the others, where a connection goes depends on what came before.
 *
 * @param before a director's manifest as it was deployed, `undefined` when there was none
 * @param after as it would be
 */
export function sharesThatMove(before: Manifest | undefined, after: Manifest | undefined): ClientRadius[] {
  if (before === undefined || after === undefined) return [];
  const was = new Map(servicesIn(before).map((service) => [service.service, service]));
  return servicesIn(after).flatMap((service) => {
    const old = was.get(service.service);
    return old === undefined ? [] : [{ ...named(service), moved: moved(old, service) }];
  });
}

/** The share of client addresses that each real server has, by its address; empty where it cannot be computed. */
export function shareByServer(director: Manifest | undefined): ReadonlyMap<string, number> {
  const service = director === undefined ? undefined : servicesIn(director)[0];
  if (service?.scheduler !== "mh") return new Map();
  const table = maglevTable(service.destinations);
  return new Map(
    service.destinations.map(({ address }) => [
      address,
      table.filter((slot) => slot === address).length / table.length,
    ]),
  );
}

function named({ service, scheduler }: VirtualService) {
  return { service, scheduler };
}

function moved(before: VirtualService, after: VirtualService): number | null {
  const same = JSON.stringify(before) === JSON.stringify(after);
  if (same) return 0;
  if (before.scheduler !== "mh" || after.scheduler !== "mh") return null;
  return shareThatMoves(before.destinations, after.destinations);
}

/** The virtual services in keepalived's configuration, with their real servers in the kernel's order. */
function servicesIn(director: Manifest): VirtualService[] {
  const text = director.files?.[paths.keepalivedConfig]?.content ?? "";
  return text
    .split(/^virtual_server /m)
    .slice(1)
    .map((block) => ({
      service: (/^(\S+) (\d+)/.exec(block) ?? []).slice(1).join(":"),
      scheduler: /^ {4}lb_algo (\S+)$/m.exec(block)?.[1] ?? "",
      destinations: [...block.matchAll(/^ {4}real_server (\S+) (\d+) \{\n {8}weight (\d+)$/gm)]
        .map(([, address = "", port, weight]) => ({ address, port: Number(port), weight: Number(weight) }))
        // IPVS puts each one that is added before the others.
        .reverse(),
    }));
}
