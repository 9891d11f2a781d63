import type { ClusterConfig } from "../config/schema";
import { otherDirector, vipLabel } from "./keepalived";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { byName, renderSections } from "./text";

/**
 * What the mover of a director must know. The ids of interfaces and route tables are not among it: it asks AWS, so that this text
 * is known before there is a machine.
 *
 * @param stack by whose tags it finds the Elastic IP that goes with the VIP.
 * @throws Error when the cluster has no director of that name, or is not on the platform aws.
 */
export function renderVipMoverConfig(config: ClusterConfig, directorName: string, stack: string): string {
  const director = byName(config.directors, directorName);
  const peer = otherDirector(config, director);
  if (config.aws === undefined) throw new Error("the mover belongs to the platform aws");
  const mover = {
    region: config.aws.region,
    stack,
    exposure: config.aws.exposure,
    vip: config.vip,
    interface: director.interface,
    label: vipLabel(config, director),
    address: director.address,
    peer: peer.address,
  };
  return `${JSON.stringify(mover, null, 2)}\n`;
}

/** The unit of the mover. */
export function renderVipMoverUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Leads the VIP's traffic to the director that holds it",
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
        `ExecStart=${paths.vipMover} run ${paths.vipMoverConfig}`,
        "Restart=always",
        "RestartSec=1",
        // Several calls of AWS may follow each other, each with its limit.
        "WatchdogSec=60",
        "OOMScoreAdjust=-900",
        "RuntimeDirectory=cosyvoice-lvs/vip-mover",
        ...sandbox(["AF_INET", "AF_UNIX"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
