import { readFile } from "node:fs/promises";
import { asRoot, type OpenSsh } from "../../components/remote/openssh";
import { Lab } from "../../lab/lab";
import { LabStack, stackName } from "../../lab/stack";
import { applyLayers, compareLayers, type Finding } from "../cluster-cli/doctor";
import { connect, type Inventory, type InventoryMachine, readInventory } from "../cluster-cli/inventory";
import type { DeployedLayer } from "../cluster-cli/layers";
import type { ProgressLine } from "../cluster-cli/progress";
import { machineIn } from "../cluster-cli/run";
import { resolveToolchain } from "../toolchain";
import { type Rendered, render } from "./render";

/**
 * The lab that runs: what would be deployed to it, its machines, and a way to them.
 *
 * @throws when none runs, or nothing was deployed to it yet.
 */
export async function withLab<T>(
  work: (rendered: readonly Rendered[], inventory: Inventory, ssh: OpenSsh) => Promise<T>,
): Promise<T> {
  const lab = new Lab();
  await lab.requireRunning();
  const stack = new LabStack(lab);
  // Its own stack file, brought up to date with the committed one.
  await stack.prepare(await resolveToolchain());
  const [rendered, inventory] = await Promise.all([
    render(stackName, stack.configFile),
    readInventory(stackName),
  ]);
  await using ssh = await connect(stackName, inventory);
  return await work(rendered, inventory, ssh);
}

/** What on machines of the lab is not as rendered. A layer with secrets is left out: what was rendered of it is made up. */
export async function compareWithLab(
  rendered: readonly Rendered[],
  inventory: Inventory,
  ssh: OpenSsh,
): Promise<Finding[]> {
  const compared = rendered.map(async (machine) => {
    const there = machineIn(inventory.machines, machine.machine);
    return (await compareLayers(there, openLayers(machine), ssh)).findings;
  });
  return (await Promise.all(compared)).flat();
}

/**
 * Brings one machine of the lab to what was rendered: its programs, what is copied there, and those of its layers that differ, by
 * the same applier and in the same turn as a deployment. The state learns of it by the next deployment, which then changes nothing.
 *
 * @returns what the applier said
 * @throws with its words when something fails.
 */
export async function applyToLab(
  rendered: Rendered,
  inventory: Inventory,
  ssh: OpenSsh,
  progress: ProgressLine,
): Promise<readonly string[]> {
  const machine = machineIn(inventory.machines, rendered.machine);
  progress.show(`${machine.name}: its programs`);
  await must(ssh, machine, asRoot(machine, "sh -s install"), rendered.programs);
  progress.show(`${machine.name}: comparing`);
  const { differing, failed } = await compareLayers(machine, openLayers(rendered), ssh);
  if (failed.length > 0) throw new Error(failed.map(({ what }) => `${machine.name}: ${what}`).join("\n"));
  if (differing.length === 0) return [`${machine.name} is as rendered.`];
  for (const { source, target } of rendered.copies) {
    // Base64, because what goes through the client is text.
    const content = (await readFile(source)).toString("base64");
    await must(ssh, machine, `base64 -d >${target}`, content);
  }
  const applied = await applyLayers(machine, differing, ssh, progress);
  if (applied.failed) throw new Error(applied.said.join("\n"));
  return applied.said;
}

async function must(ssh: OpenSsh, { name }: InventoryMachine, command: string, input: string): Promise<void> {
  const { exitCode, stderr } = await ssh.run(name, command, { input, timeout: 120 });
  if (exitCode !== 0) throw new Error(`${name}: ${command}: ${stderr.trim()}`);
}

function openLayers({ address, layers }: Rendered): DeployedLayer[] {
  return layers
    .filter(({ manifest }) => manifest.secret !== true)
    .map(({ resource, text }) => ({ resource, address, manifest: text }));
}
