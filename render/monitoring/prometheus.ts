import { PROBER_PORT } from "../../config/ports";
import { type MachineConfig, watchedMachines } from "../../config/schema";
import { paths } from "../paths";
import { sandbox } from "../sandbox";
import { renderSections } from "../text";
import { renderYaml } from "../yaml";
import { basicAuth, hasPassword } from "./access";
import type { Watched } from "./alert";
import { logSources } from "./logs";

/** Targets with the labels by which people know a machine. */
function targets(machines: readonly MachineConfig[], port: number) {
  return machines.map(({ name, role, address }) => ({
    targets: [`${address}:${port}`],
    labels: { node: name, role },
  }));
}

/** prometheus.yml: what is looked at. */
export function renderPrometheusConfig(config: Watched): string {
  const { monitoring, realServers, vip, port, https } = config;
  const { interval } = monitoring.metrics;
  const own = { node: monitoring.name, role: monitoring.role };
  const onSelf = (job: string, onPort: number, access = {}) => ({
    job_name: job,
    ...access,
    static_configs: [{ targets: [`127.0.0.1:${onPort}`], labels: own }],
  });
  const probe = (job: string, module: string, target: string) => ({
    job_name: job,
    metrics_path: "/probe",
    params: { module: [module], target: [target] },
    static_configs: [{ targets: [`127.0.0.1:${PROBER_PORT}`] }],
    // The series are about the VIP, whoever asked.
    relabel_configs: [{ target_label: "instance", replacement: target }],
  });
  const prometheus = {
    global: {
      scrape_interval: `${interval}s`,
      scrape_timeout: `${Math.min(10, interval)}s`,
      evaluation_interval: `${interval}s`,
    },
    rule_files: [paths.alertRulesPattern],
    alerting: {
      alertmanagers: [
        {
          ...basicAuth(config),
          static_configs: [{ targets: [`127.0.0.1:${monitoring.ports.alertmanager}`] }],
        },
      ],
    },
    scrape_configs: [
      {
        job_name: "node",
        // A machine that suddenly has far more to tell than a machine has is a mistake that would fill the disk.
        sample_limit: NODE_SAMPLES + 40 * realServers.length,
        static_configs: targets(watchedMachines(config), monitoring.ports.nodeExporter),
      },
      { job_name: "speech", sample_limit: SPEECH_SAMPLES, static_configs: targets(realServers, port) },
      // The way that clients are told to go.
      probe("vip-tcp", "tcp", `${vip}:${https?.port ?? port}`),
      probe(
        "vip-http",
        "http",
        https ? `https://${vip}:${https.port}/healthz` : `http://${vip}:${port}/healthz`,
      ),
      onSelf("prober", PROBER_PORT),
      onSelf("prometheus", monitoring.ports.prometheus, basicAuth(config)),
      onSelf("alertmanager", monitoring.ports.alertmanager, basicAuth(config)),
      ...(monitoring.grafana.enabled
        ? [{ ...onSelf("grafana", monitoring.ports.grafana), ...few("grafana_build_info") }]
        : []),
      ...(monitoring.logs.enabled
        ? [
            {
              ...onSelf("loki", monitoring.ports.loki),
              ...few("loki_discarded_samples_total|loki_distributor_bytes_received_total"),
            },
            {
              job_name: "collector",
              ...few("otelcol_exporter_(queue_size|queue_capacity)"),
              static_configs: targets(logSources(config), monitoring.ports.collector),
            },
          ]
        : []),
    ],
  };
  return renderYaml(prometheus);
}

/** Of a program that tells much more of itself than anybody asks, only this. */
function few(names: string) {
  return {
    sample_limit: SELF_SAMPLES,
    metric_relabel_configs: [{ source_labels: ["__name__"], regex: names, action: "keep" }],
  };
}

const SELF_SAMPLES = 200;

/** Samples that one look at a machine may bring: eight for each processor of a large one. A director has more, by its table. */
const NODE_SAMPLES = 5000;
const SPEECH_SAMPLES = 2000;

/** The prober's modules. A probe from here goes the way of a client's request. */
export function renderProberConfig({ https, secretsSet }: Watched): string {
  return renderYaml({
    modules: {
      tcp: { prober: "tcp", timeout: "5s", tcp: { preferred_ip_protocol: "ip4" } },
      http: {
        prober: "http",
        timeout: "5s",
        http: {
          preferred_ip_protocol: "ip4",
          follow_redirects: false,
          valid_status_codes: [200],
          ...(https && {
            // The certificate that was deployed, or one of its issuers', for the name that clients use.
            tls_config: { ca_file: paths.frontDoorCertificate, server_name: https.serverName },
          }),
          ...(https &&
            secretsSet.apiKeys && {
              authorization: { type: "Bearer", credentials_file: paths.frontDoorAskingKey },
            }),
        },
      },
    },
  });
}

