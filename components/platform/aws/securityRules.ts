import { type ClusterConfig, DOOR_HEALTH_PORT, type ReceiverConfig } from "../../../config/schema";
import type { AwsConfig } from "../../../config/sections/aws";
import { TURNS_PORT } from "../../../render/turns";
import { servicePorts } from "../../../render/virtualServices";

/** The security groups, by what their machines are. */
export const groups = ["directors", "realServers", "share", "verifier", "monitor"] as const;
export type Group = (typeof groups)[number];

/** One rule of one group. */
export interface SecurityRule {
  readonly group: Group;
  readonly direction: "in" | "out";
  /** `tcp`, or the number of an IP protocol. */
  readonly protocol: "tcp" | "4" | "112";
  readonly ports?: readonly [from: number, to: number];
  /** The other end: a range of addresses, or a group. */
  readonly peer: { readonly cidr: string } | { readonly group: Group };
  /** What it is for, as AWS shows it. */
  readonly text: string;
}

/** Everything that is let through; what is not here is dropped. */
export function securityRules(config: ClusterConfig, aws: AwsConfig): readonly SecurityRule[] {
  const { port, vip, loadBalancer } = config;
  const { forwarding } = loadBalancer;
  const rules: SecurityRule[] = [];
  const allow = (
    group: Group,
    direction: "in" | "out",
    what: number | "4" | "112" | readonly [number, number],
    peers: readonly string[] | Group,
    text: string,
  ) => {
    const kind =
      typeof what === "string"
        ? { protocol: what }
        : { protocol: "tcp" as const, ports: typeof what === "number" ? ([what, what] as const) : what };
    const ends = typeof peers === "string" ? [{ group: peers }] : peers.map((cidr) => ({ cidr }));
    for (const peer of ends) rules.push({ group, direction, ...kind, peer, text });
  };
  const clients = [
    ...new Set([
      ...aws.clients,
      ...(aws.verifier ? [aws.verifier.sources] : []),
      // By address, as every client: what DR forwards to a real server comes from no group. Directors ask when they stand by.
      ...[...config.directors, ...(config.monitoring ? [config.monitoring] : [])].map(
        ({ address }) => `${address}/32`,
      ),
    ]),
  ];
  const anywhere = ["0.0.0.0/0"];
  const services = servicePorts(config);
  // What directors ask real servers at, and what NAT sends them to.
  const asked = new Set([
    port,
    ...(config.https ? [DOOR_HEALTH_PORT] : []),
    ...(forwarding === "NAT" ? services : []),
  ]);

  for (const service of services) allow("directors", "in", service, clients, "service, for clients");
  allow("directors", "in", 22, aws.admins, "SSH, for administrators");
  allow("directors", "in", 22, "directors", "SSH, through the other director");
  allow("directors", "in", "112", "directors", "VRRP");
  allow("directors", "in", TURNS_PORT, "directors", "turns");
  allow("directors", "in", TURNS_PORT, "realServers", "turns");
  allow("directors", "out", 443, anywhere, "packages and the API of AWS");
  allow("directors", "out", 80, anywhere, "packages");
  allow("directors", "out", 22, "directors", "SSH, as jump host");
  allow("directors", "out", 22, "realServers", "SSH, as jump host");
  allow("directors", "out", "112", "directors", "VRRP");
  allow("directors", "out", TURNS_PORT, "directors", "turns");
  for (const at of asked)
    allow("directors", "out", at, "realServers", "health checks, and forwarding by NAT");
  allow("realServers", "in", 22, "directors", "SSH, through a director");
  for (const at of asked) allow("realServers", "in", at, "directors", "health checks, and forwarding by NAT");
  allow("realServers", "in", port, "realServers", "sessions and jobs that are passed on");
  allow("realServers", "out", 443, anywhere, "packages, weights and the API of AWS");
  allow("realServers", "out", 80, anywhere, "packages");
  allow("realServers", "out", port, "realServers", "sessions and jobs that are passed on");
  allow("realServers", "out", TURNS_PORT, "directors", "turns");
  allow("realServers", "out", 2049, "share", "NFS");
  allow("share", "in", 2049, "realServers", "NFS");
  if (forwarding === "DR") {
    // A forwarded packet still has the client's address and the VIP: no group is its source or its destination.
    for (const service of services) {
      allow("directors", "out", service, [`${vip}/32`], "forwarding by DR");
      allow("realServers", "in", service, clients, "forwarded by DR");
    }
  }
  if (forwarding === "TUN") {
    allow("directors", "out", "4", "realServers", "forwarding by TUN");
    allow("realServers", "in", "4", "directors", "forwarded by TUN");
    // AWS has seen a tunnel come in, so a reply to a client is the first packet of a connection to it.
    allow("realServers", "out", [1024, 65_535], clients, "replies of TUN");
  }
  if (aws.verifier) {
    allow("directors", "out", 22, "verifier", "SSH, as jump host");
    allow("verifier", "in", 22, "directors", "SSH, through a director");
    for (const service of services) allow("verifier", "out", service, [`${vip}/32`], "sentences");
  }
  if (config.monitoring) {
    const { ports, adminNetworks, receivers, logs, grafana } = config.monitoring;
    for (const watched of ["directors", "realServers"] as const) {
      allow("monitor", "out", ports.nodeExporter, watched, "readings of machines");
      allow(watched, "in", ports.nodeExporter, "monitor", "readings of this machine");
      if (!logs.enabled) continue;
      allow("monitor", "out", ports.collector, watched, "how collectors of logs are");
      allow(watched, "in", ports.collector, "monitor", "how the collector of logs is");
      allow(watched, "out", ports.loki, "monitor", "logs");
      allow("monitor", "in", ports.loki, watched, "logs of machines");
    }
    allow("monitor", "out", port, "realServers", "readings of the service");
    allow("realServers", "in", port, "monitor", "readings of the service");
    for (const service of services) allow("monitor", "out", service, [`${vip}/32`], "probes and sentences");
    for (const at of new Set([80, 443, ...receivers.flatMap(receiverPorts)]))
      allow("monitor", "out", at, anywhere, "packages, and those who are told of alerts");
    for (const at of [ports.prometheus, ports.alertmanager, ...(grafana.enabled ? [ports.grafana] : [])])
      allow("monitor", "in", at, adminNetworks, "what watches, for administrators");
    allow("directors", "out", 22, "monitor", "SSH, as jump host");
    allow("monitor", "in", 22, "directors", "SSH, through a director");
  }
  return rules;
}

/** Where a receiver listens, as far as that is no secret. */
function receiverPorts({ url, server }: ReceiverConfig): number[] {
  const said = [url === undefined ? "" : new URL(url).port, server?.split(":")[1] ?? ""];
  return said.filter((text) => text !== "").map(Number);
}

/** A rule's name within the stack: what it says, so that the order of the list means nothing. */
export function ruleName({ group, direction, protocol, ports, peer }: SecurityRule): string {
  const what = ports === undefined ? `ip${protocol}` : [...new Set(ports)].join("-");
  const end = "group" in peer ? peer.group : peer.cidr.replace("/", "_");
  return `${group}-${direction}-${what}-${end}`;
}
