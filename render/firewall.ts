import {
  type ClusterConfig,
  DOOR_HEALTH_PORT,
  type MachineRole,
  machinesOf,
  watchedMachines,
} from "../config/schema";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { type Block, block, byName, type Line, never, renderBlocks, renderSections } from "./text";
import { TURNS_PORT } from "./turns";
import { nftPorts, servicePorts } from "./virtualServices";

/** The table of {@link renderFirewall}, as nft's commands name it. */
const FIREWALL_TABLE = "inet cosyvoice_lvs_firewall";

/** UDP port of IPVS's sync daemon. */
const SYNC_PORT = 8848;

/** Whether a machine gets a packet filter of this kind. The client of the verification has nothing of ours that listens. */
export function hasFirewall({ firewall, https }: ClusterConfig, role: MachineRole): boolean {
  if (role === "client") return false;
  return firewall.enabled || (role === "realServer" && https?.plainPort === "closed");
}

/**
 * Who may connect to what on one machine. With `firewall.enabled` all else is dropped; without it, this is the part that closes
 * the plain port of a real server.
 *
 * Nothing here asks whether a packet of the service is `invalid`: with DR a director never sees the replies.
 *
 * @throws Error when the cluster has no machine of that name.
 */
export function renderFirewall(config: ClusterConfig, machineName: string): string {
  const { role } = byName(machinesOf(config), machineName);
  const chains = config.firewall.enabled
    ? [...untracked(config, role), input(config, machineName)]
    : [block("chain input", HOOK, ...closedPlainPort(config))];
  return [
    // Together they replace the table whole, whether or not it is there.
    `table ${FIREWALL_TABLE}\ndelete table ${FIREWALL_TABLE}\n`,
    renderBlocks([block(`table ${FIREWALL_TABLE}`, ...admins(config), ...chains)]),
  ].join("");
}

const HOOK = "type filter hook input priority filter;";

/** A set, so that nft itself can be asked whether somebody is in it. */
function admins({ firewall }: ClusterConfig): Line[] {
  if (!firewall.enabled) return [];
  return [
    block(
      "set admins",
      "type ipv4_addr;",
      "flags interval;",
      "auto-merge;",
      `elements = { ${firewall.admins.join(", ")} }`,
    ),
  ];
}

/**
 * A director does not follow connections of which it sees one half. With NAT it sees both, and must. A real server need not follow
 * those of clients, who are all let in: a flood of them would fill the kernel's table, and shut out those who are to be known again.
 */
function untracked(config: ClusterConfig, role: MachineRole): Block[] {
  const serves = role === "director" || role === "realServer";
  if (!serves || config.loadBalancer.forwarding === "NAT") return [];
  const [vip, ports] = [config.vip, nftPorts(servicePorts(config))];
  return [
    block(
      "chain untracked",
      "type filter hook prerouting priority raw;",
      `ip daddr ${vip} tcp dport ${ports} notrack`,
    ),
    ...(role === "realServer"
      ? [
          block(
            "chain untracked_answers",
            "type filter hook output priority raw;",
            `ip saddr ${vip} tcp sport ${ports} notrack`,
          ),
        ]
      : []),
  ];
}

function input(config: ClusterConfig, machineName: string): Block {
  const machine = byName(machinesOf(config), machineName);
  return block(
    "chain input",
    HOOK,
    "policy drop;",
    'iif "lo" accept',
    ...serviceRules(config, machine.role),
    "ct state established,related accept",
    "meta l4proto { icmp, ipv6-icmp } accept",
    `ip saddr @admins tcp dport ${machine.ssh.port} accept`,
    ...(config.firewall.openPorts.length > 0
      ? [`tcp dport ${nftPorts(config.firewall.openPorts)} accept`]
      : []),
    ...clusterRules(config, machineName),
  );
}

/** What clients may reach. */
function serviceRules(config: ClusterConfig, role: MachineRole): string[] {
  const { vip, port, https } = config;
  switch (role) {
    case "director":
      return [`ip daddr ${vip} tcp dport ${nftPorts(servicePorts(config))} accept`];
    case "realServer":
      return [
        ...(https?.plainPort === "closed" ? closedPlainPort(config) : []),
        `tcp dport ${nftPorts([...new Set([port, ...servicePorts(config)])])} accept`,
      ];
    case "storage":
    case "client":
    case "monitor":
      return [];
    default:
      return never(role);
  }
}

