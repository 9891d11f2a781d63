import { hostFile } from "../../components/remote/hostFiles";
import type { OpenSsh } from "../../components/remote/openssh";
import { paths } from "../../render/paths";
import { utc } from "../lib/time";
import { expectedOfAws } from "./awsView";
import type { Inventory, InventoryMachine } from "./inventory";
import { asRootShell } from "./run";

/** One line of the report. */
export interface Proof {
  readonly claim: string;
  /** Undefined: there was nothing to look at. */
  readonly holds: boolean | undefined;
  /** What was seen. */
  readonly evidence: string;
}

export interface ProveOptions {
  /** Also give the VIP to the other director, under load, and back. */
  readonly failOver: boolean;
}

type Ssh = Pick<OpenSsh, "run">;

/** Seconds for one command on a machine; a sentence may wait in a queue. */
const LIMIT = 90;

/** Goes through what only a real deployment on AWS can prove, and says of each line what was seen. */
export async function prove(
  inventory: Inventory,
  ssh: Ssh,
  options: ProveOptions,
): Promise<readonly Proof[]> {
  const { vip } = inventory;
  const withRole = (role: InventoryMachine["role"]) =>
    inventory.machines.filter((machine) => machine.role === role);
  const [directors, realServers] = [withRole("director"), withRole("realServer")];
  const holding = await Promise.all(
    directors.map(
      async (director) => (await run(ssh, director, `ip -4 -o address | grep -qF ' ${vip}/'`)).ok,
    ),
  );
  const holders = directors.filter((_, index) => holding[index]);
  const [holder, standby] = [holders[0], directors.find((_, index) => !holding[index])];
  const proofs: Proof[] = [
    {
      claim: "one holder: exactly one director has the VIP",
      holds: holders.length === 1,
      evidence: holders.map(({ name }) => name).join(", ") || "none has it",
    },
  ];
  if (holder === undefined || standby === undefined) return proofs;

  for (const director of directors) {
    const expected = JSON.stringify(expectedOfAws(inventory));
    const { ok, said } = await run(
      ssh,
      director,
      `${paths.vipMover} check ${paths.vipMoverConfig}`,
      expected,
    );
    proofs.push({
      claim: `API: AWS leads the VIP to its holder, as ${director.name} sees it`,
      holds: ok,
      evidence: oneLine(said),
    });
  }
  proofs.push(
    await sentence(
      inventory,
      ssh,
      // The director that stands by forwards its own packets itself; a machine that is no director has them forwarded.
      withRole("monitor")[0] ?? standby,
      "same subnet: a machine in it is served through the VIP",
    ),
  );
  proofs.push(await forwarding(ssh, holder));
  const client = withRole("client")[0];
  proofs.push(
    client === undefined
      ? {
          claim: "other subnet: a client there is served",
          holds: undefined,
          evidence: "aws.verifier is not set",
        }
      : await sentence(inventory, ssh, client, "other subnet: a client there is served"),
  );
  proofs.push(await share(ssh, realServers));
  for (const realServer of realServers) proofs.push(...(await node(ssh, realServer)));
  if (options.failOver) proofs.push(await failOver(inventory, ssh, holder, standby, client ?? standby));
  return proofs;
}

/** Runs a shell command with root's rights; one that fails is an answer. */
async function run(ssh: Ssh, machine: InventoryMachine, command: string, input?: string) {
  const { exitCode, stdout, stderr } = await ssh.run(machine.name, asRootShell(machine, command), {
    timeout: LIMIT,
    ...(input === undefined ? {} : { input }),
  });
  return { ok: exitCode === 0, said: `${stdout}${stderr}`.trim() };
}

async function sentence(
  { vip, port }: Inventory,
  ssh: Ssh,
  from: InventoryMachine,
  claim: string,
): Promise<Proof> {
  const { ok, said } = await run(
    ssh,
    from,
    // Python, which every machine has; curl is not on all of them.
    `python3 - http://${vip}:${port}/v1/audio/speech`,
    hostFile("say.py"),
  );
  return { claim, holds: ok, evidence: `${from.name}: ${oneLine(said)}` };
}

/** With DR and TUN the kernel counts what clients send, and no answer. */
async function forwarding(ssh: Ssh, holder: InventoryMachine): Promise<Proof> {
  const { said } = await run(ssh, holder, "ipvsadm -Ln; ipvsadm -Ln --stats --exact");
  const method = /\b(Route|Tunnel|Masq)\b/.exec(said)?.[1] ?? "nothing";
  const [, incoming, outgoing] = /^TCP\s+\S+\s+\d+\s+(\d+)\s+(\d+)/m.exec(said) ?? [];
  const seen = `forwards by ${method}; packets in ${incoming ?? "?"}, out ${outgoing ?? "?"}`;
  if (method === "Masq")
    return { claim: "forwarding: replies bypass the director", holds: undefined, evidence: `${seen}: NAT` };
  return {
    claim: "forwarding: replies bypass the director",
    holds: Number(incoming) > 0 && outgoing === "0",
    evidence: seen,
  };
}

