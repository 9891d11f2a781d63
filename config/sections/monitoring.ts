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
    name: receiverName({ text: "Name of the receiver, for `monitoring.routing` and for its secret." }),
    kind: choice(receiverKinds, {
      text: "What it is. webhook: Alertmanager's JSON is posted to a URL. email: by an SMTP server. slack: an incoming webhook. dingtalk and wecom: a group robot's webhook.",
    }),
    url: printable(2000, {
      text: "URL of a webhook, where it is no secret. One with a token in it goes into the secret `receiverSecrets`.",
      required: "for kind webhook, unless the secret has it",
    }).optional(),
    to: mailAddress({ text: "Who gets the mail.", required: "for kind email" }).optional(),
    from: mailAddress({ text: "Its sender.", required: "for kind email" }).optional(),
    server: mailServer({
      text: "SMTP server. It has to offer STARTTLS.",
      required: "for kind email",
    }).optional(),
    user: printable(200, {
      text: "User of the SMTP server; the password is the receiver's secret.",
      derived: "none: the server takes mail without a login",
    }).optional(),
  },
  { text: "Somebody who is told. Which other keys it takes depends on `kind`." },
);

const routes = (words: About) =>
  list(receiverName({ text: "Name of a receiver." }), { form: "a list of receivers' names", ...words });

export const monitoringSchema = section(
  {
    enabled: flag({
      text: "Whether the cluster is watched. Off, everything that watches is taken from the machines again.",
    }).default(true),
    name: machineName({
      text: "Name of the machine that watches: one of its own, for what watches must not fail with what it watches.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    address: address({
      text: "Its address. It must be able to reach the VIP as a client does.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    hostKey: hostKey("the monitoring machine").optional(),
    ssh: machineSshSchema.optional(),
    adminNetworks: list(network({ text: "A network." }), {
      text: "Networks from which Prometheus, Alertmanager and Grafana can be opened. The first two ask for a password only when the secret `monitoringPassword` is set.",
      why: "None: they listen on the machine itself only, and `ssh -L 9090:127.0.0.1:9090 MACHINE` leads there.",
    }).default([]),
    metrics: section(
      {
        interval: whole(5, 120, {
          text: "Time between two looks at every machine.",
          unit: "s",
          why: "What happens in between is seen late; half of it doubles the disk that is needed.",
        }).default(15),
        retention: whole(1, 3650, { text: "How long measurements are kept.", unit: "days" }).default(30),
        disk: whole(1, 100_000, {
          text: "Disk that they may take; when it is used up the oldest go first. It must be enough for `retention`, and the machine must have it.",
          unit: "GB",
        }).default(10),
      },
      { text: "Measurements." },
    ).prefault({}),
    logs: section(
      {
        enabled: flag({
          text: "Whether the machines' logs are brought together (docs/monitoring.md says which). It takes a collector on every machine, and Loki on the one that watches.",
        }).default(false),
        retention: whole(1, 3650, { text: "How long logs are kept.", unit: "days" }).default(14),
        disk: whole(1, 100_000, {
          text: "Disk that they may take. What comes faster for long than fits is not taken in, and an alert says so.",
          unit: "GB",
        }).default(10),
      },
      { text: "Logs." },
    ).prefault({}),
    grafana: section(
      {
        enabled: flag({
          text: "Whether the monitoring machine has Grafana, with the dashboards. Its user admin logs in with the secret `monitoringPassword`.",
        }).default(false),
      },
      { text: "Pictures." },
    ).prefault({}),
    programs: programsSchema,
    ports: section(
      {
        prometheus: port({ text: "Prometheus, on the monitoring machine." }).default(9090),
        alertmanager: port({ text: "Alertmanager, on the monitoring machine." }).default(9093),
        nodeExporter: port({
          text: "What a machine tells of itself, on every machine; open to the monitoring machine only.",
        }).default(9100),
        grafana: port({ text: "Grafana, on the monitoring machine." }).default(3000),
        loki: port({
          text: "Where logs go, on the monitoring machine; open to the cluster's machines only.",
        }).default(3100),
        collector: port({
          text: "What the collector of logs tells of itself, on every machine; open to the monitoring machine only.",
        }).default(8888),
      },
      { text: "TCP ports." },
    ).prefault({}),
    receivers: list(receiverSchema, {
      text: "Who is told of what is wrong.",
      why: "None: alerts are seen in Alertmanager only, and a preview says so.",
    }).default([]),
    routing: section(
      {
        critical: routes({
          text: "Who is told of what users notice, or will soon.",
          derived: "every receiver",
        }).optional(),
        warning: routes({ text: "Who is told of all else.", derived: "every receiver" }).optional(),
        watchdog: routes({
          text: "Who is told, every five minutes, that the way to here works: something that makes a noise when that stops coming.",
        }).default([]),
      },
      { text: "Which alert goes where." },
    ).prefault({}),
  },
  {
    text: "Measurements, alerts and who gets them.",
    derived: "nothing is watched, and a preview says so",
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
