import {
  renderAlertmanagerConfig,
  renderAlertmanagerDropIn,
  renderAlertRelayUnit,
  renderAlertRules,
  renderCollectorConfig,
  renderCollectorUnit,
  renderCurlConfig,
  renderDirectorMetricsConfig,
  renderDirectorMetricsUnit,
  renderDoorMetricsUnit,
  renderFirewall,
  renderGpuMetricsUnit,
  renderGrafanaConfig,
  renderGrafanaDashboards,
  renderGrafanaSources,
  renderGrafanaUnit,
  renderLokiConfig,
  renderLokiUnit,
  renderMetricsAtBoot,
  renderNodeExporterDropIn,
  renderProberConfig,
  renderProberDropIn,
  renderPrometheusConfig,
  renderPrometheusDropIn,
  renderSentenceConfig,
  renderSentenceUnit,
  renderWatchRules,
  renderWatchRulesUnit,
  renderWebConfig,
} from "../../render";
import { monitored } from "../unit/monitoring-fixture";

/** A configuration and what it becomes. */
export interface GoldenCase {
  readonly name: string;
  /** Text by file name. */
  readonly texts: Readonly<Record<string, string>>;
}

/** Monitoring with all that can be chosen. */
export const everything = monitored(
  {
    adminNetworks: ["192.168.1.0/24", "10.0.0.7/32"],
    metrics: { interval: 10, retention: 14, disk: 20 },
    ports: { prometheus: 19090, alertmanager: 19093, nodeExporter: 19100 },
    logs: { enabled: true, retention: 20, disk: 30 },
    grafana: { enabled: true },
    receivers: [
      { name: "hook", kind: "webhook", url: "http://192.168.1.50:8000/alerts" },
      { name: "secret-hook", kind: "webhook" },
      {
        name: "mail",
        kind: "email",
        to: "a@example.org",
        from: "b@example.org",
        server: "mail:25",
        user: "lvs",
      },
      { name: "chat", kind: "slack" },
      { name: "robot", kind: "dingtalk" },
      { name: "group", kind: "wecom" },
    ],
    routing: { warning: ["chat", "mail"], watchdog: ["hook"] },
  },
  {
    service: { engine: "cosyvoice" },
    monitoringPassword: "made-up-password",
    receiverSecrets: {
      "secret-hook": "https://example.org/made-up1",
      mail: "made-up1",
      chat: "https://example.org/made-up1",
      robot: "https://example.org/made-up1 SECmade-up1",
      group: "https://example.org/made-up1",
    },
  },
);

/** Monitoring of a cluster that is asked by HTTPS alone, with a key. */
const byHttps = monitored(
  {},
  {
    https: { enabled: true, serverName: "speech.example.org", port: 8443, plainPort: "closed" },
    tlsCertificate: true,
    tlsKey: true,
    apiKeys: true,
  },
);

const [realServer] = everything.realServers;
if (realServer === undefined) throw new Error("no real server");

/** What a monitoring machine reads. */
function watched(config: ReturnType<typeof monitored>) {
  return {
    "prometheus.yml": renderPrometheusConfig(config),
    "alertmanager.yml": renderAlertmanagerConfig(config),
    "prometheus.service.d.conf": renderPrometheusDropIn(config),
    "alertmanager.service.d.conf": renderAlertmanagerDropIn(config),
    "node-exporter.service.d.conf": renderNodeExporterDropIn(config, config.monitoring),
    "watch.nft": renderWatchRules(config, config.monitoring),
  };
}

/** The texts of monitoring. */
export const monitoringCases: readonly GoldenCase[] = [
  {
    name: "monitoring",
    texts: {
      ...watched(everything),
      "alerts.yml": renderAlertRules(everything),
      "prober.yml": renderProberConfig(everything),
      "prober.service.d.conf": renderProberDropIn(),
      "node-exporter-director.service.d.conf": renderNodeExporterDropIn(everything, everything.directors[1]),
      "firewall.nft": renderFirewall(
        { ...everything, firewall: { enabled: true, admins: ["10.0.0.0/8"], openPorts: [] } },
        "monitor",
      ),
      "watch-director.nft": renderWatchRules(everything, everything.directors[0]),
      "cosyvoice-watch-rules.service": renderWatchRulesUnit(),
      "cosyvoice-metrics.conf": renderMetricsAtBoot(),
      "exporter.json": renderDirectorMetricsConfig(everything),
      "sentence.json": renderSentenceConfig(everything),
      "cosyvoice-director-metrics.service": renderDirectorMetricsUnit(),
      "cosyvoice-gpu-metrics.service": renderGpuMetricsUnit(everything),
      "cosyvoice-door-metrics.service": renderDoorMetricsUnit(everything),
      "cosyvoice-sentence.service": renderSentenceUnit(),
      "cosyvoice-alert-relay.service": renderAlertRelayUnit(),
      "web.yml": renderWebConfig("$2b$10$made-up"),
      curl: renderCurlConfig("made-up"),
      "loki.yml": renderLokiConfig(everything),
      "cosyvoice-loki.service": renderLokiUnit(),
      "collector-director-1.yml": renderCollectorConfig(everything, everything.directors[0]),
      "collector-rs-1.yml": renderCollectorConfig(everything, realServer),
      "cosyvoice-logs.service": renderCollectorUnit(realServer),
      "cosyvoice-logs-director.service": renderCollectorUnit(everything.directors[0]),
      "grafana.ini": renderGrafanaConfig(everything),
      "grafana-sources.yml": renderGrafanaSources(everything),
      "grafana-dashboards.yml": renderGrafanaDashboards(),
      "cosyvoice-grafana.service": renderGrafanaUnit(),
    },
  },
  { name: "monitoring-alone", texts: watched(monitored()) },
  {
    name: "monitoring-https",
    texts: {
      "prometheus.yml": renderPrometheusConfig(byHttps),
      "prober.yml": renderProberConfig(byHttps),
      "sentence.json": renderSentenceConfig(byHttps),
    },
  },
];
