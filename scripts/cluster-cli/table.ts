import pc from "picocolors";
import { type ClusterStatus, isByHand, type PoolState, type RealServerStatus } from "./status";

const COLOURS: Record<PoolState, (text: string) => string> = {
  serving: pc.green,
  drained: pc.yellow,
  out: pc.red,
  unknown: pc.yellow,
};

/** A cluster's status for people, in the 80 columns of a terminal. */
export function renderStatus(status: ClusterStatus): string {
  const { vip, port, holder, scheduler, directors, realServers, findings } = status;
  const directorRows = directors.map(({ name, address, reachable, holdsVip, keepalived }) => [
    name,
    address,
    reachable ? (holdsVip ? pc.green("holds the VIP") : "stands by") : pc.red("unreachable"),
    keepalived,
  ]);
  return [
    `VIP ${vip}:${port}  held by ${holder ?? pc.red("nobody, or more than one")}  scheduler ${scheduler ?? "unknown"}`,
    ...renderWhole(status),
    "",
    ...columns([["DIRECTOR", "ADDRESS", "VRRP", "KEEPALIVED"], ...directorRows]),
    "",
    ...columns(realServerRows(realServers)),
    ...renderGpus(realServers),
    ...renderAlerts(status),
    "",
    ...(findings.length === 0
      ? [pc.green("All is well.")]
      : findings.map((finding) => `${pc.red("!")} ${finding}`)),
  ].join("\n");
}

/** The real servers, with a head. */
export function realServerRows(realServers: readonly RealServerStatus[]): string[][] {
  return [
    ["REAL SERVER", "ADDRESS", "POOL", "CONN", "SERVICE", "QUEUE", "RELEASE"],
    ...realServers.map((server) => [
      server.name,
      server.address,
      COLOURS[server.pool](server.weight === null ? server.pool : `${server.pool} ${server.weight}`),
      `${server.activeConnections}/${server.inactiveConnections}`,
      service(server),
      server.queue === null ? "-" : `${server.queue.running}+${server.queue.waiting}`,
      server.release?.slice(0, 7) ?? "-",
    ]),
  ];
}

function service({ reachable, service, ready, drain }: RealServerStatus): string {
  if (!reachable) return pc.red("unreachable");
  if (drain) return pc.yellow(isByHand(drain.reason) ? "by hand" : "drained");
  if (service !== "active") return pc.red(service);
  return ready ? "ready" : pc.red("not ready");
}

/** What concerns the whole cluster, in a line or two. */
function renderWhole({ realServers, certificate }: ClusterStatus): string[] {
  const shares = new Set(realServers.flatMap(({ outputs }) => outputs ?? []));
  const mounted = realServers.filter(({ outputs }) => outputs !== null).length;
  const broken = realServers.filter(({ outputsProblem }) => outputsProblem !== null).length;
  const engines = new Set(
    realServers.flatMap(({ engine }) =>
      engine ? [`${engine.name}${engine.commit ? ` ${engine.commit.slice(0, 8)}` : ""}`] : [],
    ),
  );
  return [
    `share ${[...shares].join(", ") || pc.red("not mounted")} on ${mounted} of ${realServers.length}${broken === 0 ? "" : pc.red(`, no use on ${broken}`)}  engine ${[...engines].join(", ") || "unknown"}`,
    ...(certificate === null
      ? []
      : [`certificate until ${certificate.until.slice(0, 10)}, ${certificate.days} days`]),
  ];
}

function renderGpus(realServers: readonly RealServerStatus[]): string[] {
  const known = (value: number | null, unit: string) => (value === null ? "-" : `${value} ${unit}`);
  const rows = realServers.flatMap(({ name, gpus }) =>
    (gpus ?? []).map((gpu) => [
      name,
      gpu.name.replace(/^NVIDIA /, ""),
      known(gpu.utilization, "%"),
      gpu.used === null || gpu.total === null
        ? "-"
        : `${(gpu.used / 1024).toFixed(1)} of ${(gpu.total / 1024).toFixed(1)} GiB`,
      known(gpu.temperature, "C"),
    ]),
  );
  return rows.length === 0
    ? []
    : ["", ...columns([["REAL SERVER", "GPU", "BUSY", "MEMORY", "HEAT"], ...rows])];
}

function renderAlerts({ alerts }: ClusterStatus): string[] {
  if (alerts === null) return [];
  if (alerts.length === 0) return ["", "No alert fires."];
  return [
    "",
    ...alerts.map(({ name, severity, summary, since, silenced }) => {
      const mark = severity === "critical" ? pc.red("alert") : pc.yellow("alert");
      return `${mark} ${name} since ${since.slice(0, 19)}Z${silenced ? " (silenced)" : ""}: ${summary}`;
    }),
  ];
}

/** Cells padded to columns; colours take no room. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  const width = (cell: string) => cell.replace(/\u001b\[[0-9;]*m/g, "").length;
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => width(row[column] ?? ""))));
  return rows.map((row) =>
    row
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - width(cell)))
      .join("  ")
      .trimEnd(),
  );
}
