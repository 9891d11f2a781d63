import { posix } from "node:path";
import type { CheckConfig, ClusterConfig, DirectorConfig, RealServerConfig } from "../config/schema";
import { AGENT_WEIGHT_BASE } from "./health";
import { paths } from "./paths";
import { placed } from "./runtime";
import { sandbox } from "./sandbox";
import { type Block, block, byName, type Line, never, renderBlocks, renderSections } from "./text";
import { TURNS_PORT } from "./turns";
import { type VirtualService, virtualServices } from "./virtualServices";

/**
 * keepalived.conf of one director. Both directors' texts are alike but for their own name, address, interface and priority,
 * and list the real servers in the same order.
 *
 * Written for keepalived 2.2.7 and later.
 *
 * @throws Error when the cluster has no director of that name.
 */
export function renderKeepalivedConfig(config: ClusterConfig, directorName: string): string {
  const director = byName(config.directors, directorName);
  const lines: Line[] = [
    "# Written by cosyvoice-lvs; changes made here are lost with the next deployment.",
    "",
    globalDefs(config, director),
    "",
    // Without a file, and after a reboot: take part.
    block(`track_file ${STAND_DOWN}`, `file ${paths.standDown}`, "weight 0"),
    "",
    ...config.realServers.flatMap((server) => trackFiles(config, server)),
    vrrpInstance(config, director),
    ...virtualServices(config).flatMap((service) => ["", virtualServer(config, service)]),
  ];
  return renderBlocks(lines);
}

/** The part with the password, included by keepalived.conf. For root's eyes only. */
export function renderKeepalivedAuth(password: string): string {
  return renderBlocks([block("authentication", "auth_type PASS", `auth_pass ${password}`)]);
}

/** What a director that waits for the other one's password says in its stand-down file (host/turns.py). */
export const PAUSED = 3;

/**
 * The shell command that fails on a director that runs, stands by, and has somebody beside it who holds the VIP. That one is asked at
 * the turns' port, at which nobody listens with the VIP: an address that is there refuses, and IPVS takes no part in it.
 */
export function renderNoStandby({ vip }: ClusterConfig): string {
  return [
    "! systemctl -q is-active keepalived.service",
    `ip -4 -o address show to ${vip} | grep -q .`,
    `! LC_ALL=C timeout 3 bash -c '</dev/tcp/${vip}/${TURNS_PORT}' 2>&1 | grep -q refused`,
  ].join(" || ");
}

/** Seconds until the other director has the VIP that this one gives away. */
function handover({ vrrp }: ClusterConfig): string {
  return (0.3 + vrrp.advertInterval).toFixed(2);
}

/** What is added to the distribution's keepalived.service. */
export function renderKeepalivedDropIn(config: ClusterConfig): string {
  const polled = config.loadBalancer.check.kind === "poller";
  const poller = posix.basename(paths.healthUnit);
  return renderSections([
    [
      "Unit",
      [
        // Wants and not Requires: keepalived without a poller serves on with what is known; a VIP without keepalived does not.
        ...(polled ? [`Wants=${poller}`, `After=${poller}`] : []),
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        // keepalived drops what it tracks for good if the directory is missing at its start.
        `ExecStartPre=/bin/mkdir -p ${[paths.turnsDirectory, ...(polled ? [paths.trackDirectory] : [])].join(" ")}`,
        // Before it ends, it gives the VIP away: it would take its virtual service out of the kernel at the same time, and a packet
        // in between would be answered by this machine, with a reset. 2: only for this; 1 means "no longer a director".
        `ExecStop=/bin/sh -c '[ -s ${paths.standDown} ] || { ${placed(2, paths.standDown, "stopping")}; }; exec sleep ${handover(config)}'`,
        `ExecStopPost=/bin/sh -c '! grep -qx 2 ${paths.standDown} || rm ${paths.standDown}'`,
        "Restart=always",
        "RestartSec=1",
        "OOMScoreAdjust=-900",
        ...keepalivedSandbox(),
      ],
    ],
  ]);
}

/** What keepalived may do: addresses and the kernel's table, packets, and going before others (vrrp_priority). */
function keepalivedSandbox(): string[] {
  return [
    ...sandbox(
      ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_UNIX"],
      ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_NICE"],
      // What it knows it writes to /tmp, where the exporter looks for it.
    ).filter((line) => line !== "PrivateTmp=yes"),
    "ReadWritePaths=/run /tmp",
    "MemoryDenyWriteExecute=yes",
    "UMask=0077",
    "SystemCallFilter=setpriority",
  ];
}

