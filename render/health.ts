import { posix } from "node:path";
import { type ClusterConfig, DOOR_HEALTH_PORT } from "../config/schema";
import { paths } from "./paths";
import { openRuntime } from "./runtime";
import { sandbox } from "./sandbox";
import { byName, renderSections } from "./text";

/**
 * With agent weights, keepalived's weight of a real server for each 1 of its configured weight: what the poller takes
 * off comes in whole numbers, so there must be something to take from.
 */
export const AGENT_WEIGHT_BASE = 100;

/** User and group of the poller, on directors. */
export const POLLER = "cosyvoice-health";

/**
 * Seconds for which a real server that takes connections and does not answer is drained before it counts as dead: one that
 * is only slow finishes what it has.
 */
const SILENCE = 10;

/**
 * What the poller of a director asks, and where it writes the answers.
 *
 * @throws Error when the cluster has no director of that name, or checks its real servers in another way.
 */
export function renderHealthConfig(config: ClusterConfig, directorName: string): string {
  byName(config.directors, directorName);
  const { check } = config.loadBalancer;
  if (check.kind !== "poller")
    throw new Error(`there is no poller to configure: check.kind is ${check.kind}`);
  const { interval, timeout, failures, path } = check;
  const { agentWeights, rampUp } = config.loadBalancer;
  const health = {
    interval,
    timeout,
    failures,
    silence: SILENCE,
    trackDirectory: paths.trackDirectory,
    weights: agentWeights ? { base: AGENT_WEIGHT_BASE, rampUp } : null,
    // nginx, which may be dead while the service lives.
    door: config.https === undefined ? null : { port: DOOR_HEALTH_PORT, path: "/" },
    servers: config.realServers.map(({ name, address, weight }) => ({
      name,
      address,
      port: config.port,
      path,
      weight,
    })),
  };
  return `${JSON.stringify(health, null, 2)}\n`;
}

/** The unit of the poller. It is up, with a first answer about every real server, before keepalived starts. */
export function renderHealthUnit(): string {
  return renderSections([
    [
      "Unit",
      [
        "Description=Health of the real servers, for keepalived",
        "After=network.target",
        "Before=keepalived.service",
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        "Type=notify",
        "NotifyAccess=main",
        `User=${POLLER}`,
        `Group=${POLLER}`,
        openRuntime,
        `ExecStart=${paths.healthPoller} ${paths.healthConfig}`,
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "RestartSec=1",
        "WatchdogSec=10",
        "OOMScoreAdjust=-900",
        // Polls of several intervals may be open to every real server at once.
        "LimitNOFILE=65536",
        // The directory outlives the poller: keepalived watches this very directory, and a file that vanishes means "serve". It is the
        // poller's from its start on, with the files that are in it; until then one that runs as root goes on writing there.
        `RuntimeDirectory=${posix.relative("/run", paths.trackDirectory)}`,
        "RuntimeDirectoryPreserve=yes",
        "MemoryDenyWriteExecute=yes",
        ...sandbox(["AF_INET", "AF_UNIX"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
