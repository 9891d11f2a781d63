import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import pLimit from "p-limit";
import { findHostKey } from "../../components/platform/knownHosts";
import { expandHome } from "../../components/remote/openssh";
import { shellQuote } from "../../render/text";
import type { HostsAnswers } from "./answers";
import { AT_ONCE, DIAL, type Endpoint, endpointsOf, type Objection } from "./machines";
import { JUMP_HOST } from "./stackFile";

/** A host key that a machine has shown. */
export interface ShownKey {
  readonly name: string;
  readonly address: string;
  /** `<type> <base64>` */
  readonly key: string;
  /** As `ssh-keygen -lf` prints it. */
  readonly fingerprint: string;
  /** The user's own known_hosts has it, so that nobody needs to be asked. */
  readonly known: boolean;
}

/**
 * Has every machine show its host key. Nothing is logged in to, and nobody is trusted: what comes is for the user to compare.
 *
 * @param knownHosts text of the user's own known_hosts
 */
export async function showHostKeys(
  hosts: HostsAnswers,
  knownHosts: string,
): Promise<{ readonly shown: ShownKey[]; readonly objections: Objection[] }> {
  const { jumpHost } = hosts;
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-new-stack-"));
  const objections: Objection[] = [];
  const shown: ShownKey[] = [];
  const look = async ({ name, address, port, user }: Endpoint, through: readonly string[]) => {
    const file = join(directory, `${name.replaceAll(" ", "-")}.keys`);
    const { stderr } = await execa(
      "ssh",
      [...(await quiet(directory, file)), ...through, "-p", String(port), `${user}@${address}`, "true"],
      { reject: false, stdin: "ignore", timeout: (DIAL + 5) * 1000 },
    );
    const key = findHostKey(await readFile(file, "utf8").catch(() => ""), address, port);
    if (key === undefined) {
      const reason = stderr
        .trim()
        .split("\n")
        .at(-1)
        ?.replace(/^ssh: /, "");
      objections.push({
        machine: name,
        what: `no SSH server answers at ${address}:${port}${reason ? ` (${reason})` : ""}`,
        fix: "check that it is on and can be reached from here, or name a --jump-host",
      });
      return;
    }
    const kept = findHostKey(knownHosts, address, port);
    if (kept !== undefined && kept !== key && kept.split(" ")[0] === key.split(" ")[0]) {
      objections.push({
        machine: name,
        what: `${address} shows another host key (${await fingerprint(key)}) than your known_hosts has (${await fingerprint(kept)})`,
        fix: `if it was reinstalled, ssh-keygen -R ${address}; if not, somebody else answers there`,
      });
      return;
    }
    shown.push({ name, address, key, fingerprint: await fingerprint(key), known: kept === key });
  };
  try {
    if (jumpHost) await look({ ...jumpHost, name: JUMP_HOST }, []);
    if (jumpHost && objections.length > 0) return { shown, objections };
    const through = jumpHost ? await proxyThrough(directory, hosts) : [];
    const limit = pLimit(AT_ONCE);
    const endpoints = endpointsOf(hosts);
    await Promise.all(endpoints.map((endpoint) => limit(() => look(endpoint, through))));
    const place = ({ name }: { readonly name: string }) =>
      [JUMP_HOST, ...endpoints.map((one) => one.name)].indexOf(name);
    shown.sort((one, other) => place(one) - place(other));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return { shown, objections };
}

/** The client, told to ask nothing, and to write down whatever key it is shown. */
async function quiet(directory: string, knownHostsFile: string): Promise<string[]> {
  const config = join(directory, "none");
  await writeFile(config, "");
  const options = [
    "BatchMode=yes",
    "StrictHostKeyChecking=accept-new",
    `UserKnownHostsFile=${knownHostsFile}`,
    "GlobalKnownHostsFile=/dev/null",
    "HashKnownHosts=no",
    "CheckHostIP=no",
    "UpdateHostKeys=no",
    "PreferredAuthentications=none",
    "HostKeyAlgorithms=ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521",
    `ConnectTimeout=${DIAL}`,
    "LogLevel=ERROR",
  ];
  return ["-F", config, ...options.flatMap((option) => ["-o", option])];
}

/** How to go through the jump host, whose key has just been seen: it is held to that one. */
async function proxyThrough(directory: string, { jumpHost, key }: HostsAnswers): Promise<string[]> {
  if (jumpHost === undefined) return [];
  const seen = join(directory, `${JUMP_HOST.replaceAll(" ", "-")}.keys`);
  // ssh reads % in a ProxyCommand.
  const identity =
    key === undefined
      ? []
      : [`-i ${shellQuote(expandHome(key)).replaceAll("%", "%%")}`, "-o IdentitiesOnly=yes"];
  const command = [
    `ssh -F ${join(directory, "none")} -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=${seen}`,
    `-o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=${DIAL}`,
    ...identity,
    `-p ${jumpHost.port} -W %h:%p ${jumpHost.user}@${jumpHost.address}`,
  ];
  return ["-o", `ProxyCommand=${command.join(" ")}`];
}

async function fingerprint(key: string): Promise<string> {
  const { stdout } = await execa("ssh-keygen", ["-lf", "-"], { input: `${key}\n` });
  return stdout.split(" ").slice(1, 2).join("");
}