async function share(ssh: Ssh, realServers: readonly InventoryMachine[]): Promise<Proof> {
  const claim = "share: every real server has EFS, by TLS, and sees what another one wrote";
  const mounts = await Promise.all(
    realServers.map((realServer) =>
      run(ssh, realServer, "findmnt -no SOURCE,FSTYPE /root/CosyVoice/outputs"),
    ),
  );
  // The tunnel's end is on the machine itself.
  const wrong = realServers.filter((_, index) => !/^127\.0\.0\.1:.* nfs4$/.test(mounts[index]?.said ?? ""));
  if (wrong.length > 0)
    return { claim, holds: false, evidence: `not so on ${wrong.map(({ name }) => name).join(", ")}` };
  const file = `/root/CosyVoice/outputs/.prove-${Date.now()}`;
  const [first, ...others] = realServers;
  if (first === undefined) return { claim, holds: undefined, evidence: "there is no real server" };
  await run(ssh, first, `echo proved >${file}`);
  const read = await Promise.all(others.map((other) => run(ssh, other, `cat ${file}`)));
  await run(ssh, first, `rm -f ${file}`);
  const blind = others.filter((_, index) => read[index]?.said !== "proved");
  return {
    claim,
    holds: blind.length === 0,
    evidence:
      blind.length === 0
        ? `${realServers.length} mounts`
        : `not seen by ${blind.map(({ name }) => name).join(", ")}`,
  };
}

async function node(ssh: Ssh, realServer: InventoryMachine): Promise<Proof[]> {
  const { name } = realServer;
  const asNobody = "setpriv --reuid=65534 --clear-groups curl -s -m 3 -o /dev/null http://169.254.169.254/";
  const [open, gpu] = await Promise.all([
    run(ssh, realServer, asNobody),
    run(ssh, realServer, "nvidia-smi -L"),
  ]);
  return [
    {
      claim: `metadata: closed to everybody but root on ${name}`,
      holds: !open.ok,
      evidence: open.ok ? "it answered" : "refused",
    },
    { claim: `gpu: ${name} has one`, holds: gpu.ok || undefined, evidence: oneLine(gpu.said) },
  ];
}

async function failOver(
  { vip, port }: Inventory,
  ssh: Ssh,
  holder: InventoryMachine,
  standby: InventoryMachine,
  from: InventoryMachine,
): Promise<Proof> {
  const watched = run(ssh, from, `python3 - http://${vip}:${port}/readyz`, hostFile("silence.py"));
  // No farewell: the process is gone, as with a power-cut, and comes back only when this is over. The guard takes the address off.
  const kill = "systemctl mask --runtime keepalived.service; systemctl kill -s KILL keepalived.service";
  await run(ssh, holder, kill);
  const { said } = await watched;
  const taken = await run(ssh, standby, `ip -4 -o address | grep -qF ' ${vip}/'`);
  await run(ssh, holder, "systemctl unmask --runtime keepalived.service; systemctl start keepalived.service");
  const silence = Number(said);
  return {
    claim: "fail-over: the other director takes the VIP, and the routes follow",
    holds: taken.ok && silence < 10_000,
    evidence: `${standby.name} ${taken.ok ? "took it" : "did not take it"}; longest silence ${oneLine(said)} ms, seen from ${from.name}`,
  };
}

function oneLine(text: string): string {
  const flat = text.replace(/\s+/g, " ").replaceAll("|", "/");
  return flat.length > 160 ? `${flat.slice(0, 157)}...` : flat;
}

/** The report, as Markdown. */
export function renderProofs(stack: string, proofs: readonly Proof[], at: number): string {
  const mark = (holds: boolean | undefined) =>
    holds === undefined ? "not there" : holds ? "holds" : "**FAILS**";
  return [
    `# What was proved of the stack ${stack}`,
    "",
    `By \`scripts/cluster prove\`, ${utc(at)}.`,
    "",
    "| claim | | seen |",
    "|---|---|---|",
    ...proofs.map(({ claim, holds, evidence }) => `| ${claim} | ${mark(holds)} | ${evidence} |`),
    "",
  ].join("\n");
}