function globalDefs({ vrrp, loadBalancer }: ClusterConfig, director: DirectorConfig): Block {
  const { garp } = vrrp;
  return block(
    "global_defs",
    `router_id ${director.name}`,
    "enable_script_security",
    "script_user root",
    // With adverts every tenth of a second, three late ones are a failover: the process goes before others.
    "vrrp_priority -10",
    `vrrp_version ${vrrp.version}`,
    `vrrp_garp_master_delay ${garp.delay}`,
    `vrrp_garp_master_repeat ${garp.repeat}`,
    // When a partition heals, the director that steps back says a last word, and the one that stays announces the VIP anew.
    "vrrp_higher_prio_send_advert true",
    `vrrp_garp_lower_prio_delay ${garp.delay}`,
    `vrrp_garp_lower_prio_repeat ${garp.repeat}`,
    // Not all of that can be relied on in every version: a regular announcement is the net below it.
    ...(garp.refresh > 0
      ? [`vrrp_garp_master_refresh ${garp.refresh}`, `vrrp_garp_master_refresh_repeat ${garp.refreshRepeat}`]
      : []),
    loadBalancer.connectionSync
      ? `lvs_sync_daemon ${director.interface} ${INSTANCE} id ${vrrp.virtualRouterId}`
      : undefined,
  );
}

/**
 * The weight of a real server that may take all it can. Where weights follow the queue, the poller takes from it, and needs
 * steps to do so.
 */
export function configuredWeight({ loadBalancer }: ClusterConfig, server: RealServerConfig): number {
  return loadBalancer.agentWeights ? AGENT_WEIGHT_BASE * server.weight : server.weight;
}

/** The other one of the pair. */
export function otherDirector({ directors }: ClusterConfig, director: DirectorConfig): DirectorConfig {
  return directors[0] === director ? directors[1] : directors[0];
}

/** Label of the VIP on a director's interface. */
export function vipLabel({ vrrp }: ClusterConfig, director: DirectorConfig): string {
  return `${director.interface}:${vrrp.label}`;
}

/** Name of the VRRP instance. */
const INSTANCE = "cosyvoice";

/** Name of the track file by which a director is told to leave the VIP to its peer. No machine's name has a capital. */
const STAND_DOWN = "STAND-DOWN";

/** Name of the track file that says how much a real server may take. 0: its weight; the poller takes a
 * million off for a drain, which comes to 0 for every weight. */
function loadFile(server: RealServerConfig): string {
  return server.name;
}

/** Name of the track file that says whether a real server is in the pool. 0: yes, anything else: no. */
function downFile(server: RealServerConfig): string {
  return `${server.name}.down`;
}

/** Name of the track file that says whether a real server's nginx lives. 0: yes, anything else: no. */
function doorFile(server: RealServerConfig): string {
  return `${server.name}.door`;
}

/**
 * The poller's two files of a real server, and a third one where there is HTTPS. Two, because keepalived 2.2.7 keeps the "out of the pool" value of a weighted track
 * file in its sum when it was there at the start: such a server came back with weight 0 for ever (track_file.c,
 * check_daemon.c). An unweighted file has no such memory.
 *
 * A reload puts a dead server back for a millisecond, until the files are read again (the state of a file check is not
 * carried over: migrate_checkers in ipwrapper.c), but with the weight that it had last. So the poller takes the weight from a
 * dead server too: it comes back with 0, and gets no connection.
 *
 * No `init_file`: a missing file counts as 0, so when the poller is broken everybody is served rather than nobody.
 */
function trackFiles({ loadBalancer, https }: ClusterConfig, server: RealServerConfig): Line[] {
  if (loadBalancer.check.kind !== "poller") return [];
  const unweighted = [downFile(server), ...(https === undefined ? [] : [doorFile(server)])];
  return [
    block(`track_file ${loadFile(server)}`, `file ${paths.trackDirectory}/${loadFile(server)}`),
    ...unweighted.map((name) =>
      block(`track_file ${name}`, `file ${paths.trackDirectory}/${name}`, "weight 0"),
    ),
    "",
  ];
}

