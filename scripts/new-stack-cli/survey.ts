import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import pLimit from "p-limit";
import { findHostKey } from "../../components/platform/knownHosts";
import { hostFile } from "../../components/remote/hostFiles";
import { asRoot, expandHome, OpenSsh, type Target, UnreachableError } from "../../components/remote/openssh";
import type { ClusterConfig } from "../../config/schema";
import type { Answers, HostsAnswers, MachineAnswer } from "./answers";
import { type Found, JUMP_HOST } from "./stackFile";

/** Something that would keep the stack from being deployed, or be regretted afterwards. */
export interface Objection {
  /** Name of the machine; `null`: the cluster's. */
  readonly machine: string | null;
  readonly what: string;
  readonly fix: string;
}

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

/** Machines asked at once. */
const AT_ONCE = 16;

/** Seconds for one dial. */
const DIAL = 10;

/** The systems that the machines may have, as /etc/os-release names them. */
const SYSTEMS = ["debian 12", "ubuntu 24.04"];

type Endpoint = Omit<Target, "hostKey">;

/** Everybody that is to be logged in to. */
export function endpointsOf({
  directors,
  realServers,
  storage,
  client,
  user,
  sshPort,
}: HostsAnswers): Endpoint[] {
  const machines = [
    ...directors,
    ...realServers,
    ...("export" in storage ? [] : [storage]),
    ...(client ? [client] : []),
  ];
  return machines.map(({ name, address }) => ({ name, address, user, port: sshPort }));
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
        fix: "see that it is on and can be reached from here, or name a --jump-host",
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
  const identity = key === undefined ? [] : [`-i ${quoted(expandHome(key))}`, "-o IdentitiesOnly=yes"];
  const command = [
    `ssh -F ${join(directory, "none")} -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=${seen}`,
    `-o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=${DIAL}`,
    ...identity,
    `-p ${jumpHost.port} -W %h:%p ${jumpHost.user}@${jumpHost.address}`,
  ];
  return ["-o", `ProxyCommand=${command.join(" ")}`];
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''").replaceAll("%", "%%")}'`;
}

async function fingerprint(key: string): Promise<string> {
  const { stdout } = await execa("ssh-keygen", ["-lf", "-"], { input: `${key}\n` });
  return stdout.split(" ").slice(1, 2).join("");
}

/** What `host/survey` says of a machine. */
export interface Survey {
  readonly root: boolean;
  readonly system: string;
  readonly interface: string | undefined;
  /** `name, memory in MiB, driver` each. */
  readonly gpus: readonly string[];
  readonly vipHere: boolean;
  /** Who answers ARP for the VIP. */
  readonly vipAt: string | undefined;
}

/** Reads the lines of `host/survey`. Pure. */
export function readSurvey(output: string): Survey {
  const values = (key: string) =>
    output
      .split("\n")
      .flatMap((line) => (line.startsWith(`${key} `) ? [line.slice(key.length + 1).trim()] : []));
  return {
    root: values("root").includes("yes"),
    system: values("system")[0] ?? "unknown",
    interface: values("interface")[0],
    gpus: values("gpu"),
    vipHere: values("vip-here").includes("yes"),
    vipAt: values("vip-at")[0],
  };
}

