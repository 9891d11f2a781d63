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
      { text: "Address or host name of the jump host, as seen from this computer." },
    ),
    port: port({ text: "Port of its SSH server." }).default(22),
    user: userName({
      text: "User to log in as on the jump host. It needs no rights there except TCP forwarding.",
    }).default("root"),
    hostKey: hostKey("the jump host").optional(),
  },
  { text: "A machine through which all others are reached, if this computer has no route to them." },
);

export const sshSchema = section(
  {
    user: userName({
      text: "User to log in as on every machine: root, or a user who may run everything with sudo without a password.",
    }).default("root"),
    port: port({ text: "Port of the machines' SSH server." }).default(22),
    privateKeyFile: localFile({
      text: "Private key to log in with.",
      derived: "the secret `sshPrivateKey` when that is set, else the keys of your SSH agent",
    }).optional(),
    knownHostsFile: localFile({
      text: "An OpenSSH known_hosts file with the host keys of the machines that have no `hostKey`.",
      derived: "none: every machine needs its `hostKey`",
    }).optional(),
    connectTimeout: seconds(1, 30, {
      text: "How long a machine may take to answer before it is reported unreachable.",
      why: "Unreachable machines are named within 30 s, before any machine is touched.",
    }).default(10),
    jumpHost: jumpHostSchema.optional(),
  },
  { text: "How machines are reached. A machine can have an `ssh` section of its own." },
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
