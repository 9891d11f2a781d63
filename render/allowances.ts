import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { byName, renderSections } from "./text";

/**
 * What host/allowances.py is told on a director.
 *
 * @throws Error when the cluster has no director of that name, or is not on the platform aws.
 */
export function renderAllowancesConfig(config: ClusterConfig, directorName: string): string {
  if (config.aws === undefined) throw new Error("allowances are a matter of the platform aws");
  const allowances = {
    region: config.aws.region,
    interface: byName(config.directors, directorName).interface,
  };
  return `${JSON.stringify(allowances, null, 2)}\n`;
}

/** The unit that tells CloudWatch of packets that were held back. Whatever it does to itself, nothing that serves notices. */
export function renderAllowancesUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Tells CloudWatch how many packets AWS has held back",
        "After=network-online.target",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        `ExecStart=${paths.allowances} ${paths.allowancesConfig}`,
        "Restart=always",
        "RestartSec=5",
        "OOMScoreAdjust=500",
        "Nice=10",
        ...sandbox(["AF_INET", "AF_UNIX"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
