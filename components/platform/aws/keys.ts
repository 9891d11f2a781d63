import type * as pulumi from "@pulumi/pulumi";
import { PrivateKey } from "@pulumi/tls";

/** An SSH key pair. */
export interface KeyPair {
  /** OpenSSH's format. A secret. */
  readonly privateKey: pulumi.Output<string>;
  /** `ssh-ed25519 AAAA...`, without a comment. */
  readonly publicKey: pulumi.Output<string>;
}

/** Makes an SSH key that is kept in the stack's state, encrypted like every secret there. */
export function sshKey(name: string, opts: pulumi.CustomResourceOptions): KeyPair {
  const key = new PrivateKey(name, { algorithm: "ED25519" }, opts);
  return {
    privateKey: key.privateKeyOpenssh,
    publicKey: key.publicKeyOpenssh.apply((text) => text.trim().split(" ").slice(0, 2).join(" ")),
  };
}
