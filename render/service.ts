import { posix } from "node:path";
import { type ClusterConfig, peersOn } from "../config/schema";
import { paths } from "./paths";
import { systemCalls } from "./sandbox";
import { byName, renderSections } from "./text";

/** run.sh: how the service is started, by systemd and by hand alike. Root's, and not writable by the service. */
export function renderRunScript(config: ClusterConfig): string {
  const { port, service } = config;
  const queue = service.enableQueue ? " --enable-queue" : "";
  return [
    "#!/bin/bash",
    "# Written by cosyvoice-lvs. What else can be set comes from the environment, see",
    `# ${paths.serviceEnvironment}.`,
    "set -e",
    `cd ${paths.service}`,
    "# shellcheck source=/dev/null",
    ". cosyvoice_env/bin/activate",
    "# exec: systemd follows the process that it started.",
    `exec python app.py --host 0.0.0.0 --port ${port}${queue}`,
    "",
  ].join("\n");
}

/**
 * The service's environment file, in the syntax of systemd's `EnvironmentFile=`.
 *
 * @param engine name of the staged engine that speaks; with the engine cosyvoice only.
 * @throws Error when the cluster has no real server of that name.
 */
export function renderServiceEnvironment(
  config: ClusterConfig,
  realServerName: string,
  engine?: string,
): string {
  const server = byName(config.realServers, realServerName);
  const { service } = config;
  const variables: Record<string, string> = {
    COSYVOICE_NODE: server.name,
    COSYVOICE_ENGINE: service.engine,
    COSYVOICE_OUTPUTS: paths.outputs,
    COSYVOICE_QUEUE_LENGTH: String(service.queueLength),
    COSYVOICE_TIME_LIMIT: String(service.timeLimit),
    COSYVOICE_OUTPUTS_DAYS: String(service.outputs.days),
    COSYVOICE_OUTPUTS_QUOTA: String(service.outputs.quota),
    COSYVOICE_SHARED_HISTORY: service.outputs.shared ? "1" : "0",
    COSYVOICE_DIRECTORS: paths.directors,
    ...(peersOn(config) ? { COSYVOICE_PEERS: paths.peers, COSYVOICE_PEER_KEY_FILE: paths.peerKey } : {}),
    ...(service.engine === "cosyvoice" ? engineVariables(config, engine) : {}),
    GRADIO_TEMP_DIR: `${paths.serviceState}/uploads`,
    ...service.environment,
  };
  return Object.entries(variables)
    .map(([name, value]) => `${name}=${quote(value)}\n`)
    .join("");
}

function engineVariables(config: ClusterConfig, engine: string | undefined): Record<string, string> {
  if (engine === undefined) throw new Error("the engine cosyvoice needs the name of a staged engine");
  const { app } = config;
  const set = engineSet(engine);
  const cache = `${paths.serviceState}/cache`;
  return {
    COSYVOICE_SOURCE: `${set}/source`,
    COSYVOICE_MODEL: buildsForGpu(config) ? engineMirror(config, engine) : `${set}/${modelName(config)}`,
    COSYVOICE_PYTHON: `${set}/env/bin/python`,
    COSYVOICE_EDITION: engine,
    COSYVOICE_FP16: app.fp16 ? "1" : "0",
    COSYVOICE_TRT: app.tensorrt ? "1" : "0",
    COSYVOICE_VLLM: app.vllm ? "1" : "0",
    COSYVOICE_START_LIMIT: String(loadLimit(config)),
    // What upstream's libraries keep for their next start. They would try the folders of their programs, which are root's.
    XDG_CACHE_HOME: cache,
    NUMBA_CACHE_DIR: `${cache}/numba`,
    MPLCONFIGDIR: `${cache}/matplotlib`,
    TRITON_CACHE_DIR: `${cache}/triton`,
    CUDA_CACHE_PATH: `${cache}/cuda`,
    MODELSCOPE_CACHE: `${cache}/modelscope`,
  };
}

/** Where a staged engine is: its source, its environment and its model. */
export function engineSet(engine: string): string {
  return `${paths.engine}/sets/${engine}`;
}

/** The name of the model's folder. It is part of what results are named after. */
export function modelName({ app }: Pick<ClusterConfig, "app">): string {
  return posix.basename(app.model.id);
}

/** Whether upstream builds something for the node's GPU at its first start, and puts it beside the weights. */
function buildsForGpu({ app }: ClusterConfig): boolean {
  return app.tensorrt || app.vllm;
}

/** The model's folder as the service may write to it. */
function engineMirror(config: ClusterConfig, engine: string): string {
  return `${paths.serviceState}/engine/${engine}/${modelName(config)}`;
}

