import { BlockList, connect, isIPv4 } from "node:net";
import pLimit from "p-limit";
import { hostFile } from "../../components/remote/hostFiles";
import { asRoot, OpenSsh, type Target, UnreachableError } from "../../components/remote/openssh";
import type { ClusterConfig } from "../../config/schema";
import type { Answers, HostsAnswers, MachineAnswer } from "./answers";
import { AT_ONCE, DIAL, endpointsOf, type Objection } from "./machines";
import { type Found, JUMP_HOST } from "./stackFile";

/** The systems that the machines may have, as /etc/os-release names them. */
const SYSTEMS = ["debian 12", "ubuntu 24.04"];

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
  /** From which address this login came. */
  readonly seenFrom: string | undefined;
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
    seenFrom: values("seen-from")[0]?.split(" ")[0],
  };
}

/** Logs in to every machine, held to the keys, and looks at it. Changes nothing there. */
export async function surveyMachines(
  { hosts, vip, engine }: Pick<Answers, "vip" | "engine"> & { readonly hosts: HostsAnswers },
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
        const program = asRoot(machine, `sh -s ${machine.address} ${directors.has(machine.name) ? vip : ""}`);
        // Only the login itself has that: sudo takes it away.
        const command = `echo "seen-from $SSH_CONNECTION"; ${program}`;
        const answer = await ssh.run(machine.name, command, { input: hostFile("survey"), timeout: 30 });
        if (answer.exitCode !== 0) {
          objections.push(noRoot(machine, answer.stderr));
          return;
        }
        const survey = readSurvey(answer.stdout);
        if (survey.interface !== undefined) interfaces[machine.name] = survey.interface;
        const gpuNeeded =
          engine === "cosyvoice" && realServers.has(machine.name) ? config.app.gpuMemory : undefined;
        // The client of the verification has no packet filter.
        const admins = hosts.firewall && machine.name !== hosts.client?.name ? hosts.admins : undefined;
        objections.push(...judgeSurvey(machine, survey, { vip, gpuNeeded, admins }));
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
 * @param needs.admins networks that its packet filter will let in by SSH; `undefined`: it gets none
 */
export function judgeSurvey(
  { name, address, user }: Pick<Target, "name" | "address" | "user">,
  survey: Survey,
  {
    vip,
    gpuNeeded,
    admins,
  }: {
    readonly vip: string;
    readonly gpuNeeded: number | undefined;
    readonly admins?: readonly string[] | undefined;
  },
): Objection[] {
  const objections: Objection[] = [];
  const say = (what: string, fix: string, machine: string | null = name) =>
    objections.push({ machine, what, fix });
  if (!survey.root)
    say(`${user} is not root there`, "log in as root, or as a user who may use sudo without a password");
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
        "install the driver (Debian: nvidia-driver) and check that nvidia-smi lists it, or use --engine cpu",
      );
    // A card of 8 GiB says a little less.
    else if (memory < gpuNeeded * 0.95)
      say(
        `has a GPU with ${memory.toFixed(1)} GiB of memory, and the engine needs ${gpuNeeded}`,
        "use a larger GPU, or --engine cpu",
      );
  }
  const { seenFrom = "" } = survey;
  if (admins !== undefined && isIPv4(seenFrom) && !within(seenFrom, admins))
    say(
      `would shut this computer out, which it sees as ${seenFrom}`,
      `add a network with ${seenFrom} to --admins (now ${admins.join(", ")})`,
    );
  if (survey.vipHere)
    say(
      `has the VIP ${vip} already`,
      "choose a free address; if an older cluster runs there, destroy that first",
      null,
    );
  else if (survey.vipAt !== undefined)
    say(
      `${survey.vipAt} answers for the VIP ${vip} on ${name}'s segment`,
      "choose an address that nobody uses, outside any DHCP range",
      null,
    );
  return objections;
}

function within(address: string, networks: readonly string[]): boolean {
  const list = new BlockList();
  for (const network of networks) {
    const [start = "", length = "32"] = network.split("/");
    list.addSubnet(start, Number(length));
  }
  return list.check(address);
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
