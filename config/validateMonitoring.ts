/** How the keys of the section `monitoring` fit together, and with the rest. */
import { isPrivate, parseCidr } from "./addresses";
import { type Path, pathText } from "./keys";
import { isOneLine } from "./leaves";
import { LOKI_INNER_PORT, PROBER_PORT, RELAY_PORT } from "./ports";
import { DOOR_HEALTH_PORT, REDIRECT_PORT } from "./schema";
import type { Draft, Report } from "./validate";
import { machinesIn } from "./validateMachines";

type Monitoring = NonNullable<Draft["monitoring"]>;
type Receiver = NonNullable<NonNullable<Monitoring["receivers"]>[number]>;
type Kind = NonNullable<Receiver["kind"]>;

/** Finds every conflict in the section `monitoring` and the secrets of its receivers. */
export function checkMonitoring(draft: Draft, report: Report): void {
  const { monitoring } = draft;
  if (monitoring === undefined) {
    if (draft.refused.has("monitoring")) return;
    for (const secret of ["receiverSecrets", "monitoringPassword"] as const) {
      if (!draft.secrets[secret]) continue;
      report(
        [secret],
        "is set, but there is no section monitoring",
        `add monitoring, or run: pulumi config rm ${secret}`,
        "(a secret)",
      );
    }
    return;
  }
  if (monitoring.enabled === false) return;
  checkMachine(draft, monitoring, report);
  checkPorts(draft, monitoring, report);
  checkPassword(draft, monitoring, report);
  checkReceivers(draft, monitoring, report);
  checkRouting(monitoring, report);
  checkRetention(draft, monitoring, report);
  checkLogs(draft, monitoring, report);
}

// --- the machine -----------------------------------------------------------------------------------------------------

/** GB beside the measurements: the system, its packages and its logs. */
const OTHER_DISK = 12;

function checkMachine(draft: Draft, monitoring: Monitoring, report: Report): void {
  if (draft.platform !== "aws") {
    for (const key of ["name", "address"] as const) {
      if (monitoring[key] === undefined) {
        report(
          ["monitoring", key],
          "is missing",
          "name a machine with no other role (name and address), or set monitoring.enabled to false",
        );
      }
    }
    return;
  }
  for (const key of ["name", "address", "hostKey", "ssh"] as const) {
    if (monitoring[key] !== undefined) {
      report(
        ["monitoring", key],
        "is given, but the platform aws creates its machines itself",
        "remove it; aws.monitor describes the machine",
      );
    }
  }
  monitoring.adminNetworks?.forEach((text, index) => {
    const range = parseCidr(text ?? "");
    if (text === undefined || (range !== undefined && isPrivate(range))) return;
    report(
      ["monitoring", "adminNetworks", index],
      "is not a range of private addresses, but on aws the monitoring machine has no public address",
      "remove it and use SSH (scripts/cluster ssh monitor), or write a range that is connected to the VPC, such as 10.0.0.0/8",
    );
  });
  const disk = draft.aws?.monitor?.disk;
  const { metrics, logs } = monitoring;
  if (disk === undefined || metrics?.disk === undefined) return;
  const wanted = metrics.disk + (logs?.enabled === true ? (logs.disk ?? 0) : 0);
  const needed = Math.ceil(((wanted + OTHER_DISK) * 1e9) / 2 ** 30);
  if (disk < needed) {
    report(
      ["aws", "monitor", "disk"],
      `is ${disk} GiB, but metrics${logs?.enabled === true ? " and logs" : ""} may take ${wanted} GB, and the system needs another ${OTHER_DISK}`,
      `write ${needed} or more, or a smaller monitoring.metrics.disk${logs?.enabled === true ? " and logs.disk" : ""}`,
    );
  }
}

// --- ports -----------------------------------------------------------------------------------------------------------

