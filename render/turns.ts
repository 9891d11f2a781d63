import type { ClusterConfig, MachineConfig } from "../config/schema";
import { paths } from "./paths";
import { openRuntime } from "./runtime";
import { sandbox } from "./sandbox";
import { byName, renderSections, shellQuote } from "./text";
import { servicePorts } from "./virtualServices";

/** TCP port of the directors on which turns are kept. */
export const TURNS_PORT = 7861;

/** User and group of the keeper of the turns, on directors. */
export const KEEPER = "cosyvoice-turns";

/** Seconds that somebody waits while the same broken real servers are in the way and nobody has a turn. */
const PATIENCE = 600;

/** Whether the directors follow a real server's /readyz; else they drain it by themselves. */
function drainOf({ loadBalancer }: ClusterConfig): "readyz" | "weight" {
  return loadBalancer.check.kind === "poller" ? "readyz" : "weight";
}

/**
 * What the keeper of the turns on a director must know: who may ask, and how many may be out of service at a time.
 *
 * @throws Error when the cluster has no director of that name.
 */
export function renderTurnsConfig(config: ClusterConfig, directorName: string): string {
  const named = ({ name, address }: MachineConfig) => ({ name, address });
  const turns = {
    address: byName(config.directors, directorName).address,
    port: TURNS_PORT,
    vip: config.vip,
    servicePorts: servicePorts(config),
    maxUnavailable: config.service.maxUnavailable,
    patience: PATIENCE,
    forwarding: config.loadBalancer.forwarding,
    drain: drainOf(config),
    directors: config.directors.map(named),
    realServers: config.realServers.map(named),
  };
  return `${JSON.stringify(turns, null, 2)}\n`;
}

/** The unit that keeps the turns. Nothing that serves depends on it. */
export function renderTurnsUnit(config: ClusterConfig): string {
  const byWeight = drainOf(config) === "weight";
  return renderSections([
    [
      "Unit",
      [
        "Description=Turns of the machines that are to be changed",
        "After=network.target",
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        "Type=notify",
        "NotifyAccess=main",
        `User=${KEEPER}`,
        `Group=${KEEPER}`,
        openRuntime,
        // Root's, and the keeper's by its group: keepalived, which is root without the right to write what is others', and the
        // applier put files there, too. Not RuntimeDirectory=, which would give it to the keeper alone.
        `ExecStartPre=+/usr/bin/install -d -m 0775 -o root -g ${KEEPER} ${paths.turnsDirectory}`,
        `ExecStart=${paths.turns} ${paths.turnsConfig}`,
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "RestartSec=1",
        "WatchdogSec=10",
        "OOMScoreAdjust=-900",
        "LimitNOFILE=4096",
        // "-": it is made by what runs before. It stays: which weights are to be given back must be known to the next process.
        `ReadWritePaths=-${paths.turnsDirectory}`,
        "MemoryDenyWriteExecute=yes",
        // ipvsadm, which speaks to the kernel by netlink, is all that needs a right.
        ...(byWeight
          ? [
              "AmbientCapabilities=CAP_NET_ADMIN",
              ...sandbox(["AF_INET", "AF_UNIX", "AF_NETLINK"], ["CAP_NET_ADMIN"]),
            ]
          : sandbox(["AF_INET", "AF_UNIX"])),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

function directorTargets(config: ClusterConfig): string {
  return config.directors.map(({ address }) => `${address}:${TURNS_PORT}`).join(",");
}

/**
 * The command that stands around a change of a real server (host/turn.py): gets its turn, drains it, and waits until it
 * is back.
 *
 * @param what the change, equal on all real servers that get the same, such as "release 0123456789abcdef": when it fails
 * on one, those that wait with the same words are left as they are.
 */
export function renderRealServerTurn(config: ClusterConfig, realServerName: string, what: string): string {
  const { name, address } = byName(config.realServers, realServerName);
  return [
    `exec ${paths.turn} real-server ${name}`,
    `--address ${address}`,
    `--directors ${directorTargets(config)}`,
    `--what ${shellQuote(what)}`,
    `--port ${config.port}`,
    `--drain-limit ${config.service.drainLimit}`,
  ].join(" ");
}

/**
 * The command that stands around a change of a director: one at a time, the standby first, and real servers that leave the
 * pool with the change drained.
 */
export function renderDirectorTurn(config: ClusterConfig, directorName: string, what: string): string {
  const { name, address } = byName(config.directors, directorName);
  return [
    `exec ${paths.turn} director ${name}`,
    `--address ${address}`,
    `--directors ${directorTargets(config)}`,
    `--what ${shellQuote(what)}`,
    `--vip ${config.vip}`,
    `--port ${config.port}`,
    `--services ${servicePorts(config).join(",")}`,
    `--pool ${config.realServers.map(({ address }) => address).join(",")}`,
    `--drain-limit ${config.service.drainLimit}`,
  ].join(" ");
}
