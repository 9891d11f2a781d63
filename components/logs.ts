import { posix } from "node:path";
import type { ClusterConfig, MachineConfig, MonitoringConfig } from "../config/schema";
import {
  renderCollectorConfig,
  renderCollectorUnit,
  renderLokiConfig,
  renderLokiUnit,
} from "../render/monitoring/logs";
import { paths } from "../render/paths";
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

/** What is on the monitoring machine for the logs of all. */
export function lokiContent(config: Watched): LayerContent {
  const { logs, ports } = config.monitoring;
  const unit = posix.basename(paths.lokiUnit);
  const program = fetched("loki", config, unit);
  return {
    ...program,
    preflight: [
      {
        name: `there are ${logs.disk} GB for logs`,
        // What they take already is theirs.
        run: `[ $(($(df -B1 --output=avail /var/lib | tail -n1) + $(du -sB1 /var/lib/private/cosyvoice-loki 2>/dev/null | cut -f1 | grep . || echo 0))) -ge ${logs.disk * 1e9} ]`,
        fix: "set monitoring.logs.disk to what this machine has, or give it more",
      },
    ],
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
