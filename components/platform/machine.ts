import type * as pulumi from "@pulumi/pulumi";
import type { MachineRole } from "../../config/schema";

/** How to reach a machine, or the jump host before it, over SSH. */
export interface SshEndpoint {
  /** IPv4 address or name to dial. On aws it is known when the machine is there, which is what its layers wait for. */
  readonly address: pulumi.Input<string>;
  /** TCP port of sshd. */
  readonly port: number;
  /** Login user; root, or one who may `sudo` without a password. */
  readonly user: string;
  /** The public host key the machine must show, `<type> <base64>`. Anything else is refused. */
  readonly hostKey: pulumi.Input<string>;
}

/** The login that all machines of a stack share. */
export interface SshAccess {
  /** Text of the private key; undefined leaves it to the SSH agent. Always a secret. */
  readonly privateKey: pulumi.Input<string> | undefined;
  /** Seconds for one dial attempt. */
  readonly connectTimeout: number;
  /** A host between here and the machines, as OpenSSH's ProxyJump. */
  readonly jumpHost: SshEndpoint | undefined;
  /** Dials before giving up. @default those that a crowded jump host asks for; a machine that is being made needs more. */
  readonly dialAttempts?: number;
}

/**
 * One machine of the cluster, whoever made it. Both platforms give these, and nothing above a platform
 * knows which of the two it was.
 */
export interface Machine {
  /** DNS label; the identity of everything the stack keeps for this machine. */
  readonly name: string;
  readonly role: MachineRole;
  /** IPv4 address in the cluster's network. */
  readonly address: string;
  readonly endpoint: SshEndpoint;
  readonly access: SshAccess;
  /**
   * Which machine of this name it is, where a platform can put another in its place: with another one all layers are applied
   * anew. @default the only one
   */
  readonly incarnation?: pulumi.Input<string>;
}