/** The service's own port, for those who check it, watch it and share its work. */
function closedPlainPort({ port, directors, realServers, monitoring }: ClusterConfig): string[] {
  const asking = addresses([...directors, ...realServers, ...(monitoring ? [monitoring] : [])]);
  return [`iif != "lo" ip saddr != ${asking} tcp dport ${port} drop`];
}

/** What the machines of the cluster want from each other. */
function clusterRules(config: ClusterConfig, machineName: string): string[] {
  const { monitoring } = config;
  return [
    ...rulesOfRole(config, machineName),
    ...(monitoring === undefined
      ? []
      : [
          `ip saddr ${monitoring.address} tcp dport ${monitoring.ports.nodeExporter} accept`,
          ...(monitoring.logs.enabled
            ? [`ip saddr ${monitoring.address} tcp dport ${monitoring.ports.collector} accept`]
            : []),
        ]),
  ];
}

function rulesOfRole(config: ClusterConfig, machineName: string): string[] {
  const { directors, realServers, loadBalancer, https } = config;
  const { role } = byName(machinesOf(config), machineName);
  switch (role) {
    case "director": {
      const peer = addresses(directors.filter(({ name }) => name !== machineName));
      return [
        `ip saddr ${peer} ip protocol vrrp accept`,
        ...(loadBalancer.connectionSync ? [`ip saddr ${peer} udp dport ${SYNC_PORT} accept`] : []),
        `ip saddr ${addresses([...directors, ...realServers])} tcp dport ${TURNS_PORT} accept`,
      ];
    }
    case "realServer":
      return [
        ...(https === undefined
          ? []
          : [`ip saddr ${addresses(directors)} tcp dport ${DOOR_HEALTH_PORT} accept`]),
        ...(loadBalancer.forwarding === "TUN"
          ? [`ip saddr ${addresses(directors)} ip protocol ipencap accept`]
          : []),
      ];
    case "storage":
      return [`ip saddr ${addresses(realServers)} tcp dport 2049 accept`];
    case "monitor":
      return watcherRules(config);
    case "client":
      return [];
    default:
      return never(role);
  }
}

/** Who may see what watches, and who may send it logs. */
function watcherRules(config: ClusterConfig): string[] {
  const { monitoring } = config;
  if (monitoring === undefined) return [];
  const { adminNetworks, ports, grafana, logs } = monitoring;
  const seen = [ports.prometheus, ports.alertmanager, ...(grafana.enabled ? [ports.grafana] : [])];
  return [
    ...(adminNetworks.length > 0
      ? [`ip saddr { ${adminNetworks.join(", ")} } tcp dport ${nftPorts(seen)} accept`]
      : []),
    ...(logs.enabled
      ? [`ip saddr ${addresses(watchedMachines(config))} tcp dport ${ports.loki} accept`]
      : []),
  ];
}

function addresses(machines: readonly { readonly address: string }[]): string {
  return `{ ${machines.map(({ address }) => address).join(", ")} }`;
}

/** The unit that keeps these rules over a reboot: before anything listens. */
export function renderFirewallUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Who may connect to this machine of the speech cluster",
        "DefaultDependencies=no",
        "Before=network-pre.target shutdown.target",
        "Wants=network-pre.target",
        // Debian's, where it is on, begins by flushing everything.
        "After=local-fs.target systemd-modules-load.service nftables.service",
        "Conflicts=shutdown.target",
      ],
    ],
    [
      "Service",
      [
        "Type=oneshot",
        "RemainAfterExit=yes",
        `ExecStart=/usr/sbin/nft -f ${paths.firewall}`,
        `ExecReload=/usr/sbin/nft -f ${paths.firewall}`,
        `ExecStop=/usr/sbin/nft delete table ${FIREWALL_TABLE}`,
        ...sandbox(["AF_NETLINK", "AF_UNIX"], ["CAP_NET_ADMIN"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** The shell command that fails when somebody who is connected by SSH just now could not connect again. */
export function renderAdminsCheck(sshPort: number): string {
  return [
    `ss -Htn state established "( sport = :${sshPort} )" | awk '{ print $4 }' | sed 's/:[0-9]*$//; s/^\\[::ffff:\\(.*\\)\\]$/\\1/' | sort -u |`,
    "while read -r peer; do",
    `nft get element ${FIREWALL_TABLE} admins "{ $peer }" >/dev/null 2>&1 ||`,
    '{ echo "$peer is connected by SSH, and firewall.admins does not have it"; exit 1; }; done',
  ].join(" ");
}
