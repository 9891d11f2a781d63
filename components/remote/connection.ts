import type { types } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { Machine, SshAccess, SshEndpoint } from "../platform/machine";

/**
 * Dials before giving up. A jump host sheds connections above sshd's MaxStartups (10:30:100 by default), which
 * a few more tries get through; a machine that is off was already named by the preflight.
 */
const DIAL_ERROR_LIMIT = 8;

function dial(endpoint: SshEndpoint, access: SshAccess) {
  return {
    host: endpoint.address,
    port: endpoint.port,
    user: endpoint.user,
    hostKey: endpoint.hostKey,
    dialErrorLimit: access.dialAttempts ?? DIAL_ERROR_LIMIT,
    perDialTimeout: access.connectTimeout,
    ...(access.privateKey === undefined ? {} : { privateKey: pulumi.secret(access.privateKey) }),
  };
}

const known = new WeakMap<Machine, pulumi.Output<types.input.remote.ConnectionArgs>>();

/**
 * The connection settings of `@pulumi/command` for a machine, with its host key pinned. One output for all that is done on it: the
 * SDK makes dozens of promises of each of its dozen values.
 */
export function connectionTo(machine: Machine): pulumi.Output<types.input.remote.ConnectionArgs> {
  const connection = known.get(machine) ?? pulumi.output(settingsOf(machine));
  known.set(machine, connection);
  return connection;
}

function settingsOf({ endpoint, access }: Machine): types.input.remote.ConnectionArgs {
  return {
    ...dial(endpoint, access),
    ...(access.jumpHost === undefined ? {} : { proxy: dial(access.jumpHost, access) }),
  };
}
