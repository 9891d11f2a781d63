import { posix } from "node:path";
import { RELAY_PORT } from "../../config/ports";
import { DOOR_HEALTH_PORT, type MachineConfig } from "../../config/schema";
import { DOOR_STATUS } from "../frontDoor";
import { paths } from "../paths";
import { sandbox } from "../sandbox";
import { renderSections } from "../text";
import type { Watched } from "./alert";
import { logSources } from "./logs";

const TABLE = "cosyvoice_lvs_watch";

/**
 * The packet filter of what watches: a machine's readings are for the monitoring machine, Prometheus and Alertmanager for
 * the admins' networks. Nothing else is touched: in DR a director never sees replies, so nothing may drop `invalid` ones.
 */
export function renderWatchRules(config: Watched, machine: MachineConfig): string {
  const { monitoring } = config;
  const { ports, adminNetworks, address, logs, grafana } = monitoring;
  const only = (port: number, from: readonly string[]) => [
    ...(from.length > 0 ? [`        tcp dport ${port} ip saddr { ${from.join(", ")} } accept`] : []),
    `        tcp dport ${port} drop`,
  ];
  return [
    // Together they replace the table whole, whether or not it is there.
    `table inet ${TABLE}`,
    `delete table inet ${TABLE}`,
    `table inet ${TABLE} {`,
    "    chain watch {",
    "        type filter hook input priority 0;",
    '        iifname "lo" accept',
    ...only(ports.nodeExporter, [address]),
    ...(logs.enabled ? only(ports.collector, [address]) : []),
    ...(machine.role === "monitor"
      ? [
          ...only(ports.prometheus, adminNetworks),
          ...only(ports.alertmanager, adminNetworks),
          ...(grafana.enabled ? only(ports.grafana, adminNetworks) : []),
          ...(logs.enabled
            ? only(
                ports.loki,
                logSources(config).map((source) => source.address),
              )
            : []),
        ]
      : []),
    "    }",
    "}",
    "",
  ].join("\n");
}

