import { LabError } from "./errors";

/** What a machine is for in the cluster; the names are those of the stack configuration. */
export type LabRole = "client" | "director" | "realServer" | "storage" | "monitor";

/** One machine of the lab: a systemd-nspawn container with its own systemd, SSH server and network namespace. */
export interface LabMachine {
  readonly name: string;
  readonly role: LabRole;
  /** IPv4 address on the lab's bridge. */
  readonly address: string;
  /** Limit of its control group, MiB. The page cache of what it read first counts too. */
  readonly memory: number;
  /** Further addresses on its interface, there from boot. @default none */
  readonly extraAddresses?: readonly string[];
  /**
   * Top-level directories that lie on ext4 itself and not on an overlay. @default none.
   * The kernel's NFS server refuses to export an overlay.
   */
  readonly ext4?: readonly string[];
}

/** The lab's network, as the machines and the virtual machine around them see it. */
export const network = {
  /** Prefix length of the bridge's network. */
  prefix: 24,
  /** The virtual machine on the bridge: the machines' gateway, the jump host's inner side. */
  gateway: "192.168.1.1",
  /** Where requests to the forwarded port of the user's computer go. */
  vip: "192.168.1.100",
  /** The service's port, on the VIP and (if it is free) on 127.0.0.1 of the user's computer. */
  port: 7860,
  /** The port of HTTPS on the VIP. */
  httpsPort: 443,
  /** The port of 127.0.0.1 of the user's computer that leads there, if it is free. */
  httpsForward: 8443,
  /** The machine that watches, and the ports of it that are forwarded to 127.0.0.1 of the user's computer (if they are free). */
  monitor: "192.168.1.30",
  monitorPorts: [9090, 9093],
} as const;

/**
 * The client's further addresses. The default scheduler hashes the client address, so test traffic needs many
 * to be seen by every real server.
 */
export const clientAddresses: readonly string[] = Array.from(
  { length: 50 },
  (_, i) => `192.168.1.${200 + i}`,
);

export const machines: readonly LabMachine[] = [
  { name: "client", role: "client", address: "192.168.1.50", memory: 384, extraAddresses: clientAddresses },
  { name: "director-1", role: "director", address: "192.168.1.11", memory: 384 },
  { name: "director-2", role: "director", address: "192.168.1.12", memory: 384 },
  { name: "rs-1", role: "realServer", address: "192.168.1.101", memory: 900 },
  { name: "rs-2", role: "realServer", address: "192.168.1.102", memory: 900 },
  { name: "rs-3", role: "realServer", address: "192.168.1.103", memory: 900 },
  { name: "storage", role: "storage", address: "192.168.1.20", memory: 384, ext4: ["srv"] },
  { name: "monitor", role: "monitor", address: network.monitor, memory: 512 },
];

/**
 * The machine of that name.
 *
 * @throws LabError when there is none.
 */
export function machineNamed(name: string): LabMachine {
  const machine = machines.find((candidate) => candidate.name === name);
  if (machine === undefined) {
    throw new LabError(
      `The lab has no machine "${name}".`,
      `It has: ${machines.map((m) => m.name).join(", ")}.`,
    );
  }
  return machine;
}
