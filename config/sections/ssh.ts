/** The section `ssh`: how machines are reached. */
import { parseIPv4 } from "../addresses";
import { hostKey, localFile, port, seconds, section, text, userName } from "../leaves";

const jumpHostSchema = section(
  {
    address: text(
      (value) =>
        parseIPv4(value) !== undefined ||
        /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(value),
      "an IPv4 address or a host name",
      { text: "Address or name of the jump host, as seen from this computer." },
    ),
    port: port({ text: "Port of its SSH server." }).default(22),
    user: userName({
      text: "User to log in as on the jump host. It needs no rights there beyond forwarding TCP.",
    }).default("root"),
    hostKey: hostKey("the jump host").optional(),
  },
  { text: "A machine through which all others are reached, where this computer has no route to them." },
);

export const sshSchema = section(
  {
    user: userName({
      text: "User to log in as on every machine: root, or one that may run everything by sudo without a password.",
    }).default("root"),
    port: port({ text: "Port of the machines' SSH server." }).default(22),
    privateKeyFile: localFile({
      text: "Private key to log in with.",
      derived: "the secret `sshPrivateKey` when that is set, else the keys of your SSH agent",
    }).optional(),
    knownHostsFile: localFile({
      text: "An OpenSSH known_hosts file in which machines without `hostKey` are looked up.",
      derived: "none: every machine needs its `hostKey`",
    }).optional(),
    connectTimeout: seconds(1, 30, {
      text: "How long a machine may take to answer before it is reported as unreachable.",
      why: "An unreachable machine is named within 30 s, before any other is touched.",
    }).default(10),
    jumpHost: jumpHostSchema.optional(),
  },
  { text: "How machines are reached. Single machines may differ by an `ssh` of their own." },
);

/** How to reach machines. */
export interface SshConfig {
  readonly user: string;
  readonly port: number;
  /** As written in the stack file, `~` not expanded. */
  readonly privateKeyFile: string | undefined;
  /** As written in the stack file, `~` not expanded. */
  readonly knownHostsFile: string | undefined;
  /** Seconds. */
  readonly connectTimeout: number;
  readonly jumpHost:
    | {
        readonly address: string;
        readonly port: number;
        readonly user: string;
        readonly hostKey: string | undefined;
      }
    | undefined;
}
