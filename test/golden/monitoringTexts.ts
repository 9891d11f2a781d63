/** The texts of what watches, as the machines get them: for those tests that make their configurations themselves. */
import type { MachineConfig } from "../../config/schema";
import {
  renderAlertmanagerConfig,
  renderAlertmanagerDropIn,
  renderAlertRelayUnit,
  renderAlertRules,
  renderCollectorConfig,
  renderCollectorUnit,
  renderDirectorMetricsConfig,
  renderDirectorMetricsUnit,
  renderDoorMetricsUnit,
  renderGpuMetricsUnit,
  renderGrafanaConfig,
  renderGrafanaSources,
  renderGrafanaUnit,
  renderLokiConfig,
  renderLokiUnit,
  renderNodeExporterDropIn,
  renderProberConfig,
  renderProberDropIn,
  renderPrometheusConfig,
  renderPrometheusDropIn,
  renderSentenceConfig,
  renderSentenceUnit,
  renderWatchRules,
  renderWatchRulesUnit,
} from "../../render";
import type { WatchedConfig } from "./monitoringArbitraries";

/** Every text of a machine, by the file it is for. */
export function textsOf(config: WatchedConfig, machine: MachineConfig): Record<string, string> {
  const { logs } = config.monitoring;
  return {
    "watch.nft": renderWatchRules(config, machine),
    "prometheus-node-exporter.service.d.conf": renderNodeExporterDropIn(config, machine),
    "cosyvoice-watch-rules.service": renderWatchRulesUnit(),
    ...(logs.enabled
      ? {
          "collector.yml": renderCollectorConfig(config, machine),
          "cosyvoice-logs.service": renderCollectorUnit(machine),
        }
      : {}),
    ...(machine.role === "director"
      ? {
          "exporter.json": renderDirectorMetricsConfig(config),
          "cosyvoice-director-metrics.service": renderDirectorMetricsUnit(),
        }
      : {}),
    ...(machine.role === "realServer"
      ? {
          "cosyvoice-gpu-metrics.service": renderGpuMetricsUnit(config),
          "cosyvoice-door-metrics.service": renderDoorMetricsUnit(config),
        }
      : {}),
    ...(machine.role === "monitor" ? watching(config) : {}),
  };
}

/** Those that only the machine has that watches. */
export function watching(config: WatchedConfig): Record<string, string> {
  return {
    "prometheus.yml": renderPrometheusConfig(config),
    "alerts.yml": renderAlertRules(config),
    "alertmanager.yml": renderAlertmanagerConfig(config),
    "prober.yml": renderProberConfig(config),
    "sentence.json": renderSentenceConfig(config),
    "prometheus.service.d.conf": renderPrometheusDropIn(config),
    "prometheus-alertmanager.service.d.conf": renderAlertmanagerDropIn(config),
    "prometheus-blackbox-exporter.service.d.conf": renderProberDropIn(),
    "cosyvoice-sentence.service": renderSentenceUnit(),
    "cosyvoice-alert-relay.service": renderAlertRelayUnit(),
    "loki.yml": renderLokiConfig(config),
    "cosyvoice-loki.service": renderLokiUnit(),
    "grafana.ini": renderGrafanaConfig(config),
    "grafana-sources.yml": renderGrafanaSources(config),
    "cosyvoice-grafana.service": renderGrafanaUnit(),
  };
}