/** Where what only admins may open listens: for nobody else than this machine when there are no admins' networks. */
function listenAddress({ monitoring }: Watched, port: number): string {
  return `${monitoring.adminNetworks.length > 0 ? "0.0.0.0" : "127.0.0.1"}:${port}`;
}

/** What any of them may do: answer, ask, and no more. */
const RIGHTS = [
  ...sandbox(["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"]),
  "MemoryDenyWriteExecute=yes",
  "UMask=0077",
];

/** Where Debian has Prometheus and Alertmanager keep what they know. */
const KEPT = "ReadWritePaths=/var/lib/prometheus";

/** Debian's unit with another command line and in a sandbox; its own settings, such as the user, stay. */
function dropIn(command: readonly string[], rights: readonly string[]): string {
  return renderSections([
    [
      "Service",
      [
        "ExecStart=",
        `ExecStart=${command.join(" \\\n    ")}`,
        "Restart=always",
        "RestartSec=5",
        // Before anything that serves, this may go.
        "OOMScoreAdjust=500",
        ...rights,
      ],
    ],
  ]);
}

function webConfig(config: Watched): string[] {
  return hasPassword(config) ? [`--web.config.file=${paths.watchWebConfig}`] : [];
}

/** What is added to the distribution's prometheus.service. */
export function renderPrometheusDropIn(config: Watched): string {
  const { metrics, ports } = config.monitoring;
  return dropIn(
    [
      "/usr/bin/prometheus",
      `--config.file=${paths.prometheusConfig}`,
      "--storage.tsdb.path=/var/lib/prometheus/metrics2",
      `--storage.tsdb.retention.time=${metrics.retention}d`,
      `--storage.tsdb.retention.size=${metrics.disk}GB`,
      `--web.listen-address=${listenAddress(config, ports.prometheus)}`,
      ...webConfig(config),
    ],
    [...RIGHTS, KEPT],
  );
}

/** What is added to the distribution's prometheus-alertmanager.service. */
export function renderAlertmanagerDropIn(config: Watched): string {
  return dropIn(
    [
      "/usr/bin/prometheus-alertmanager",
      `--config.file=${paths.alertmanagerConfig}`,
      "--storage.path=/var/lib/prometheus/alertmanager/",
      // There is one: it has nobody to tell.
      "--cluster.listen-address=",
      `--web.listen-address=${listenAddress(config, config.monitoring.ports.alertmanager)}`,
      ...webConfig(config),
    ],
    [...RIGHTS, KEPT],
  );
}

/** What is added to the distribution's prometheus-blackbox-exporter.service. */
export function renderProberDropIn(): string {
  return dropIn(
    [
      "/usr/bin/prometheus-blackbox-exporter",
      `--config.file=${paths.proberConfig}`,
      `--web.listen-address=127.0.0.1:${PROBER_PORT}`,
    ],
    RIGHTS,
  );
}

/** Collectors of node_exporter: what an alert, a panel or somebody who looks for a cause needs, and no more series. */
const COLLECTORS = [
  "cpu",
  "diskstats",
  "filesystem",
  "loadavg",
  "meminfo",
  "netdev",
  "stat",
  "textfile",
  "time",
  "uname",
  "vmstat",
];

/** What is added to the distribution's prometheus-node-exporter.service. */
export function renderNodeExporterDropIn({ monitoring, aws }: Watched, machine: MachineConfig): string {
  const collectors = [
    ...COLLECTORS,
    ...(machine.role === "director" ? ["ipvs"] : []),
    ...(aws ? ["ethtool"] : []),
  ];
  return dropIn(
    [
      "/usr/bin/prometheus-node-exporter",
      "--collector.disable-defaults",
      ...collectors.map((name) => `--collector.${name}`),
      "--no-collector.cpu.guest",
      `--collector.textfile.directory=${paths.metrics}`,
      // Not the share: a server that is away would hang every look.
      "--collector.filesystem.fs-types-exclude=^(nfs4?|autofs|tmpfs|ramfs|devtmpfs|squashfs|iso9660|nsfs|proc|sysfs|cgroup2?|mqueue|debugfs|tracefs|pstore|bpf|configfs|securityfs|fusectl|binfmt_misc|hugetlbfs|devpts|rpc_pipefs)$$",
      "--collector.netdev.device-exclude=^(lo|veth.*)$$",
      // What the network driver of AWS counts: packets that were held back, since the instance type allows no more.
      ...(aws
        ? [
            "--collector.ethtool.device-include=^(eth|en).*",
            "--collector.ethtool.metrics-include=_allowance_exceeded$$",
          ]
        : []),
      `--web.listen-address=${machine.address}:${monitoring.ports.nodeExporter}`,
      "--web.disable-exporter-metrics",
    ],
    // What it sees as mounted is what it tells: a /tmp of its own would be a file system more. And how full /home is must be seen.
    RIGHTS.filter((line) => line !== "PrivateTmp=yes").map((line) =>
      line.replace("ProtectHome=yes", "ProtectHome=read-only"),
    ),
  );
}
