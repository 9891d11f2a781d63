import { posix } from "node:path";
import type { ClusterConfig, MonitoringConfig } from "../config/schema";
import {
  grafanaPages,
  renderGrafanaConfig,
  renderGrafanaDashboards,
  renderGrafanaSources,
  renderGrafanaUnit,
} from "../render/monitoring/grafana";
import { paths } from "../render/paths";
import { fetched } from "./remote/fetched";
import type { LayerContent } from "./remote/layer";
import { rootFile } from "./remote/manifest";

/** What is on the monitoring machine for pictures. Its password comes by the layer of secrets. */
export function grafanaContent(
  config: ClusterConfig & { readonly monitoring: MonitoringConfig },
): LayerContent {
  const unit = posix.basename(paths.grafanaUnit);
  const program = fetched("grafana", config, unit);
  const restart = { notify: [`restart:${unit}`] };
  // Grafana looks for changed dashboards by itself.
  const pages = grafanaPages(config).map(
    ([file, json]) => [`${paths.grafanaPages}/${file}`, rootFile(json)] as const,
  );
  return {
    ...program,
    files: {
      ...program.files,
      [paths.grafanaConfig]: rootFile(renderGrafanaConfig(config), restart),
      [paths.grafanaSources]: rootFile(renderGrafanaSources(config), restart),
      [paths.grafanaDashboards]: rootFile(renderGrafanaDashboards(), restart),
      ...Object.fromEntries(pages),
      [paths.grafanaUnit]: rootFile(renderGrafanaUnit(), restart),
    },
    units: { [unit]: { enabled: true, started: true } },
    checks: [
      {
        name: "Grafana is ready",
        run: `curl -sf --max-time 5 http://127.0.0.1:${config.monitoring.ports.grafana}/api/health`,
        within: 180,
      },
    ],
  };
}
