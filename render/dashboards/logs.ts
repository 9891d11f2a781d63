import { lines, log, type Page } from "./panels";

/** What the machines say, and everything about one request. */
export const logs: Page = {
  uid: "logs",
  title: "Logs",
  source: "loki",
  search: { name: "request", label: "Request ID (X-Request-Id)", anything: ".+" },
  panels: [
    lines("Log lines, by machine", "cps", ['sum by (node) (rate({node=~".+"}[5m]))', "{{node}}"]),
    lines("Log lines, by unit", "cps", ['sum by (unit) (rate({node=~".+"}[5m]))', "{{unit}}"]),
    lines("Requests, by status", "reqps", [
      'sum by (status) (rate({unit="access"} | json status="status" [5m]))',
      "{{status}}",
    ]),
    lines("Requests to nginx, by status", "reqps", [
      'sum by (status) (rate({unit="cosyvoice-front-door"} | json status="status" | status!="" [5m]))',
      "{{status}}",
    ]),
    lines("Jobs without a result, by outcome", "ops", [
      'sum by (node, outcome) (rate({unit="jobs"} | json outcome="outcome" | outcome!~"ok|cached" [5m]))',
      "{{node}} {{outcome}}",
    ]),
    log("One request, on every machine it went through", '{node=~".+"} | request_id=~"$request"'),
    log("Warnings and errors", '{node=~".+"} | detected_level=~"warn|error|fatal|critical"'),
    log("VIP and health checks", '{unit=~"keepalived|cosyvoice-(health|vrrp-guard|vip-mover)"}'),
    log("Kernel", '{unit="kernel"}'),
  ],
};
