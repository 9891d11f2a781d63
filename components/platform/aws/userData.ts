import { stringify } from "yaml";
import { awsUser } from "../../../config/sections/aws";

export interface UserDataInput {
  readonly name: string;
  /** The machine's own SSH key, which is known to the program before the machine is there. */
  readonly hostKey: { readonly privateKey: string; readonly publicKey: string };
  /** Public key that may log in. */
  readonly loginKey: string;
  /** Addresses, besides its own, that the machine takes as its own: those from which the verifier asks. */
  readonly localRange?: string | undefined;
}

/**
 * What a new machine is told by AWS: who it is, and whom to let in. Everything else comes over SSH, so that this never has to
 * change.
 */
export function renderUserData({ name, hostKey, loginKey, localRange }: UserDataInput): string {
  const config = {
    hostname: name,
    // It has one key, the one it is known by.
    ssh_deletekeys: true,
    ssh_keys: { ed25519_private: hostKey.privateKey, ed25519_public: hostKey.publicKey },
    disable_root: true,
    ssh_pwauth: false,
    users: [
      {
        name: awsUser,
        gecos: "Deployments",
        shell: "/bin/bash",
        lock_passwd: true,
        sudo: "ALL=(ALL) NOPASSWD:ALL",
        ssh_authorized_keys: [loginKey],
      },
    ],
    // At every boot: a local route is an address that no interface has to carry.
    ...(localRange === undefined
      ? {}
      : { bootcmd: [["ip", "route", "replace", "local", localRange, "dev", "lo"]] }),
  };
  return `#cloud-config\n${stringify(config, { lineWidth: 0 })}`;
}
