import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { renderSections } from "./text";
import { nftPorts, servicePorts } from "./virtualServices";

const TABLE = "cosyvoice_lvs";

/** What a director's packet filter has to do beside IPVS. */
export function renderPacketRules(config: ClusterConfig): string {
  const { vip, loadBalancer, realServers } = config;
  const ports = nftPorts(servicePorts(config));
  const servers = realServers.map(({ address }) => address).join(", ");
  // What makes NAT forwarding work with any route that the real servers have: the director puts its own address in front of the
  // client's, so that replies come back through it. The price is that the real servers see one client.
  const masquerade = [
    "    chain postrouting {",
    "        type nat hook postrouting priority srcnat;",
    `        ip daddr { ${servers} } tcp dport ${ports} masquerade`,
    "    }",
  ];
  return [
    // Together they replace the table whole, whether or not it is there.
    `table ip ${TABLE}`,
    `delete table ip ${TABLE}`,
    `table ip ${TABLE} {`,
    "    # IPVS takes the service's packets out of this hook at priority 99. What is left comes at a moment in which the kernel has no",
    "    # virtual service: a reload that changes it, a start. Unanswered it is sent again; answered, with a reset, it would be lost.",
    "    chain unserved {",
    "        type filter hook input priority 110;",
    `        ip daddr ${vip} tcp dport ${ports} drop`,
    "    }",
    ...(loadBalancer.forwarding === "NAT" ? masquerade : []),
    ...(config.aws ? metadataChains() : []),
    "}",
    "",
  ].join("\n");
}

/**
 * Who may ask AWS's metadata service, which hands out the machine's credentials and its user data: root of this machine, and
 * nobody whose packets pass through it (its interface forwards what is not its own).
 */
function metadataChains(): string[] {
  return [
    "    chain metadata {",
    "        type filter hook output priority filter;",
    "        ip daddr 169.254.169.254 meta skuid != 0 reject",
    "    }",
    "    chain metadata_forwarded {",
    "        type filter hook forward priority filter;",
    "        ip daddr 169.254.169.254 drop",
    "    }",
  ];
}

/** The packet filter, on aws, of a machine that is no director. */
export function renderMetadataRules(): string {
  return [
    `table ip ${TABLE}`,
    `delete table ip ${TABLE}`,
    `table ip ${TABLE} {`,
    ...metadataChains(),
    "}",
    "",
  ].join("\n");
}

/** The unit that keeps those rules over a reboot. */
export function renderPacketRulesUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Packets that IPVS leaves, and those that it forwards",
        "Before=keepalived.service",
        "After=nftables.service",
      ],
    ],
    [
      "Service",
      [
        "Type=oneshot",
        "RemainAfterExit=yes",
        `ExecStart=/usr/sbin/nft -f ${paths.packetRules}`,
        `ExecReload=/usr/sbin/nft -f ${paths.packetRules}`,
        `ExecStop=/usr/sbin/nft delete table ip ${TABLE}`,
        ...sandbox(["AF_NETLINK", "AF_UNIX"], ["CAP_NET_ADMIN"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
