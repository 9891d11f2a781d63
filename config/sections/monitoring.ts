/** The section `monitoring`: what watches, and who is told. */
import type * as z from "zod";
import {
  type About,
  address,
  choice,
  flag,
  hostKey,
  isDnsName,
  isNetwork,
  list,
  machineName,
  port,
  printable,
  section,
  text,
  whole,
} from "../leaves";
import { type MachineConfig, machineSshSchema } from "./machines";
import { programsSchema } from "./programs";

const network = (words: About) =>
  text(
    (value) => isNetwork(value) && /\/[1-9]/.test(value),
    "a network such as 192.168.1.0/24, or one address as 192.168.1.7/32",
    words,
  );

const receiverName = (words: About) =>
  text(
    (value) => /^[a-z0-9][a-z0-9-]{0,31}$/.test(value),
    "lower-case letters, digits and '-', at most 32",
    words,
  );

// Without braces, which mails may have: Alertmanager would read them as a template's.
const mailAddress = (words: About) =>
  text(
    (value) => {
      const [local = "", domain = "", ...more] = value.split("@");
      return (
        /^[\w!#$%&'*+/=?^`|~-]+(\.[\w!#$%&'*+/=?^`|~-]+)*$/.test(local) && isName(domain) && more.length === 0
      );
    },
    "one e-mail address such as ops@example.org, without blanks, quotes and braces",
    words,
  );

const mailServer = (words: About) =>
  text(
    (value) => {
      const [host = "", port = "", ...more] = value.split(":");
      return isName(host) && /^\d{1,5}$/.test(port) && +port >= 1 && +port <= 65_535 && more.length === 0;
    },
    'an SMTP server as "host:port"',
    words,
  );

/** The name of a machine or a domain, or an address; capitals are as good. */
const isName = (value: string) => isDnsName(value.toLowerCase());

/** What an alert can be sent to. */
const receiverKinds = ["webhook", "email", "slack", "dingtalk", "wecom"] as const;

const receiverSchema = section(
  {
    name: receiverName({ text: "Name of the receiver, used in `monitoring.routing` and for its secret." }),
    kind: choice(receiverKinds, {
      text: "Kind of receiver. webhook: Alertmanager's JSON is posted to a URL. email: sent through an SMTP server. slack: an incoming webhook. dingtalk and wecom: the webhook of a group robot.",
    }),
    url: printable(2000, {
      text: "URL of the webhook, if it is not a secret. Put a URL that contains a token into the secret `receiverSecrets`.",
      required: "for kind webhook, unless the secret holds it",
    }).optional(),
    to: mailAddress({ text: "Recipient of the mail.", required: "for kind email" }).optional(),
    from: mailAddress({ text: "Sender of the mail.", required: "for kind email" }).optional(),
    server: mailServer({
      text: "SMTP server. It must offer STARTTLS.",
      required: "for kind email",
    }).optional(),
    user: printable(200, {
      text: "User name for the SMTP server; the receiver's secret is the password.",
      derived: "none: the server accepts mail without a login",
    }).optional(),
  },
  { text: "A receiver of alerts. Which of the other keys it takes depends on `kind`." },
);

const routes = (words: About) =>
  list(receiverName({ text: "Name of a receiver." }), { form: "a list of receivers' names", ...words });

export const monitoringSchema = section(
  {
    enabled: flag({
      text: "Whether the cluster is monitored. When you switch it off, everything installed for monitoring is removed from the machines.",
    }).default(true),
    name: machineName({
      text: "Name of the monitoring machine. It must have no other role, so that it does not fail together with what it watches.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    address: address({
      text: "Address of the monitoring machine. It must be able to reach the VIP as a client does.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    hostKey: hostKey("the monitoring machine").optional(),
    ssh: machineSshSchema.optional(),
    adminNetworks: list(network({ text: "A network." }), {
      text: "Networks from which Prometheus, Alertmanager and Grafana can be opened. Prometheus and Alertmanager ask for a password only when the secret `monitoringPassword` is set.",
      why: "With none, they listen on the loopback interface only; reach them with `ssh -L 9090:127.0.0.1:9090 MACHINE`.",
    }).default([]),
    metrics: section(
      {
        interval: whole(5, 120, {
          text: "Time between two scrapes of every machine.",
          unit: "s",
          why: "A shorter interval shows changes sooner; half the interval needs twice the disk.",
        }).default(15),
        retention: whole(1, 3650, { text: "How long metrics are kept.", unit: "days" }).default(30),
        disk: whole(1, 100_000, {
          text: "Disk space for metrics; when it is used up, the oldest are deleted first. It must be enough for `retention`, and the machine must have it.",
          unit: "GB",
        }).default(10),
      },
      { text: "Metrics." },
    ).prefault({}),
    logs: section(
      {
        enabled: flag({
          text: "Whether the machines' logs are collected in one place (docs/monitoring.md says which logs). This installs a collector on every machine, and Loki on the monitoring machine.",
        }).default(false),
        retention: whole(1, 3650, { text: "How long logs are kept.", unit: "days" }).default(14),
        disk: whole(1, 100_000, {
          text: "Disk space for logs. It limits the rate at which logs are accepted: what exceeds `disk` per `retention` for long is rejected, and an alert says so.",
          unit: "GB",
        }).default(10),
      },
      { text: "Logs." },
    ).prefault({}),
    grafana: section(
      {
        enabled: flag({
          text: "Whether the monitoring machine runs Grafana with the dashboards. Its user `admin` logs in with the secret `monitoringPassword`.",
        }).default(false),
      },
      { text: "Dashboards." },
    ).prefault({}),
    programs: programsSchema,
    ports: section(
      {
        prometheus: port({ text: "Prometheus, on the monitoring machine." }).default(9090),
        alertmanager: port({ text: "Alertmanager, on the monitoring machine." }).default(9093),
        nodeExporter: port({
          text: "The node exporter (metrics of the machine), on every machine; open to the monitoring machine only.",
        }).default(9100),
        grafana: port({ text: "Grafana, on the monitoring machine." }).default(3000),
        loki: port({
          text: "Loki, on the monitoring machine, where the collectors send logs; open to the cluster's machines only.",
        }).default(3100),
        collector: port({
          text: "The log collector's metrics, on every machine; open to the monitoring machine only.",
        }).default(8888),
      },
      { text: "TCP ports." },
    ).prefault({}),
    receivers: list(receiverSchema, {
      text: "Receivers of alerts.",
      why: "With none, alerts are seen in Alertmanager only, and a preview says so.",
    }).default([]),
    routing: section(
      {
        critical: routes({
          text: "Receivers of alerts about what users notice, or soon will.",
          derived: "every receiver",
        }).optional(),
        warning: routes({ text: "Receivers of all other alerts.", derived: "every receiver" }).optional(),
        watchdog: routes({
          text: "Receivers that hear every five minutes that alerting works. Name a service that raises an alarm when this message stops coming.",
        }).default([]),
      },
      { text: "Which alert goes where." },
    ).prefault({}),
  },
  {
    text: "Monitoring: metrics, logs, alerts and who receives them.",
    derived: "nothing is monitored, and a preview says so",
  },
);

/** Somebody who is told of alerts. What the keys mean depends on the kind, and the validator has seen to it. */
export type ReceiverConfig = z.output<typeof receiverSchema>;

/** How urgent an alert is. `watchdog` is the one that always comes. */
export type AlertSeverity = "critical" | "warning" | "watchdog";

/** The machine that watches, and what it does. */
export interface MonitoringConfig extends MachineConfig {
  readonly role: "monitor";
  readonly adminNetworks: readonly string[];
  readonly metrics: z.output<typeof monitoringSchema>["metrics"];
  readonly logs: z.output<typeof monitoringSchema>["logs"];
  readonly grafana: z.output<typeof monitoringSchema>["grafana"];
  readonly programs: z.output<typeof programsSchema>;
  readonly ports: z.output<typeof monitoringSchema>["ports"];
  readonly receivers: readonly ReceiverConfig[];
  /** Names of receivers, by what they are told of. */
  readonly routing: Readonly<Record<AlertSeverity, readonly string[]>>;
}
