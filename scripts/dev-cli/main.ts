import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { said } from "../../lab/errors";
import { stackName as LAB } from "../../lab/stack";
import { ProgressLine } from "../cluster-cli/progress";
import { endWithReader } from "../lib/ending";
import { repository } from "../lib/paths";
import { diffAgainst } from "./diff";
import { applyToLab, compareWithLab, withLab } from "./lab";
import { type Rendered, render, renderedMachine } from "./render";
import { fileText, renderedText, writeTree } from "./texts";

interface RenderOptions {
  readonly stack: string;
  readonly file?: string;
  readonly into?: string;
}

interface DiffOptions {
  readonly stack: string;
  readonly against: string;
  readonly lab?: true;
}

/** What the committed file of a stack comes to. */
function rendered(stack: string): Promise<Rendered[]> {
  return render(stack, join(repository, `Pulumi.${stack}.yaml`));
}

function chosen(all: readonly Rendered[], name: string | undefined): readonly Rendered[] {
  return name === undefined ? all : [renderedMachine(all, name)];
}

async function show(name: string | undefined, { stack, file, into }: RenderOptions): Promise<void> {
  if (file !== undefined && name === undefined)
    throw new Error(`--file ${file} is a file of one machine: name the machine.`);
  const machines = chosen(await rendered(stack), name);
  if (into !== undefined) await writeTree(into, machines);
  else if (file !== undefined) for (const machine of machines) process.stdout.write(fileText(machine, file));
  else console.log(machines.map(renderedText).join("\n"));
}

async function diff(name: string | undefined, { stack, against, lab }: DiffOptions): Promise<void> {
  if (!lab) {
    if (await diffAgainst(against, stack, chosen(await rendered(stack), name), name)) process.exitCode = 1;
    else console.log(`Every machine gets the same as from ${against}.`);
    return;
  }
  const findings = await withLab((all, inventory, ssh) => compareWithLab(chosen(all, name), inventory, ssh));
  for (const { machine, what } of findings) console.log(`${machine}: ${what}`);
  if (findings.length > 0) process.exitCode = 1;
  else console.log("The lab's machines are as rendered.");
}

async function apply(name: string): Promise<void> {
  const start = performance.now();
  const progress = new ProgressLine();
  const said = await withLab((all, inventory, ssh) =>
    applyToLab(renderedMachine(all, name), inventory, ssh, progress),
  );
  progress.clear();
  console.log([...said, `${((performance.now() - start) / 1000).toFixed(1)} s`].join("\n"));
}

const program = new Command("scripts/dev")
  .description(
    "For work on this repository: render what machines get, compare it, and apply it to a machine of the lab. Deploys nothing.",
  )
  .exitOverride()
  .addHelpText(
    "after",
    `
Exit status: 0 all is well, 1 something differs, 2 the command failed.

Examples:
  scripts/dev render director-1                                            everything that the lab's director-1 gets
  scripts/dev render director-1 --file /etc/keepalived/keepalived.conf     one file
  scripts/dev diff                                                         what this working tree changes compared with HEAD
  scripts/dev diff rs-1 --lab                                              what apply would change on the lab's rs-1
  scripts/dev apply director-2                                             apply it to the lab's director-2`,
  );

program
  .command("render")
  .argument("[machine]", "its name (default: all machines)")
  .option("-s, --stack <name>", "stack whose Pulumi.NAME.yaml is read", LAB)
  .option("--file <path>", "print only this file of the machine")
  .option("--into <directory>", "write the files into this directory, one subdirectory per machine")
  .description("show what a deployment would put on machines")
  .action(show);

program
  .command("diff")
  .argument("[machine]", "its name (default: all machines)")
  .option("-s, --stack <name>", "stack whose Pulumi.NAME.yaml is read", LAB)
  .option("--against <commit>", "commit to compare with, which is rendered with its own stack file", "HEAD")
  .option("--lab", "compare with what is on the machines of the running lab")
  .description("show how that differs from what a commit renders, or from what the lab has")
  .action(diff);

program
  .command("apply")
  .argument("<machine>", "its name")
  .description("apply it to one machine of the running lab, as a deployment would")
  .action(apply);

endWithReader();
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(said(error));
    process.exitCode = 2;
  }
}
