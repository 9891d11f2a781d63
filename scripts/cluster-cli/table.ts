import pc from "picocolors";
import { type ClusterStatus, isByHand, type PoolState, type RealServerStatus } from "./status";

const COLOURS: Record<PoolState, (text: string) => string> = {
  serving: pc.green,
  drained: pc.yellow,
  out: pc.red,
  unknown: pc.yellow,
};

/** A cluster's status for people. */
export function renderStatus(status: ClusterStatus): string {
  const { vip, port, holder, scheduler, directors, realServers, findings } = status;
  const directorRows = directors.map(({ name, address, reachable, holdsVip, keepalived }) => [
    name,
    address,
    reachable ? (holdsVip ? pc.green("holds the VIP") : "stands by") : pc.red("unreachable"),
    `keepalived ${keepalived}`,
  ]);
  const realServerRows = realServers.map((server) => [
    server.name,
    server.address,
    COLOURS[server.pool](server.pool),
    server.weight === null ? "-" : String(server.weight),
    `${server.activeConnections}/${server.inactiveConnections}`,
    server.reachable ? `${server.service}, ${readiness(server)}` : pc.red("unreachable"),
    server.outputs ?? pc.red("not mounted"),
  ]);
  return [
    `VIP ${vip}:${port}  held by ${holder ?? pc.red("nobody, or more than one")}  scheduler ${scheduler ?? "unknown"}`,
    "",
    ...columns([["DIRECTOR", "ADDRESS", "VRRP", "SERVICE"], ...directorRows]),
    "",
    ...columns([
      ["REAL SERVER", "ADDRESS", "POOL", "WEIGHT", "CONNECTIONS", "SERVICE", "OUTPUTS"],
      ...realServerRows,
    ]),
    "",
    ...(findings.length === 0
      ? [pc.green("All is well.")]
      : findings.map((finding) => `${pc.red("!")} ${finding}`)),
  ].join("\n");
}

function readiness({ ready, drain }: RealServerStatus): string {
  if (drain) return pc.yellow(isByHand(drain.reason) ? "drained by hand" : "drained");
  return ready ? "ready" : "not ready";
}

/** Cells padded to columns; colours take no room. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  const width = (cell: string) => cell.replace(/\u001b\[[0-9;]*m/g, "").length;
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => width(row[column] ?? ""))));
  return rows.map((row) =>
    row
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - width(cell)))
      .join("   ")
      .trimEnd(),
  );
}