function checkPorts(draft: Draft, { ports, ssh }: Monitoring, report: Report): void {
  const { https } = draft;
  if (ports === undefined) return;
  const ownSsh = ssh?.port ?? draft.ssh?.port;
  const taken = new Map<number, string>();
  if (ownSsh !== undefined) taken.set(ownSsh, "of SSH on the monitoring machine");
  taken.set(PROBER_PORT, "of the prober");
  taken.set(RELAY_PORT, "of the relay of alerts");
  taken.set(LOKI_INNER_PORT, "of Loki's parts");
  for (const key of ["prometheus", "alertmanager", "nodeExporter", "grafana", "loki", "collector"] as const) {
    const port = ports[key];
    if (port === undefined) continue;
    const owner = taken.get(port);
    if (owner !== undefined)
      report(["monitoring", "ports", key], `is the port ${owner}`, "give each a port of its own");
    taken.set(port, `of ${key}`);
  }
  const elsewhere: Readonly<Record<number, string>> = {
    ...Object.fromEntries(
      machinesIn(draft).flatMap(({ sshPort, what }) =>
        sshPort === undefined ? [] : [[sshPort, `of SSH on ${what}`] as const],
      ),
    ),
    ...(draft.ssh?.port === undefined ? {} : { [draft.ssh.port]: "of SSH on the machines" }),
    111: "of rpcbind",
    2049: "of NFS",
    7861: "on which the directors give out turns",
    ...(https?.enabled === true
      ? {
          [DOOR_HEALTH_PORT]: "on which nginx answers the directors' health checks",
          ...(https.redirect === false ? {} : { [REDIRECT_PORT]: "from which clients are sent to HTTPS" }),
          ...(https.port === undefined ? {} : { [https.port]: "of HTTPS" }),
        }
      : {}),
    ...(draft.port === undefined ? {} : { [draft.port]: "of the service" }),
  };
  for (const [key, free] of [
    ["nodeExporter", 9100],
    ["collector", 8888],
  ] as const) {
    const port = ports[key];
    const owner = port === undefined ? undefined : elsewhere[port];
    if (owner === undefined || port === ownSsh) continue;
    report(
      ["monitoring", "ports", key],
      `is the port ${owner}`,
      `write one that is free on every machine, such as ${free}`,
    );
  }
}

// --- who is let in ---------------------------------------------------------------------------------------------------

const SET_PASSWORD = "run: openssl rand -hex 16 | pulumi config set --secret monitoringPassword";

function checkPassword({ secrets }: Draft, { grafana }: Monitoring, report: Report): void {
  const { monitoringPassword: isSet, monitoringPasswordText: text } = secrets;
  if (!isSet) {
    if (grafana?.enabled === true)
      report(["monitoringPassword"], "is not set, but monitoring.grafana.enabled is true", SET_PASSWORD);
    return;
  }
  // What is longer, bcrypt would not look at.
  if (text === undefined || !/^[A-Za-z0-9._+/=-]{12,72}$/.test(text))
    report(
      ["monitoringPassword"],
      "is not 12 to 72 letters, digits or . _ + / = -",
      SET_PASSWORD,
      "(a secret)",
    );
}

// --- receivers -------------------------------------------------------------------------------------------------------

/** Which keys a kind of receiver takes besides name and kind, and which it cannot do without. */
const keysOf: Readonly<
  Record<Kind, { takes: readonly (keyof Receiver)[]; needs: readonly (keyof Receiver)[] }>
> = {
  webhook: { takes: ["url"], needs: [] },
  email: { takes: ["to", "from", "server", "user"], needs: ["to", "from", "server"] },
  slack: { takes: [], needs: [] },
  dingtalk: { takes: [], needs: [] },
  wecom: { takes: [], needs: [] },
};

function checkReceivers(draft: Draft, monitoring: Monitoring, report: Report): void {
  const receivers = monitoring.receivers ?? [];
  const names = new Set<string>();
  receivers.forEach((receiver, index) => {
    if (receiver === undefined) return;
    const at: Path = ["monitoring", "receivers", index];
    const { name } = receiver;
    if (name !== undefined && names.has(name)) {
      report(
        [...at, "name"],
        "is the name of another receiver as well",
        "give every receiver a name of its own",
      );
    }
    if (name !== undefined) names.add(name);
    checkReceiver(draft, receiver, at, report);
  });
  const given = draft.secrets.receiverSecretTexts;
  if (draft.secrets.receiverSecrets && given === undefined) {
    report(
      ["receiverSecrets"],
      "does not have one value for each receiver",
      "run: pulumi config set --secret --path receiverSecrets.NAME VALUE",
      "(a secret)",
    );
  }
  for (const name of Object.keys(given ?? {})) {
    if (names.has(name) || draft.refused.has("monitoring.receivers")) continue;
    report(
      ["receiverSecrets", name],
      "is not the secret of any receiver",
      `run: pulumi config rm --path receiverSecrets.${name}, or add a receiver of that name`,
      "(a secret)",
    );
  }
}