/** Logs in to every machine, held to the keys, and looks at it. Changes nothing there. */
export async function surveyMachines(
  { hosts, vip, engine }: Answers & { readonly hosts: HostsAnswers },
  hostKeys: Readonly<Record<string, string>>,
  config: ClusterConfig,
): Promise<{ readonly interfaces: Found["interfaces"]; readonly objections: Objection[] }> {
  const machines = endpointsOf(hosts).map((endpoint) => ({
    ...endpoint,
    hostKey: hostKeys[endpoint.name] ?? "",
  }));
  const jumpHost = hosts.jumpHost && { ...hosts.jumpHost, hostKey: hostKeys[JUMP_HOST] ?? "" };
  const objections: Objection[] = [];
  const interfaces: Record<string, string> = {};
  const names = (of: readonly MachineAnswer[]) => new Set(of.map(({ name }) => name));
  const [directors, realServers] = [names(hosts.directors), names(hosts.realServers)];
  try {
    await using ssh = await OpenSsh.open({
      machines,
      jumpHost,
      privateKeyFile: hosts.key,
      connectTimeout: DIAL,
    });
    const limit = pLimit(AT_ONCE);
    const look = async (machine: Target) => {
      try {
        const command = asRoot(machine, `sh -s ${machine.address} ${directors.has(machine.name) ? vip : ""}`);
        const answer = await ssh.run(machine.name, command, { input: hostFile("survey"), timeout: 30 });
        if (answer.exitCode !== 0) {
          objections.push(noRoot(machine, answer.stderr));
          return;
        }
        const survey = readSurvey(answer.stdout);
        if (survey.interface !== undefined) interfaces[machine.name] = survey.interface;
        const gpuNeeded =
          engine === "cosyvoice" && realServers.has(machine.name) ? config.app.gpuMemory : undefined;
        objections.push(...judgeSurvey(machine, survey, { vip, gpuNeeded }));
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error;
        objections.push({ machine: machine.name, what: error.reason, fix: error.fix });
      }
    };
    await Promise.all(machines.map((machine) => limit(() => look(machine))));
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    objections.push({ machine: error.machine, what: error.reason, fix: error.fix });
  }
  const order = machines.map(({ name }) => name);
  objections.sort((one, other) => order.indexOf(one.machine ?? "") - order.indexOf(other.machine ?? ""));
  return { interfaces, objections };
}

function noRoot({ name, user }: Target, said: string): Objection {
  const last = said.trim().split("\n").at(-1) ?? "";
  return {
    machine: name,
    what: `${user} cannot run a program as root there (${last})`,
    fix: `log in as root, or let ${user} sudo without a password (echo '${user} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/${user})`,
  };
}

/**
 * What is to be said against a machine. Pure.
 *
 * @param needs.gpuNeeded GiB of GPU memory that the engine takes; `undefined`: none
 */
export function judgeSurvey(
  { name, address, user }: Pick<Target, "name" | "address" | "user">,
  survey: Survey,
  { vip, gpuNeeded }: { readonly vip: string; readonly gpuNeeded: number | undefined },
): Objection[] {
  const objections: Objection[] = [];
  const say = (what: string, fix: string, machine: string | null = name) =>
    objections.push({ machine, what, fix });
  if (!survey.root)
    say(`${user} is not root there`, "log in as root, or as one who may sudo without a password");
  if (!SYSTEMS.includes(survey.system))
    say(`runs ${survey.system}`, `the program is made for ${SYSTEMS.join(" and ")}`);
  if (survey.interface === undefined)
    say(
      `has no interface with ${address}`,
      "name the address that the machine itself has, not one that is translated to it",
    );
  if (gpuNeeded !== undefined) {
    const memory = Math.max(0, ...survey.gpus.map((gpu) => Number(gpu.split(", ")[1]) / 1024));
    if (survey.gpus.length === 0)
      say(
        "has no NVIDIA GPU, or no driver for it",
        "install the driver (Debian: nvidia-driver) and see that nvidia-smi lists it, or say --engine cpu",
      );
    // A card of 8 GiB says a little less.
    else if (memory < gpuNeeded * 0.95)
      say(
        `has a GPU with ${memory.toFixed(1)} GiB of memory, and the engine needs ${gpuNeeded}`,
        "use a larger one, or say --engine cpu",
      );
  }
  if (survey.vipHere)
    say(
      `has the VIP ${vip} already`,
      "choose a free address; if an older cluster runs there, destroy that first",
      null,
    );
  else if (survey.vipAt !== undefined)
    say(
      `${survey.vipAt} answers for the VIP ${vip} on ${name}'s segment`,
      "choose an address that nobody has, outside any DHCP range",
      null,
    );
  return objections;
}

/** Whether somebody takes connections at the VIP, as seen from here. */
export function answersAt(address: string, port: number, timeout = 2000): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout });
    const end = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.once("connect", () => end(true));
    // Somebody is there to refuse it.
    socket.once("error", (error: NodeJS.ErrnoException) => end(error.code === "ECONNREFUSED"));
    socket.once("timeout", () => end(false));
  });
}
