import * as pulumi from "@pulumi/pulumi";
import pLimit from "p-limit";
import type { Machine, SshEndpoint } from "../platform/machine";
import { OpenSsh, type OpenSshOptions, UnreachableError } from "./openssh";

/** Logins at once. One jump host carries them all over one connection, so the limit is this computer's. */
const AT_ONCE = 64;

/** Seconds until a machine that does not answer is given up. */
const LIMIT = 25;

/**
 * Logs in to every machine before anything is touched, with its host key pinned and a limit on every wait
 * (the provider's own dial through a jump host has none).
 *
 * @throws RunError that names every machine that cannot be deployed to, with the reason and what to do.
 */
export async function preflight(machines: readonly Machine[]): Promise<void> {
  const access = machines[0]?.access;
  if (!access) return;
  const failed = await unreachable({
    machines: await Promise.all(
      machines.map(async ({ name, endpoint }) => ({ name, ...(await plain(endpoint)) })),
    ),
    jumpHost: access.jumpHost && (await plain(access.jumpHost)),
    connectTimeout: access.connectTimeout,
    ...(access.privateKey === undefined ? {} : { privateKey: await value(access.privateKey) }),
  });
  if (failed.length === 0) return;
  const list = failed.map(
    ({ machine, address, reason, fix }) => `  ${machine} (${address}): ${reason}\n    fix: ${fix}`,
  );
  throw new pulumi.RunError(
    [
      `${failed.length} of ${machines.length} machines cannot be deployed to; nothing was touched.`,
      "",
      ...list,
      "",
      `If a machine is gone for good, take it out of the config and run scripts/cluster forget NAME --stack ${pulumi.getStack()}.`,
    ].join("\n"),
  );
}

/** The machines that cannot be logged in to; empty when all answered. */
export async function unreachable(options: OpenSshOptions): Promise<UnreachableError[]> {
  const failed: UnreachableError[] = [];
  const collect = (error: unknown) => {
    if (!(error instanceof UnreachableError)) throw error;
    failed.push(error);
  };
  try {
    await using ssh = await OpenSsh.open(options);
    const limit = pLimit(AT_ONCE);
    await Promise.all(options.machines.map(({ name }) => limit(() => ssh.check(name, LIMIT).catch(collect))));
  } catch (error) {
    collect(error);
  }
  return failed;
}

async function plain({ address, hostKey, ...rest }: SshEndpoint) {
  return { ...rest, address: await value(address), hostKey: await value(hostKey) };
}

function value<T>(input: pulumi.Input<T>): Promise<T> {
  return new Promise((resolve) => pulumi.output(input).apply((given) => resolve(given as T)));
}