function checkReceiver(draft: Draft, receiver: Receiver, at: Path, report: Report): void {
  const { kind, name } = receiver;
  if (kind === undefined) return;
  const { takes, needs } = keysOf[kind];
  for (const key of ["url", "to", "from", "server", "user"] as const) {
    if (receiver[key] !== undefined && !takes.includes(key)) {
      const instead =
        key === "url" && name !== undefined
          ? `remove it, and run: pulumi config set --secret --path receiverSecrets.${name} URL`
          : "remove it";
      report([...at, key], `does nothing for a receiver of kind ${kind}`, instead);
    }
    if (receiver[key] === undefined && needs.includes(key)) {
      report([...at, key], `is missing, but a receiver of kind ${kind} needs it`, "write it");
    }
  }
  if (receiver.url !== undefined && kind === "webhook") {
    const fault = faultOfUrl(receiver.url, ["http:", "https:"]);
    if (fault !== undefined)
      report([...at, "url"], fault, "write an address such as https://alerts.example.org/hook");
  }
  if (name === undefined) return;
  const user = receiver.user !== undefined || draft.refused.has(pathText([...at, "user"]));
  checkSecret(draft, receiver, { kind, name, user }, report);
}

function checkSecret(
  draft: Draft,
  receiver: Receiver,
  { kind, name, user }: { readonly kind: Kind; readonly name: string; readonly user: boolean },
  report: Report,
): void {
  const path: Path = ["receiverSecrets", name];
  const texts = draft.secrets.receiverSecretTexts;
  const secret = texts !== undefined && Object.hasOwn(texts, name) ? texts[name] : undefined;
  const set = `run: pulumi config set --secret --path receiverSecrets.${name} ${kind === "email" ? "PASSWORD" : "URL"}`;
  if (secret === undefined) {
    const needed = kind === "email" ? user : receiver.url === undefined;
    if (needed) report(path, `is not set, but the receiver ${name} (${kind}) needs it`, set);
    return;
  }
  if (typeof secret !== "string" || secret === "") {
    report(path, "is empty or not a text", set, "(a secret)");
    return;
  }
  if (kind === "email") {
    if (!user)
      report(
        path,
        "is a password, but the receiver has no user",
        "add user to the receiver, or remove the secret",
        "(a secret)",
      );
    else if (!isOneLine(secret)) report(path, "is not a text on one line", set, "(a secret)");
    return;
  }
  if (kind === "webhook" && receiver.url !== undefined) {
    report(path, "is set, and the receiver has a url too", "keep only one of them", "(a secret)");
    return;
  }
  const [url = "", ...more] = secret.split(" ");
  const fault = faultOfUrl(url, kind === "webhook" ? ["http:", "https:"] : ["https:"]);
  if (fault !== undefined) report(path, `${fault} (its text is not shown)`, set, "(a secret)");
  else if (more.length > (kind === "dingtalk" ? 1 : 0) || more.some((word) => !/^[!-~]+$/.test(word)))
    report(path, "has blanks, which a URL cannot contain", set, "(a secret)");
  else if (draft.platform === "aws" && new URL(url).port !== "") {
    report(
      path,
      `uses port ${new URL(url).port}, but on aws the monitoring machine reaches secret URLs at ports 80 and 443 only`,
      "let it listen on one of these ports, or write it as the receiver's url, which opens its port",
      "(a secret)",
    );
  }
}

