import { posix } from "node:path";
import type { ClusterConfig, MachineConfig, MonitoringConfig } from "../config/schema";
import {
  renderCollectorConfig,
  renderCollectorUnit,
  renderLokiConfig,
  renderLokiUnit,
} from "../render/monitoring/logs";
import { paths } from "../render/paths";
import { roomFor, type Store } from "./diskRoom";
import { fetched } from "./remote/fetched";
import type { LayerContent } from "./remote/layer";
import { rootFile } from "./remote/manifest";

/** A configuration with monitoring. */
type Watched = ClusterConfig & { readonly monitoring: MonitoringConfig };

/** What is on a machine whose logs are kept. A collector whose configuration it does not accept does not start, and all is as before. */
export function collectorContent(config: Watched, machine: MachineConfig): LayerContent {
  const unit = posix.basename(paths.collectorUnit);
  const program = fetched("collector", config, unit);
  return {
    ...program,
    files: {
      ...program.files,
      [paths.collectorConfig]: rootFile(renderCollectorConfig(config, machine), {
        notify: [`restart:${unit}`],
      }),
      [paths.collectorUnit]: rootFile(renderCollectorUnit(machine), { notify: [`restart:${unit}`] }),
    },
    units: { [unit]: { enabled: true, started: true } },
    onRemove: ["rm -rf /var/lib/cosyvoice-logs /var/lib/private/cosyvoice-logs"],
  };
}

/** What logs may take of the monitoring machine's disk. */
export function storeOfLogs({ monitoring }: Watched): Store {
  return {
    what: "logs",
    path: "/var/lib/private/cosyvoice-loki",
    on: "/var/lib",
    gigabytes: monitoring.logs.disk,
    key: "monitoring.logs.disk",
  };
}

/** What measurements may. Its directory comes with Prometheus's package. */
export function storeOfMetrics({ monitoring }: Watched): Store {
  return {
    what: "measurements",
    path: "/var/lib/prometheus",
    on: "/var/lib/prometheus",
    gigabytes: monitoring.metrics.disk,
    key: "monitoring.metrics.disk",
  };
}

/** What is on the monitoring machine for the logs of all. */
export function lokiContent(config: Watched): LayerContent {
  const { ports } = config.monitoring;
  const unit = posix.basename(paths.lokiUnit);
  const program = fetched("loki", config, unit);
  return {
    ...program,
    preflight: [roomFor(storeOfLogs(config), [storeOfMetrics(config)])],
    files: {
      ...program.files,
      [paths.lokiConfig]: rootFile(renderLokiConfig(config), { notify: [`restart:${unit}`] }),
      [paths.lokiUnit]: rootFile(renderLokiUnit(), { notify: [`restart:${unit}`] }),
    },
    units: { [unit]: { enabled: true, started: true } },
    checks: [
      {
        name: "Loki is ready",
        run: `curl -sf --max-time 5 http://127.0.0.1:${ports.loki}/ready`,
        within: 180,
      },
    ],
  };
}
