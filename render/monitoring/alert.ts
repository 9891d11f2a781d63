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

/**
 * A condition that does not count while one of those alerts fires, nor for some time after: what they explain is seen for longer
 * than they last. Alertmanager's inhibition ends with them, and would tell of it then, when all is well again.
 *
 * @param window how long after, in Prometheus' words: until the condition has forgotten what was
 */
export function unexplained(expr: string, by: readonly string[], window: string): string {
  return `(${expr}) unless on () last_over_time(ALERTS{alertname=~"${by.join("|")}",alertstate="firing"}[${window}])`;
}
