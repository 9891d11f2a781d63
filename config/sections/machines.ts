/** Machines: what is said of each of them, directors and real servers. */
import { address, hostKey, machineName, networkInterface, port, section, userName, whole } from "../leaves";

export const machineSshSchema = section(
  {
    user: userName({
      text: "User to log in as on this machine.",
      derived: "`ssh.user`",
    }).optional(),
    port: port({ text: "Port of this machine's SSH server.", derived: "`ssh.port`" }).optional(),
  },
  { text: "How this machine is reached, where that differs from the top-level `ssh`." },
);

/** What is said of every machine, whatever its role. */
export function machineShape(what: string) {
  return {
    name: machineName({
      text: `Name of the ${what}. It identifies the machine in the state, in logs and in \`scripts/cluster\`.`,
      why: "A machine that keeps its name is changed in place; a new name means a new machine.",
    }),
    address: address({
      text: `Address of the ${what}, for SSH and for the cluster's traffic.`,
    }),
    hostKey: hostKey(`the ${what}`).optional(),
    ssh: machineSshSchema.optional(),
  };
}

const machineInterface = networkInterface({
  text: "Network interface that holds `address`, where it differs from the top-level `interface`.",
  derived: "`interface`",
}).optional();

export const directorSchema = section(
  {
    ...machineShape("director"),
    interface: machineInterface,
    priority: whole(1, 254, {
      text: "VRRP priority. When both directors start at the same moment, the one with the higher priority takes the VIP.",
      why: "255 is reserved for the owner of an address, and the VIP has no owner.",
      derived: "100 for the first director in the list, 90 for the second",
    }).optional(),
  },
  { text: "A director: runs IPVS and keepalived, holds the VIP or stands by." },
);

export const realServerSchema = section(
  {
    ...machineShape("real server"),
    weight: whole(1, 1000, {
      text: "Share of the traffic, relative to the other real servers.",
      why: "A real server with two GPUs gets 2 where the others have one GPU of the same kind.",
    }).default(1),
  },
  { text: "A real server: runs the speech service and answers clients itself." },
);

/** What a machine is there for. */
export type MachineRole = "director" | "realServer" | "storage" | "client" | "monitor";

/** A machine, with everything said that the stack file left to defaults. */
export interface MachineConfig {
  readonly name: string;
  readonly role: MachineRole;
  readonly address: string;
  /** Pinned host key, type and base64 without comment. `undefined`: to be looked up in `ssh.knownHostsFile`. */
  readonly hostKey: string | undefined;
  readonly ssh: { readonly user: string; readonly port: number };
}

/** A director. */
export interface DirectorConfig extends MachineConfig {
  readonly role: "director";
  /** Interface that holds `address` and, at times, the VIP. */
  readonly interface: string;
  readonly priority: number;
}

/** A real server. */
export interface RealServerConfig extends MachineConfig {
  readonly role: "realServer";
  readonly weight: number;
}
