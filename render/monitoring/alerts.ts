import { renderYaml } from "../yaml";
import type { Alert, Watched } from "./alert";
import { directorAlerts } from "./directorAlerts";
import { speechAlerts } from "./speechAlerts";
import { watchAlerts } from "./watchAlerts";

/** Every alert of a cluster. */
export function alertsOf(config: Watched): readonly Alert[] {
  return [...directorAlerts(config), ...speechAlerts(config), ...watchAlerts(config)];
}

/** The rules file that Prometheus reads. */
export function renderAlertRules(config: Watched): string {
  const rules = alertsOf(config).map(({ name, expr, for: duration, severity, summary }) => ({
    alert: name,
    expr,
    for: duration,
    labels: { severity },
    annotations: { summary, runbook: `docs/runbooks/${name}.md` },
  }));
  return renderYaml({ groups: [{ name: "cosyvoice-lvs", rules }] });
}
