import type { AlertSeverity, ClusterConfig, MonitoringConfig } from "../../config/schema";

/** A cluster that is watched. */
export type Watched = ClusterConfig & { readonly monitoring: MonitoringConfig };

/** One rule of alerting. docs/runbooks has a page of its name. */
export interface Alert {
  readonly name: string;
  /** PromQL. A label `node` in the result names the machine that it is about. */
  readonly expr: string;
  /** How long it must be so, in Prometheus' words. */
  readonly for: string;
  readonly severity: AlertSeverity;
  /** One sentence, with Prometheus' templates. */
  readonly summary: string;
}

/** A window for a rate, as long as four looks: one that is lost must not make a gap. */
export function rateWindow({ monitoring }: Watched): string {
  return `${Math.max(60, 4 * monitoring.metrics.interval)}s`;
}
