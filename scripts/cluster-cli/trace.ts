import { randomInt } from "node:crypto";
import { execa } from "execa";
import pc from "picocolors";
import { type OpenSsh, type RemoteProcess, UnreachableError } from "../../components/remote/openssh";
import { describeLinks, drawJourneys } from "./drawing";
import { type Cast, type Journey, journeys, judge, ROUTER, type Verdict } from "./hops";
import type { Inventory, InventoryMachine } from "./inventory";
import { type Capture, parseCapture } from "./packets";
import type { ProgressLine } from "./progress";
import { programWithInput } from "./run";

/** Seconds that a capture may take, and the request in it. */
const LIMIT = 120;
const REQUEST_LIMIT = 20;

/** `host/capture.py`: there is no tcpdump. */
const NO_TCPDUMP = 3;

/** One request, and its way. */
export interface Trace {
  readonly request: {
    /** Name of the machine that asked; null: this computer. */
    readonly from: string | null;
    readonly port: number;
    readonly url: string;
    /** HTTP's status, or what curl said instead. */
    readonly answer: string;
    /** Who answered, by its own word. */
    readonly servedBy: string | null;
  };
  readonly cast: Cast;
  readonly journeys: readonly Journey[];
  readonly verdict: Verdict;
  /** Machines that could not be listened on, each with why and what to do. */
  readonly missing: readonly string[];
}

/**
 * Sends one light request through the VIP while every director, real server and the client machine listen to it, and puts
 * together what they saw.
 *
 * @param source address of the client machine to ask from. @default the kernel's choice
 * @throws an Error when no machine can be listened on.
 */
export async function trace(
  inventory: Inventory,
  ssh: OpenSsh,
  source: string | undefined,
  progress: ProgressLine,
): Promise<Trace> {
  const { vip, port, servicePort = port, machines } = inventory;
  const client = machines.find(({ role }) => role === "client");
  if (source !== undefined && client === undefined)
    throw new Error(
      "--from is an address of the stack's client machine, and this stack has none (verification.client).",
    );
  const listening = machines.filter(({ role }) => ["client", "director", "realServer"].includes(role));
  // Below those that a kernel gives out by itself: nobody else's connection is meant.
  const clientPort = randomInt(20_000, 30_000);

  progress.show(`starting ${listening.length} captures`);
  const started = listening.map((machine) => [machine, listen(machine, ssh, clientPort)] as const);
  await Promise.all(started.map(([, process]) => process.said(/listening on/)));
  progress.show("asking");
  const url = `${servicePort === port ? "http" : "https"}://${vip}:${servicePort}/healthz`;
  const said = await ask(client, ssh, url, clientPort, source).catch((error: Error) => ({
    answer: error.message,
    servedBy: null,
  }));
  progress.show("collecting the captures");
  const captures: Capture[] = [];
  const missing: string[] = [];
  await Promise.all(
    started.map(async ([machine, process]) => {
      const found = await collect(machine, process);
      if (typeof found === "string") missing.push(found);
      else captures.push(found);
    }),
  );
  if (captures.length === 0) throw new Error(`No machine can be listened on.\n${missing.join("\n")}`);
  const names = (role: InventoryMachine["role"]) =>
    machines.filter((machine) => machine.role === role).map(({ name }) => name);
  const cast = {
    vip,
    client: client?.name ?? null,
    directors: names("director"),
    realServers: names("realServer"),
  };
  const order = (name: string) => listening.findIndex((machine) => machine.name === name);
  const found = journeys(
    captures.sort((a, b) => order(a.machine) - order(b.machine)),
    clientPort,
  );
  const captured = captures.map(({ machine }) => machine);
  return {
    request: { from: client?.name ?? null, port: clientPort, url, ...said },
    cast,
    journeys: found,
    verdict: judge(found, {
      ...cast,
      // Of those that could not be listened on nothing is missed.
      client: cast.client !== null && captured.includes(cast.client) ? cast.client : null,
    }),
    missing: missing.sort(),
  };
}

function listen(machine: InventoryMachine, ssh: OpenSsh, clientPort: number): RemoteProcess {
  const { command, text } = programWithInput(machine, "capture.py", [machine.address, clientPort, LIMIT]);
  return ssh.start(machine.name, command, { input: text, timeout: LIMIT + 30 });
}

/** What a machine saw, or why that is not known. */
async function collect(machine: InventoryMachine, process: RemoteProcess): Promise<Capture | string> {
  try {
    const { exitCode, stdout, stderr } = await process.end();
    if (exitCode === 0) return parseCapture(machine.name, stdout);
    if (exitCode === NO_TCPDUMP)
      return `${machine.name} has no tcpdump. To install it: scripts/cluster ssh ${machine.name} -- apt-get install tcpdump`;
    return `${machine.name} could not be listened on: ${stderr.trim().split("\n").at(-1)}`;
  } catch (error) {
    if (!(error instanceof UnreachableError)) throw error;
    return `${machine.name} cannot be reached: ${error.reason}`;
  }
}

async function ask(
  client: InventoryMachine | undefined,
  ssh: OpenSsh,
  url: string,
  clientPort: number,
  source: string | undefined,
): Promise<Pick<Trace["request"], "answer" | "servedBy">> {
  const args = ["--silent", "--show-error", "--output", "/dev/null", "--dump-header", "-"];
  args.push("--max-time", String(REQUEST_LIMIT), "--local-port", String(clientPort));
  if (source !== undefined) args.push("--interface", source);
  // Whose certificate it is has nothing to do with the way.
  if (url.startsWith("https:")) args.push("--insecure");
  args.push(url);
  const { stdout, stderr } = client
    ? await ssh.run(client.name, ["curl", ...args].join(" "), { timeout: REQUEST_LIMIT + 30 })
    : await execa("curl", args, { reject: false });
  return {
    answer: /^HTTP\/\S+ (\d+)/m.exec(stdout)?.[1] ?? stderr.trim(),
    servedBy: /^x-served-by: *(\S+)/im.exec(stdout)?.[1] ?? null,
  };
}

/** A request's way for people. */
export function renderTrace({ request, cast, journeys: found, verdict, missing }: Trace): string {
  const { from, port, url, answer, servedBy } = request;
  const lanes = [cast.client, ROUTER, ...cast.directors, ...cast.realServers].filter((name) => name !== null);
  const ways: Record<NonNullable<Verdict["forwarding"]>, string> = {
    DR: "direct routing:\nthe MAC changed, the packet did not, and the reply goes past the director",
    TUN: "a tunnel:\nthe packet is unchanged within another one, and the reply goes past the director",
    NAT: "address translation:\nthe reply comes back through the director, which puts the VIP in",
  };
  const { forwarding, director, realServer, findings } = verdict;
  return [
    `GET ${url} from ${from ?? "this computer"}, port ${port}: ${answer}${servedBy === null ? "" : ` by ${servedBy}`}`,
    "",
    ...(found.length === 0 ? [] : [drawJourneys(found, lanes), "", describeLinks(found, verdict), ""]),
    ...(forwarding === null ? [] : [`${director} passed it on to ${realServer} by ${ways[forwarding]}.`]),
    ...findings.map((finding) => `${pc.red("!")} ${finding}`),
    ...missing.map((reason) => `${pc.yellow("!")} ${reason}`),
  ].join("\n");
}