/** The unit that keeps those rules over a reboot, and has them there before anything listens. */
export function renderWatchRulesUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Who may see what watches the cluster",
        "After=nftables.service",
        "Before=prometheus.service prometheus-alertmanager.service prometheus-node-exporter.service",
        `Before=${[paths.collectorUnit, paths.lokiUnit, paths.grafanaUnit].map((path) => posix.basename(path)).join(" ")}`,
      ],
    ],
    [
      "Service",
      [
        "Type=oneshot",
        "RemainAfterExit=yes",
        `ExecStart=/usr/sbin/nft -f ${paths.watchRules}`,
        `ExecReload=/usr/sbin/nft -f ${paths.watchRules}`,
        `ExecStop=/usr/sbin/nft delete table inet ${TABLE}`,
        ...sandbox(["AF_NETLINK", "AF_UNIX"], ["CAP_NET_ADMIN"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** User of Debian's programs of this kind, whom their packages make; and of ours that need no right of root's. */
export const WATCHER = "prometheus";

/** The directory of readings: for those that are root's, and for the others. */
export const READINGS = { mode: "0775", owner: `root:${WATCHER}` } as const;

/** Makes the directory of readings anew at every boot, for systemd-tmpfiles. */
export function renderMetricsAtBoot(): string {
  return `d ${paths.metrics} ${READINGS.mode} ${READINGS.owner.replace(":", " ")} -\n`;
}

/** What host/exporter.py is told on a director. */
export function renderDirectorMetricsConfig(config: Watched): string {
  const polled = config.loadBalancer.check.kind === "poller";
  const units = [
    "keepalived.service",
    ...(polled ? [posix.basename(paths.healthUnit)] : []),
    posix.basename(paths.vrrpGuardUnit),
    posix.basename(paths.turnsUnit),
    posix.basename(paths.packetRulesUnit),
    ...(config.aws ? [posix.basename(paths.vipMoverUnit)] : []),
  ];
  const exporter = {
    interval: config.monitoring.metrics.interval,
    vip: config.vip,
    units,
    realServers: config.realServers.map(({ name, address }) => ({ name, address })),
  };
  return `${JSON.stringify(exporter, null, 2)}\n`;
}

/** What host/exporter.py is told on the monitoring machine. */
export function renderSentenceConfig(config: Watched): string {
  const { vip, port, https, secretsSet, verification } = config;
  const sentence = {
    // A GPU's time is not for measuring it: one short sentence a minute.
    interval: 60,
    vip,
    // The way that clients are told to go.
    port: https?.port ?? port,
    https: https
      ? {
          serverName: https.serverName,
          certificate: paths.frontDoorCertificate,
          key: secretsSet.apiKeys ? paths.frontDoorAskingKey : null,
        }
      : null,
    sentence: verification.sentence,
    timeout: 30,
  };
  return `${JSON.stringify(sentence, null, 2)}\n`;
}

/** A program of ours that reads, in a unit of its own. Whatever it does to itself, nothing that serves notices. */
function reader(description: string, command: string, rights: readonly string[]): string {
  return renderSections([
    ["Unit", [`Description=${description}`, "StartLimitIntervalSec=0"]],
    [
      "Service",
      [
        `ExecStart=${command}`,
        "Restart=always",
        "RestartSec=5",
        "OOMScoreAdjust=500",
        "Nice=10",
        `ReadWritePaths=${paths.metrics}`,
        ...rights,
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** The unit that reads keepalived and the kernel on a director. */
export function renderDirectorMetricsUnit(): string {
  return reader("Readings of this director", `${paths.exporter} director ${paths.directorMetricsConfig}`, [
    // keepalived writes what it knows to /tmp, which must be the same one here. It is signalled by root, who needs no right to.
    ...sandbox(["AF_NETLINK", "AF_UNIX"]).filter((line) => line !== "PrivateTmp=yes"),
  ]);
}

/** The unit that reads the GPU of a real server. Everybody may ask the driver; the kernel's log takes a right to read. */
export function renderGpuMetricsUnit({ monitoring }: Watched): string {
  // A GPU is a device, the kernel's log another one, and a unit that allows the clock's devices (ProtectClock) allows no other.
  const devices = ["PrivateDevices=yes", "ProtectClock=yes", "ProtectKernelLogs=yes"];
  return reader("Readings of this machine's GPU", `${paths.exporter} gpu ${monitoring.metrics.interval}`, [
    `User=${WATCHER}`,
    "AmbientCapabilities=CAP_SYSLOG",
    ...sandbox(["AF_UNIX"], ["CAP_SYSLOG"]).filter((line) => !devices.includes(line)),
  ]);
}

/** The unit that reads nginx on a real server with HTTPS. */
export function renderDoorMetricsUnit({ monitoring }: Watched): string {
  const url = `http://127.0.0.1:${DOOR_HEALTH_PORT}${DOOR_STATUS}`;
  return reader(
    "Readings of this machine's nginx",
    `${paths.exporter} door ${monitoring.metrics.interval} ${url}`,
    [`User=${WATCHER}`, ...sandbox(["AF_INET", "AF_UNIX"])],
  );
}

/** The unit that asks for a sentence once a minute. */
export function renderSentenceUnit(): string {
  return reader(
    "A sentence through the VIP, every minute",
    `${paths.exporter} sentence ${paths.sentenceConfig}`,
    [`User=${WATCHER}`, ...sandbox(["AF_INET", "AF_UNIX"])],
  );
}

/** The unit that takes alerts to robots and to webhooks whose address is a secret. */
export function renderAlertRelayUnit(): string {
  return renderSections([
    ["Unit", ["Description=Alerts to group robots and secret webhooks", "StartLimitIntervalSec=0"]],
    [
      "Service",
      [
        `ExecStart=${paths.alertRelay} ${RELAY_PORT}`,
        "Restart=always",
        "RestartSec=5",
        "DynamicUser=yes",
        // Each file below it under its own name: the user, who changes with every start, may read nothing else of root's.
        `LoadCredential=receivers:${paths.receiverSecrets}`,
        ...sandbox(["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