function vrrpInstance(config: ClusterConfig, director: DirectorConfig): Block {
  const { vrrp, vip, aws } = config;
  const peer = otherDirector(config, director);
  return block(
    `vrrp_instance ${INSTANCE}`,
    // Both start as BACKUP: the one that starts later must not take the VIP from the one that serves (nopreempt asks for it).
    "state BACKUP",
    vrrp.preempt ? undefined : "nopreempt",
    `interface ${director.interface}`,
    `virtual_router_id ${vrrp.virtualRouterId}`,
    `priority ${director.priority}`,
    `advert_int ${vrrp.advertInterval}`,
    ...(vrrp.unicast
      ? [
          `unicast_src_ip ${director.address}`,
          // Who is not the peer is not heard.
          "check_unicast_src",
          // A time to live of 255 cannot have crossed a router: only the segment can speak as the peer. Two zones are two segments.
          block(
            "unicast_peer",
            aws?.network.zones.length === 2 ? peer.address : `${peer.address} min_ttl 255`,
          ),
        ]
      : [`mcast_src_ip ${director.address}`]),
    vrrp.authentication === "PASS" ? `include ${posix.basename(paths.keepalivedAuth)}` : undefined,
    block("track_file", STAND_DOWN),
    block("virtual_ipaddress", `${vip}/32 dev ${director.interface} label ${vipLabel(config, director)}`),
    // There no ARP moves an address: the mover, which finds out by itself within half a second, is told at once.
    aws && `notify_master "${paths.vipMover} poke"`,
  );
}

function virtualServer(config: ClusterConfig, { port, door }: VirtualService): Block {
  const { vip, loadBalancer, realServers } = config;
  const { scheduler, persistence, forwarding, quorum, sorryServer, check } = loadBalancer;
  return block(
    `virtual_server ${vip} ${port}`,
    `lb_algo ${scheduler}`,
    // A hash that lands on a drained server must look further, or its clients get nobody.
    scheduler === "mh" || scheduler === "sh" ? `${scheduler}-fallback` : undefined,
    `lb_kind ${forwarding}`,
    persistence > 0 ? `persistence_timeout ${persistence}` : undefined,
    "protocol TCP",
    `quorum ${quorum}`,
    ...timing(check),
    // It speaks no HTTPS for us.
    sorryServer && !door ? `sorry_server ${sorryServer.address} ${sorryServer.port}` : undefined,
    // No inhibit_on_failure: it would keep a dead server in place with weight 0, and with it the connections that clients hold
    // open to it, which then hang instead of being reset. What it would be good for is the order of servers, on which the mh
    // table depends (IPVS puts a returning one first); that moves less than 1 % of the clients at the next failover.
    ...realServers.map((server) =>
      block(
        `real_server ${server.address} ${port}`,
        `weight ${configuredWeight(config, server)}`,
        ...checksOf(check, server, config.port, door),
      ),
    ),
  );
}

/** When keepalived checks by itself. The poller has its own clock. */
function timing(check: CheckConfig): Line[] {
  if (check.kind === "poller") return [];
  return [
    // Down until a first check has passed. It starts at once: the default would wait for up to a whole delay_loop.
    "alpha",
    `delay_loop ${check.delayLoop}`,
    "warmup 0",
  ];
}

/** How keepalived connects, and how often it tries again. */
function attempts(check: Extract<CheckConfig, { kind: "tcp" | "http" }>): string[] {
  return [
    `connect_timeout ${check.connectTimeout}`,
    `retry ${check.retry}`,
    `delay_before_retry ${check.delayBeforeRetry}`,
  ];
}

/**
 * How a real server is checked for one virtual service. Behind a door both must live: the service, which is asked at its own
 * port, and nginx, of which the poller has a file, and which keepalived by itself can only connect to.
 */
function checksOf(check: CheckConfig, server: RealServerConfig, port: number, door: boolean): Line[] {
  const appPort = door ? `connect_port ${port}` : undefined;
  switch (check.kind) {
    case "poller":
      return [loadFile(server), downFile(server), ...(door ? [doorFile(server)] : [])].map((name) =>
        block("FILE_CHECK", `track_file ${name}`),
      );
    case "tcp":
      return [
        block("TCP_CHECK", appPort, ...attempts(check)),
        ...(door ? [block("TCP_CHECK", ...attempts(check))] : []),
      ];
    case "http":
      return [
        block(
          "HTTP_GET",
          block("url", `path ${check.path}`, `status_code ${check.status}`),
          appPort,
          ...attempts(check),
        ),
        ...(door ? [block("TCP_CHECK", ...attempts(check))] : []),
      ];
    case "misc":
      return [
        ...(door ? [block("TCP_CHECK", `connect_timeout ${check.timeout}`, `retry ${check.retry}`)] : []),
        block(
          "MISC_CHECK",
          `misc_path "${check.script} ${server.address} ${port}"`,
          `misc_timeout ${check.timeout}`,
          "misc_dynamic",
          `retry ${check.retry}`,
          `delay_before_retry ${check.delayBeforeRetry}`,
        ),
      ];
    default:
      return never(check);
  }
}
