import { RELAY_PORT } from "../../config/ports";
import type { AlertSeverity, ReceiverConfig } from "../../config/schema";
import { paths } from "../paths";
import { never } from "../text";
import { renderYaml } from "../yaml";
import type { Watched } from "./alert";

/** Alertmanager's configuration. Nothing in it is secret: receivers' secrets are files beside it. */
export function renderAlertmanagerConfig({ monitoring }: Watched): string {
  const { receivers, routing } = monitoring;
  const route = (severity: AlertSeverity, more: Record<string, unknown>) => ({
    matchers: [`severity="${severity}"`],
    receiver: severity,
    ...more,
  });
  const config = {
    route: {
      receiver: "nobody",
      // What several machines say at once is one message.
      group_by: ["alertname"],
      // Long enough for the alert that explains others, and makes them unnecessary, to be there too.
      group_wait: "15s",
      group_interval: "1m",
      repeat_interval: "4h",
      routes: [
        route("critical", {}),
        route("warning", { repeat_interval: "12h" }),
        route("watchdog", { group_wait: "0s", repeat_interval: "5m" }),
      ],
    },
    inhibit_rules: inhibitions(),
    receivers: [
      { name: "nobody" },
      ...(["critical", "warning", "watchdog"] as const).map((severity) => ({
        name: severity,
        ...integrations(receivers.filter(({ name }) => routing[severity].includes(name))),
      })),
    ],
  };
  return renderYaml(config);
}

/**
 * Which alert explains which others: those are not sent while it is there. Where they outlast it, their own conditions know it
 * (`unexplained`).
 */
function inhibitions() {
  const explains = (source: string, target: string, equal: readonly string[] = []) => ({
    source_matchers: [source],
    target_matchers: [target],
    ...(equal.length > 0 ? { equal } : {}),
  });
  return [
    // One dead machine is one message.
    explains('alertname=~"MachineDown|StorageDown"', 'alertname!~"MachineDown|StorageDown"', ["node"]),
    explains('alertname="SpeechServiceDown"', 'alertname="PoolDegraded"', ["node"]),
    explains('alertname="KeepalivedDown"', 'alertname="BackupHearsNoAdverts"', ["node"]),
    explains(
      'alertname="NoVipHolder"',
      'alertname=~"VipProbeFailed|BackupHearsNoAdverts|VrrpFault|VrrpFlapping"',
    ),
    explains('alertname="PoolEmpty"', 'alertname=~"VipProbeFailed|PoolDegraded"'),
    explains('alertname="SplitBrain"', 'alertname=~"BackupHearsNoAdverts|VrrpFlapping"'),
    explains('alertname="StorageDown"', 'alertname="OutputsAway"'),
  ];
}

/** One entry of Alertmanager's for every receiver. */
function integrations(receivers: readonly ReceiverConfig[]): Record<string, unknown[]> {
  const found: Record<string, unknown[]> = {};
  for (const receiver of receivers) {
    const [key, entry] = integration(receiver);
    found[key] = [...(found[key] ?? []), { send_resolved: true, ...entry }];
  }
  return found;
}

const SUMMARIES =
  "{{ range .Alerts }}{{ .Status }}: {{ .Annotations.summary }} ({{ .Annotations.runbook }})\n{{ end }}";

function integration(receiver: ReceiverConfig): readonly [key: string, entry: Record<string, unknown>] {
  const { name, kind, url, to, from, server, user } = receiver;
  const relayed = ["webhook_configs", { url: `http://127.0.0.1:${RELAY_PORT}/${kind}/${name}` }] as const;
  const secret = `${paths.receiverSecrets}/${name}`;
  switch (kind) {
    case "webhook":
      return url === undefined ? relayed : ["webhook_configs", { url }];
    case "dingtalk":
    case "wecom":
      return relayed;
    case "slack":
      return [
        "slack_configs",
        { api_url_file: secret, title: "{{ .GroupLabels.alertname }} ({{ .Status }})", text: SUMMARIES },
      ];
    case "email":
      return [
        "email_configs",
        {
          to,
          from,
          smarthost: server,
          ...(user === undefined ? {} : { auth_username: user, auth_password_file: secret }),
          headers: { Subject: "{{ .GroupLabels.alertname }} ({{ .Status }})" },
          html: "",
          text: SUMMARIES,
        },
      ];
    default:
      return never(kind);
  }
}

/** Whether a receiver is spoken to by the relay: its program has no part in the others. */
export function relayed({ kind, url }: ReceiverConfig): boolean {
  return kind === "dingtalk" || kind === "wecom" || (kind === "webhook" && url === undefined);
}

/** The receivers that have a secret, which is a file of theirs on the monitoring machine. */
export function withSecret({ monitoring }: Watched): readonly ReceiverConfig[] {
  return monitoring.receivers.filter(
    (receiver) =>
      receiver.kind === "slack" ||
      relayed(receiver) ||
      (receiver.kind === "email" && receiver.user !== undefined),
  );
}
