import { Command, CommanderError } from "commander";
import { forget } from "./forget";
import { connect, readInventory } from "./inventory";
import { clusterStatus } from "./status";
import { renderStatus } from "./table";

/** Exit codes: what a script can tell from them. */
const EXIT = { well: 0, findings: 1, failed: 2 } as const;

const program = new Command("scripts/cluster")
  .description("Shows and repairs a deployed cluster.")
  .option("-s, --stack <name>", "the stack", process.env.PULUMI_STACK ?? "lab")
  .exitOverride()
  .addHelpText(
    "after",
    `
Exit status: 0 all is well, 1 there are findings, 2 the command failed.

Examples:
  scripts/cluster status                        the lab
  scripts/cluster status --stack onprem --json
  scripts/cluster forget rs-2 --stack onprem    rs-2 is gone for good`,
  );

program
  .command("status")
  .description("who holds the VIP, and who serves")
  .option("--json", "for programs")
  .action(async ({ json }: { json?: true }) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    await using ssh = await connect(stack, inventory);
    const status = await clusterStatus(inventory, ssh);
    console.log(json ? JSON.stringify(status, undefined, 2) : renderStatus(status));
    process.exitCode = status.findings.length === 0 ? EXIT.well : EXIT.findings;
  });

program
  .command("forget")
  .argument("<machine>", "its name")
  .description("take a machine that is gone for good out of the stack's state, without contacting it")
  .action(async (name: string) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    const machine = inventory.machines.find((candidate) => candidate.name === name);
    if (!machine) {
      const names = inventory.machines.map((candidate) => candidate.name).join(", ");
      throw new Error(`Stack "${stack}" has no machine "${name}". It has: ${names}.`);
    }
    const gone = await forget(stack, machine.address);
    if (gone.length === 0) process.exitCode = EXIT.findings;
    console.log(
      gone.length === 0
        ? `The state of "${stack}" has nothing of ${name}.`
        : `Forgotten: ${gone.join(", ")}.`,
    );
    console.log(
      `Take ${name} out of Pulumi.${stack}.yaml too, then deploy: the others learn that it is gone.`,
    );
  });

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.well : EXIT.failed;
  } else {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = EXIT.failed;
  }
}