/** Seconds that the engine may take to load. TensorRT and vLLM build first. */
export function loadLimit(config: ClusterConfig): number {
  return buildsForGpu(config) ? 2700 : 600;
}

/**
 * Who the other real servers are, by their own addresses: from the one to the other nothing goes through a director.
 *
 * @throws Error when the cluster has no real server of that name.
 */
export function renderPeers(config: ClusterConfig, realServerName: string): string {
  const self = byName(config.realServers, realServerName).name;
  const peers = config.realServers
    .filter(({ name }) => name !== self)
    .map(({ name, address }) => ({ name, url: `http://${address}:${config.port}` }));
  return `${JSON.stringify({ self, peers }, undefined, 2)}\n`;
}

/** The directors' addresses, one a line: whose word that a real server is about to be forgotten the service believes. */
export function renderDirectors({ directors }: ClusterConfig): string {
  return directors.map(({ address }) => `${address}\n`).join("");
}

/** The peers' key file: the key that signs, and below it one that is accepted as well. */
export function renderPeerKey(peerKey: string): string {
  return peerKey
    .split(",")
    .map((key) => `${key}\n`)
    .join("");
}

/** As systemd and a shell read it alike: four characters are escaped inside double quotes. */
function quote(value: string): string {
  return /^[A-Za-z0-9_.,:/@+-]+$/.test(value) ? value : `"${value.replace(/["\\`$]/g, "\\$&")}"`;
}

/**
 * cosyvoice.service: the speech service, as an unprivileged user in a sandbox.
 *
 * @param engine as for {@link renderServiceEnvironment}.
 */
export function renderServiceUnit(config: ClusterConfig, engine?: string): string {
  const { service, port } = config;
  const gpu = service.engine === "cosyvoice";
  const mirror =
    gpu && engine !== undefined && buildsForGpu(config) ? engineMirror(config, engine) : undefined;
  // A port below 1024 takes one privilege, and no other.
  const capability = port < 1024 ? "CAP_NET_BIND_SERVICE" : "";
  return renderSections([
    [
      "Unit",
      [
        "Description=CosyVoice speech service",
        // After the share, so that what is being spoken when the machine goes down can still be kept. But not Requires: without
        // the share the service starts and says so in its answers; a fault that all nodes share must take none of them out.
        `After=network.target ${posix.basename(paths.vipUnit)} ${posix.basename(paths.outputsMount)}`,
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        "Type=notify",
        "NotifyAccess=main",
        `User=${service.user}`,
        `Group=${service.user}`,
        `EnvironmentFile=${paths.serviceEnvironment}`,
        // CUDA makes its devices by a program that is root's, which the service may not run: so they are made before. Missing
        // where something else makes them.
        gpu ? "ExecStartPre=-+/bin/sh -c 'exec nvidia-modprobe -u -c 0'" : undefined,
        mirror &&
          `ExecStartPre=${paths.engineProgram} mirror ${engineSet(engine ?? "")}/${modelName(config)} ${mirror}`,
        `ExecStart=${posix.join(paths.service, "run.sh")}`,
        // Ready is said after a sentence: what was built has worked, and need not be built again.
        mirror && `ExecStartPost=${paths.engineProgram} built ${mirror}`,
        // The first start loads a model and speaks a sentence before it reports ready.
        `TimeoutStartSec=${gpu ? loadLimit(config) + 120 : 600}`,
        // What is being spoken may finish.
        `TimeoutStopSec=${Math.ceil(service.timeLimit) + 15}`,
        "KillMode=mixed",
        "Restart=always",
        "RestartSec=2",
        "WatchdogSec=60",
        "UMask=0022",
        "LimitNOFILE=65536",
        `StateDirectory=${posix.relative("/var/lib", paths.serviceState)}`,
        "NoNewPrivileges=yes",
        `CapabilityBoundingSet=${capability}`,
        `AmbientCapabilities=${capability}`,
        "ProtectSystem=strict",
        // Of root's home only this is seen; mounts that come later below it (the share) show up by themselves.
        "ProtectHome=tmpfs",
        `BindPaths=${paths.service}`,
        "PrivateTmp=yes",
        // A GPU is a device.
        `PrivateDevices=${gpu ? "no" : "yes"}`,
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        // It allows the clock's devices, and thereby no other: a GPU would be out of reach.
        gpu ? undefined : "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "PrivateMounts=yes",
        "ProtectProc=invisible",
        "RemoveIPC=yes",
        ...systemCalls,
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
