import type { ClusterConfig } from "../config/schema";
import { configuredWeight, otherDirector, vipLabel } from "./keepalived";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { byName, renderSections } from "./text";
import { virtualServices } from "./virtualServices";

/**
 * What the guard of a director watches: who has the VIP, and with the health poller also whether the kernel's table follows
 * its track files.
 *
 * @throws Error when the cluster has no director of that name.
 */
export function renderGuardConfig(config: ClusterConfig, directorName: string): string {
  const director = byName(config.directors, directorName);
  const peer = otherDirector(config, director);
  const { vip, vrrp, loadBalancer, realServers } = config;
  const { check, forwarding, quorum, sorryServer } = loadBalancer;
  const guard = {
    interface: director.interface,
    label: vipLabel(config, director),
    vip,
    address: director.address,
    peer: peer.address,
    virtualRouterId: vrrp.virtualRouterId,
    advertInterval: vrrp.advertInterval,
    multicast: !vrrp.unicast,
    // Between two zones, and so between two subnets, there is a router.
    routed: (config.aws?.network.zones.length ?? 1) > 1,
    // Below the quorum the sorry server stands in for the pool of the plain port, which is then not in the table.
    services: virtualServices(config).map(({ port, door }) => ({
      port,
      door,
      quorum: sorryServer === undefined || door ? 0 : quorum,
    })),
    table:
      check.kind === "poller"
        ? {
            forwarding,
            trackDirectory: paths.trackDirectory,
            servers: realServers.map((server) => ({
              name: server.name,
              address: server.address,
              weight: configuredWeight(config, server),
            })),
          }
        : null,
  };
  return `${JSON.stringify(guard, null, 2)}\n`;
}

/** The unit of the guard. It depends on nothing: it must outlive what it watches. */
export function renderGuardUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Frees the VIP from a keepalived that hangs",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        "Type=notify",
        "NotifyAccess=main",
        `ExecStart=${paths.vrrpGuard} ${paths.vrrpGuardConfig}`,
        "Restart=always",
        "RestartSec=1",
        "WatchdogSec=10",
        "OOMScoreAdjust=-900",
        // As keepalived itself: a guard that is late only acts later.
        "Nice=-10",
        "UMask=0077",
        // Sockets that see packets; the address and the kernel's table. root's processes are killed by root without a right.
        ...sandbox(["AF_PACKET", "AF_NETLINK", "AF_INET", "AF_UNIX"], ["CAP_NET_RAW", "CAP_NET_ADMIN"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
