import { lines, log, type Page } from "./panels";

/** What the machines say, and everything about one request. */
export const logs: Page = {
  uid: "logs",
  title: "Logs",
  source: "loki",
  search: { name: "request", label: "Request (X-Request-Id)", anything: ".+" },
  panels: [
    lines("Lines, by machine", "cps", ['sum by (node) (rate({node=~".+"}[5m]))', "{{node}}"]),
    lines("Lines, by unit", "cps", ['sum by (unit) (rate({node=~".+"}[5m]))', "{{unit}}"]),
    lines("Requests, by status", "reqps", [
      'sum by (status) (rate({unit="access"} | json status="status" [5m]))',
      "{{status}}",
    ]),
    lines("Requests at nginx, by status", "reqps", [
      'sum by (status) (rate({unit="cosyvoice-front-door"} | json status="status" | status!="" [5m]))',
      "{{status}}",
    ]),
    lines("Jobs that did not end well", "ops", [
      'sum by (node, outcome) (rate({unit="jobs"} | json outcome="outcome" | outcome!~"ok|cached" [5m]))',
      "{{node}} {{outcome}}",
    ]),
    log("One request, on every machine that had to do with it", '{node=~".+"} | request_id=~"$request"'),
    log("Warnings and errors", '{node=~".+"} | detected_level=~"warn|error|fatal|critical"'),
    log("The VIP: keepalived and its guard", '{unit=~"keepalived|cosyvoice-(health|vrrp-guard|vip-mover)"}'),
    log("The kernels", '{unit="kernel"}'),
  ],
};
