import { type ClusterConfig, REDIRECT_PORT } from "../config/schema";

/** A port of the VIP that IPVS passes on, to the same port of the real servers. */
export interface VirtualService {
  readonly port: number;
  /** Whether nginx answers there: a real server whose nginx is dead must not get this service's connections. */
  readonly door: boolean;
}

/**
 * The ports of the VIP. By the first one a real server counts as being in the pool or out of it, for whoever looks at one
 * table only.
 */
export function virtualServices({
  port,
  https,
}: ClusterConfig): readonly [VirtualService, ...VirtualService[]] {
  const plain = { port, door: false };
  if (https === undefined) return [plain];
  const doors = [
    { port: https.port, door: true },
    ...(https.redirect ? [{ port: REDIRECT_PORT, door: true }] : []),
  ] as const;
  return https.plainPort === "open" ? [plain, ...doors] : doors;
}

/** The ports of {@link virtualServices}. */
export function servicePorts(config: ClusterConfig): readonly number[] {
  return virtualServices(config).map(({ port }) => port);
}

/** Ports as nft takes them: one as it is, several as a set. */
export function nftPorts(ports: readonly number[]): string {
  return ports.length === 1 ? String(ports[0]) : `{ ${[...ports].sort((a, b) => a - b).join(", ")} }`;
}
