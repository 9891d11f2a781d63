import pLimit from "p-limit";
import pc from "picocolors";
import * as z from "zod";
import { asRoot, type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import { askAws } from "./awsView";
import type { Inventory, InventoryMachine } from "./inventory";
import type { DeployedLayer } from "./layers";
import type { ProgressLine } from "./progress";
import { machineIn, runProgram } from "./run";
import { clusterStatus } from "./status";

const APPLIER = "/usr/local/lib/cosyvoice-lvs/apply";

/** Machines looked at at once. */
const AT_ONCE = 32;

/** Seconds by which a clock may differ from the others': the real servers' signatures to each other hold for 30 s. */
const CLOCK = 5;

/** Below these a disk is about to be full: share of it, and bytes. */
const FREE = { share: 0.05, bytes: 1 << 30 };

/** One thing that is not as it should be. */
export interface Finding {
  /** Name of the machine; null for the cluster as a whole. */
  readonly machine: string | null;
  readonly what: string;
  readonly fix: string;
}

export interface Diagnosis {
  readonly findings: readonly Finding[];
  /** What is right as far as this program can tell, and worth a look. */
  readonly notes: readonly string[];
  /** Layers that differ from the state, by machine, in the order in which they depend on each other. */
  readonly differing: ReadonlyMap<string, readonly DeployedLayer[]>;
}

const differencesSchema = z.array(z.object({ what: z.string(), wanted: z.string(), found: z.string() }));

const examinationSchema = z.object({
  clock: z.number(),
  disks: z.array(
    z.union([
      z.object({ path: z.string(), free: z.number(), size: z.number() }),
      z.object({ path: z.string(), error: z.string() }),
    ]),
  ),
  listens: z.array(z.object({ address: z.string(), port: z.number(), program: z.string().nullable() })),
  filters: z.array(z.object({ unit: z.string(), table: z.string() })),
});

/** What `host/examine.py` says of a machine. */
export type Examination = z.infer<typeof examinationSchema>;

/** How far a clock is ahead of this computer's, in seconds, and how far that can be wrong. */
interface Clock {
  readonly machine: string;
  readonly ahead: number;
  readonly within: number;
}

/**
 * Compares every layer of every machine with what the last deployment left in the state, and looks at what no layer holds:
 * who serves, clocks, disks, who listens; on aws what leads the VIP where.
 */
export async function diagnose(
  inventory: Inventory,
  layers: readonly DeployedLayer[],
  ssh: OpenSsh,
  progress: ProgressLine,
): Promise<Diagnosis> {
  const findings: Finding[] = [];
  const notes: string[] = [];
  const clocks: Clock[] = [];
  const differing = new Map<string, readonly DeployedLayer[]>();
  progress.show("asking the cluster how it is");
  const status = await clusterStatus(inventory, ssh);
  const told = new Set(
    [...status.directors, ...status.realServers]
      .filter(({ reachable }) => !reachable)
      .map(({ name }) => name),
  );
  findings.push(
    ...status.findings.map((what) => ({ machine: null, what, fix: "see below, and scripts/cluster logs" })),
  );

  let done = 0;
  const limit = pLimit(AT_ONCE);
  const look = async (machine: InventoryMachine) => {
    const { name } = machine;
    if (told.has(name)) return;
    try {
      const own = layers.filter(({ address }) => address === machine.address);
      const [examined, compared] = [await examine(machine, ssh), await compareLayers(machine, own, ssh)];
      clocks.push({ machine: name, ...examined.clock });
      findings.push(...compared.findings, ...judge(machine, examined.report));
      notes.push(...strangers(machine, examined.report));
      if (compared.differing.length > 0) differing.set(name, compared.differing);
    } catch (error) {
      // One machine that cannot even be looked at must not hide the others.
      findings.push(
        error instanceof UnreachableError
          ? { machine: name, what: `cannot be reached: ${error.reason}`, fix: error.fix }
          : {
              machine: name,
              what: `cannot be looked at: ${(error as Error).message}`,
              fix: `scripts/cluster ssh ${name}, and check its disk, its memory and python3`,
            },
      );
    }
    done += 1;
    progress.show(`comparing machines with the state`, ` (${done} of ${inventory.machines.length})`);
  };
  const asked =
    inventory.platform === "aws"
      ? inventory.machines.filter(({ name, role }) => role === "director" && !told.has(name))
      : [];
  const [fromAws] = await Promise.all([
    askAws(inventory, asked, ssh),
    ...inventory.machines.map((machine) => limit(() => look(machine))),
  ]);
  findings.push(...judgeClocks(clocks), ...fromAws);
  const order = ["", ...inventory.machines.map(({ name }) => name)];
  const place = ({ machine }: Finding) => order.indexOf(machine ?? "");
  return { findings: findings.sort((a, b) => place(a) - place(b)), notes: notes.sort(), differing };
}

/** Applies the layers that differ again, as a deployment would: each machine in its turn. @returns the applier's words */
export async function repair(
  inventory: Inventory,
  { differing }: Diagnosis,
  ssh: OpenSsh,
  progress: ProgressLine,
): Promise<string[]> {
  const said: string[] = [];
  const mend = async ([name, layers]: readonly [string, readonly DeployedLayer[]]) => {
    const machine = machineIn(inventory.machines, name);
    said.push(...(await applyLayers(machine, layers, ssh, progress)).said);
  };
  await Promise.all([...differing].map(mend));
  return said;
}

/** Applies layers of a machine, one after the other, up to the first that fails. @returns the applier's words */
export async function applyLayers(
  machine: InventoryMachine,
  layers: readonly DeployedLayer[],
  ssh: OpenSsh,
  progress: ProgressLine,
): Promise<{ readonly said: readonly string[]; readonly failed: boolean }> {
  const { name } = machine;
  const said: string[] = [];
  for (const { resource, manifest } of layers) {
    progress.show(`${name}: applying ${resource}`);
    // As long as a drain and a warm-up may take.
    const options = { input: manifest, timeout: 3600 };
    const { exitCode, stdout, stderr } = await ssh.run(name, asRoot(machine, `${APPLIER} apply`), options);
    said.push(`${name}: ${exitCode === 0 ? stdout.trim() : pc.red(stderr.trim())}`);
    // What comes after would stand on it.
    if (exitCode !== 0) return { said, failed: true };
  }
  return { said, failed: false };
}

/** What the notes are, and that nobody has to get up for them. */
const NOTES =
  "For your information, nothing has to be done: other programs that listen on the machines, and are not part of the service.\n" +
  "Helpers of NFS (rpc.mountd, rpc.statd, rpcbind) belong there. Look at what you do not know: ssh MACHINE ss -tlnp";

/** A diagnosis for people. */
export function renderDiagnosis({ findings, notes, differing }: Diagnosis, machines: number): string {
  const lines = findings.map(({ machine, what, fix }) => {
    const whose = machine === null ? "" : `${pc.bold(machine)}: `;
    return `${pc.red("!")} ${whose}${what}\n    fix: ${fix}`;
  });
  const put =
    differing.size === 0
      ? []
      : ["", `scripts/cluster doctor --repair puts back what differs from the state.`];
  return [
    ...(findings.length === 0
      ? [pc.green(`Nothing found: ${machines} machines are as the last deployment left them.`)]
      : lines),
    ...put,
    ...(notes.length === 0 ? [] : ["", NOTES, ...notes.map((note) => pc.dim(`- ${note}`))]),
  ].join("\n");
}

async function examine(
  machine: InventoryMachine,
  ssh: OpenSsh,
): Promise<{ readonly report: Examination; readonly clock: Omit<Clock, "machine"> }> {
  const before = Date.now() / 1000;
  const report = examinationSchema.parse(JSON.parse(await runProgram(machine, ssh, "examine.py")));
  const after = Date.now() / 1000;
  return { report, clock: { ahead: report.clock - (before + after) / 2, within: (after - before) / 2 } };
}

/** What on a machine is not as its layers say, which layers that concerns, and which could not be compared. */
export async function compareLayers(
  machine: InventoryMachine,
  layers: readonly DeployedLayer[],
  ssh: OpenSsh,
) {
  const findings: Finding[] = [];
  const differing: DeployedLayer[] = [];
  const failed: Finding[] = [];
  for (const layer of layers) {
    const { exitCode, stdout, stderr } = await ssh.run(machine.name, asRoot(machine, `${APPLIER} compare`), {
      input: layer.manifest,
    });
    if (exitCode !== 0) {
      const last = stderr.trim().split("\n").at(-1);
      failed.push({
        machine: machine.name,
        what: `${layer.resource} cannot be compared: ${last}`,
        fix: "pulumi up, which installs this version's applier on the machine",
      });
      continue;
    }
    const differences = differencesSchema.parse(JSON.parse(stdout));
    if (differences.length > 0) differing.push(layer);
    findings.push(
      ...differences.map(({ what, wanted, found }) => ({
        machine: machine.name,
        what: `${what} should be "${wanted}" and is "${found}"`,
        fix: `scripts/cluster doctor --repair (${layer.resource})`,
      })),
    );
  }
  return { findings: [...failed, ...findings], differing, failed };
}

/** What a machine's own report shows to be wrong. Pure. */
export function judge({ name }: InventoryMachine, { disks, filters }: Examination): Finding[] {
  const open = filters.map(({ unit, table }) => ({
    machine: name,
    what: `its packet filter (${table}) is not in force: something else has flushed its rules, so all traffic is let in`,
    fix: `scripts/cluster ssh ${name} -- systemctl restart ${unit}; then see what did it: nftables.service, ufw, firewalld`,
  }));
  const full = disks.flatMap((disk): Finding[] => {
    if ("error" in disk) {
      const fix =
        "check that the storage machine is on and exports it; what hangs continues by itself when it is back";
      return [{ machine: name, what: `${disk.path}: ${disk.error}`, fix }];
    }
    const { path, free, size } = disk;
    if (free > Math.min(FREE.bytes, size * FREE.share)) return [];
    const what = `${path} is nearly full: ${gigabytes(free)} of ${gigabytes(size)} are free`;
    const fix = path.endsWith("/outputs")
      ? "set service.outputs.days or service.outputs.quota, which removes old results"
      : "journalctl --vacuum-size=200M, apt-get clean";
    return [{ machine: name, what, fix }];
  });
  return [...open, ...full];
}

/** Clocks that differ from the middle one by more than the measurement can explain. Pure. */
export function judgeClocks(clocks: readonly Clock[]): Finding[] {
  const middle = clocks.map(({ ahead }) => ahead).sort((a, b) => a - b)[Math.floor(clocks.length / 2)] ?? 0;
  return clocks
    .map((clock) => ({ ...clock, off: clock.ahead - middle }))
    .filter(({ off, within }) => Math.abs(off) - within > CLOCK)
    .map(({ machine, off }) => ({
      machine,
      what: `its clock is ${Math.abs(off).toFixed(0)} s ${off > 0 ? "ahead of" : "behind"} the others`,
      fix: "apt-get install systemd-timesyncd (or chrony), and timedatectl set-ntp true",
    }));
}

/** Who can be reached from other machines, besides what this project brings. Pure. */
export function strangers(machine: InventoryMachine, { listens }: Examination): string[] {
  const expected = new Set([machine.port, ...machine.listens]);
  return listens
    .filter(({ port }) => !expected.has(port))
    .map(
      ({ address, port, program }) =>
        `${machine.name}: ${program ?? "the kernel"} listens on ${address}:${port}`,
    );
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
