import { readFileSync } from "node:fs";
import type * as pulumi from "@pulumi/pulumi";
import type { Problem } from "../../config/problems";
import { type ClusterConfig, machinesOf } from "../../config/schema";
import { expandHome } from "../remote/openssh";
import { findHostKey } from "./knownHosts";
import type { Machine, SshAccess, SshEndpoint } from "./machine";

export interface HostsArgs {
  readonly config: ClusterConfig;
  /** Text of the key to log in with, from the secret `sshPrivateKey`; else `ssh.privateKeyFile` is read. */
  readonly privateKey?: pulumi.Input<string> | undefined;
}

/**
 * The machines of platform `hosts`: those of the config, with every host key known.
 *
 * @returns the machines, or every file and host key that is missing.
 */
export function hostMachines(args: HostsArgs): { machines: Machine[] } | { problems: Problem[] } {
  const { config } = args;
  const problems: Problem[] = [];

  const read = (path: string, file: string | undefined): string | undefined => {
    if (file === undefined) return undefined;
    try {
      return readFileSync(expandHome(file), "utf8");
    } catch (error) {
      problems.push({
        path,
        value: file,
        message: `cannot be read (${(error as NodeJS.ErrnoException).code})`,
        fix: "name a file that exists and that you may read",
      });
      return undefined;
    }
  };
  const knownHosts = read("ssh.knownHostsFile", config.ssh.knownHostsFile);
  const privateKey = args.privateKey ?? read("ssh.privateKeyFile", config.ssh.privateKeyFile);

  const endpoint = (
    path: string,
    host: Omit<SshEndpoint, "address" | "hostKey"> & { address: string; hostKey: string | undefined },
  ): SshEndpoint => {
    const { address, port, user } = host;
    const hostKey =
      host.hostKey ?? (knownHosts === undefined ? undefined : findHostKey(knownHosts, address, port));
    if (hostKey === undefined && knownHosts !== undefined) {
      problems.push({
        path: `${path}.hostKey`,
        value: undefined,
        message: `is not given, and ${config.ssh.knownHostsFile} has no ed25519 or ecdsa key for ${address} port ${port}`,
        fix: `compare the machine's key with its console, then: ssh-keyscan -p ${port} ${address} >> ${config.ssh.knownHostsFile}`,
      });
    }
    return { address, port, user, hostKey: hostKey ?? "" };
  };

  const { jumpHost } = config.ssh;
  const access: SshAccess = {
    privateKey,
    connectTimeout: config.ssh.connectTimeout,
    jumpHost: jumpHost && endpoint("ssh.jumpHost", jumpHost),
  };
  const machines = machinesOf(config).map(
    (machine): Machine => ({
      name: machine.name,
      role: machine.role,
      address: machine.address,
      endpoint: endpoint(machine.name, {
        ...machine.ssh,
        address: machine.address,
        hostKey: machine.hostKey,
      }),
      access,
    }),
  );
  return problems.length > 0 ? { problems } : { machines };
}
