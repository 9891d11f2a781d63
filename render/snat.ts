import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { renderSections } from "./text";

const TABLE = "cosyvoice_lvs_snat";

/**
 * What makes NAT forwarding work with any route that the real servers have: the director puts its own address in front of
 * the client's, so that replies come back through it. The price is that the real servers see one client.
 */
export function renderSnatRules(config: ClusterConfig): string {
  const realServers = config.realServers.map(({ address }) => address).join(", ");
  return [
    // Together they replace the table whole, whether or not it is there.
    `table ip ${TABLE}`,
    `delete table ip ${TABLE}`,
    `table ip ${TABLE} {`,
    "    chain postrouting {",
    "        type nat hook postrouting priority srcnat;",
    `        ip daddr { ${realServers} } tcp dport ${config.port} masquerade`,
    "    }",
    "}",
    "",
  ].join("\n");
}

/** The unit that keeps those rules over a reboot. */
export function renderSnatUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Source addresses of connections that this director forwards",
        "Before=keepalived.service",
      ],
    ],
    [
      "Service",
      [
        "Type=oneshot",
        "RemainAfterExit=yes",
        `ExecStart=/usr/sbin/nft -f ${paths.snatRules}`,
        `ExecReload=/usr/sbin/nft -f ${paths.snatRules}`,
        `ExecStop=/usr/sbin/nft delete table ip ${TABLE}`,
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