/** What is wrong with a URL, continuing "it ..."; undefined when nothing is. */
function faultOfUrl(value: string, schemes: readonly string[]): string | undefined {
  const kinds = schemes.map((scheme) => `${scheme}//`).join(" or ");
  let url: URL;
  try {
    url = new URL(value);
  } catch {
    return `is not a URL that starts with ${kinds}`;
  }
  if (!schemes.includes(url.protocol) || !value.startsWith(`${url.protocol}//`) || url.hostname === "")
    return `is not a URL that starts with ${kinds}`;
  if (/[\s"'\\\p{Cc}]/u.test(value)) return "has blanks, quotes or backslashes";
  // Node takes much for a URL, and means what others do not: who asks is a program in Go or Python.
  if (!/^(%[0-9A-Fa-f]{2}|[A-Za-z0-9._~:/?#[\]@!$&()*+,;=-])*$/.test(value))
    return "has a character that a URL may contain only as % and two hexadecimal digits";
  if (
    !/^[^/]*\/\/([A-Za-z0-9._~!$&()*+,;=:%-]*@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?([/?#]|$)/.test(
      value,
    )
  )
    return "has no host name or address after //";
  return undefined;
}

function checkRouting({ receivers, routing }: Monitoring, report: Report): void {
  const names = (receivers ?? []).map((receiver) => receiver?.name);
  // One that cannot be read may be the one that is meant.
  if (names.includes(undefined)) return;
  const known = names.length === 0 ? "there is none" : `there are ${names.join(", ")}`;
  for (const severity of ["critical", "warning", "watchdog"] as const) {
    (routing?.[severity] ?? []).forEach((name, index) => {
      if (name === undefined || names.includes(name)) return;
      report(
        ["monitoring", "routing", severity, index],
        `is not the name of a receiver: ${known}`,
        "write the name of a receiver, or add this one to monitoring.receivers",
      );
    });
  }
  const { critical, warning } = routing ?? {};
  if (critical === undefined || warning === undefined) return;
  const used = new Set([...critical, ...warning, ...(routing?.watchdog ?? [])]);
  names.forEach((name, index) => {
    if (name === undefined || used.has(name)) return;
    report(
      ["monitoring", "receivers", index, "name"],
      "receives no alerts",
      "name it in monitoring.routing, or remove the receiver",
    );
  });
}

// --- disk ------------------------------------------------------------------------------------------------------------

/**
 * Series that a machine brings, and a real server more than others: its service, and the eight for each of the many processors
 * that stand beside a GPU. Measured, with room: docs/monitoring.md.
 */
const SERIES_PER_MACHINE = 450;
const SERIES_PER_REAL_SERVER = 250;

/** Of a sample on the disk, indexes included. */
const BYTES_PER_SAMPLE = 2;

/** GB that a stack's measurements take in so many days. */
function metricsSize(machines: number, realServers: number, interval: number, days: number): number {
  const series = machines * SERIES_PER_MACHINE + realServers * SERIES_PER_REAL_SERVER;
  return (((series * 86_400) / interval) * days * BYTES_PER_SAMPLE) / 1e9;
}

function checkRetention(draft: Draft, { metrics }: Monitoring, report: Report): void {
  const { interval, retention, disk } = metrics ?? {};
  const realServers = draft.realServers?.length;
  if (interval === undefined || retention === undefined || disk === undefined || realServers === undefined)
    return;
  const machines = realServers + 4;
  const needed = Math.ceil(metricsSize(machines, realServers, interval, retention));
  if (needed <= disk) return;
  const days = Math.floor(disk / metricsSize(machines, realServers, interval, 1));
  report(
    ["monitoring", "metrics", "retention"],
    `of ${retention} days takes about ${needed} GB with ${realServers} real servers, but monitoring.metrics.disk is ${disk} GB`,
    `set metrics.disk to ${needed}${days >= 1 ? `, or retention to at most ${days}` : ""}`,
  );
}

// --- logs ------------------------------------------------------------------------------------------------------------

/** What a machine of a quiet cluster says a day, in GB on the disk. An estimate, and not measured on a real one. */
const LOGS_PER_MACHINE = 0.005;

function checkLogs(draft: Draft, { logs }: Monitoring, report: Report): void {
  const { enabled, retention, disk } = logs ?? {};
  const realServers = draft.realServers?.length;
  if (enabled !== true || retention === undefined || disk === undefined || realServers === undefined) return;
  const daily = (realServers + 4) * LOGS_PER_MACHINE;
  const needed = Math.ceil(daily * retention);
  if (needed <= disk) return;
  const days = Math.floor(disk / daily);
  report(
    ["monitoring", "logs", "retention"],
    `of ${retention} days takes about ${needed} GB with ${realServers} real servers, but monitoring.logs.disk is ${disk} GB`,
    `set logs.disk to ${needed}${days >= 1 ? `, or retention to at most ${days}` : ""}`,
  );
}
