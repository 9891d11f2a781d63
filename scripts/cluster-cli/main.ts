import { writeFile } from "node:fs/promises";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { drain, undrain } from "./drain";
import { forget } from "./forget";
import { connect, readInventory } from "./inventory";
import { ProgressLine } from "./progress";
import { prove, renderProofs } from "./prove";
import { listReleases, readReleases, renderReleases } from "./releases";
import { clearRollback, rollback } from "./rollback";
import { clusterStatus } from "./status";
import { renderStatus } from "./table";
import { unlock } from "./unlock";

/** Exit codes: what a script can tell from them. */
const EXIT = { well: 0, findings: 1, failed: 2 } as const;

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError("Give a number of seconds, 0 or more.");
  return value;
}

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
  scripts/cluster drain rs-2 --reason "new fan" out of the pool, its queue finished
  scripts/cluster undrain rs-2                  and back
  scripts/cluster rollback                      the speech app's release before this one
  scripts/cluster unlock                        after a pulumi that was killed
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
  .command("drain")
  .argument("<real server>", "its name")
  .option("--reason <text>", "why, for those who look at the status")
  .option("--wait <seconds>", "how long to wait for its queue", seconds, 300)
  .option("--force", "also the last one that serves")
  .description("take a real server out of the pool for work by hand; what it has in its queue is finished")
  .action(async (name: string, options: { reason?: string; wait: number; force?: true }) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    const progress = new ProgressLine();
    try {
      await using ssh = await connect(stack, inventory);
      const wanted = { reason: options.reason, wait: options.wait, force: options.force === true };
      const { text, idle } = await drain(inventory, name, ssh, wanted, progress);
      progress.clear();
      console.log(text);
      process.exitCode = idle ? EXIT.well : EXIT.findings;
    } finally {
      progress.clear();
    }
  });

program
  .command("undrain")
  .argument("<real server>", "its name")
  .description("put a drained real server back into the pool")
  .action(async (name: string) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    const progress = new ProgressLine();
    try {
      await using ssh = await connect(stack, inventory);
      const text = await undrain(inventory, name, ssh, progress);
      progress.clear();
      console.log(text);
    } finally {
      progress.clear();
    }
  });

program
  .command("releases")
  .description("the releases of the speech app that the real servers have")
  .option("--json", "for programs")
  .action(async ({ json }: { json?: true }) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    await using ssh = await connect(stack, inventory);
    const nodes = await readReleases(inventory, ssh);
    console.log(json ? JSON.stringify(listReleases(nodes), undefined, 2) : renderReleases(nodes));
    process.exitCode = nodes.some(({ reason }) => reason !== null) ? EXIT.findings : EXIT.well;
  });

program
  .command("rollback")
  .option("--to <release>", "this one instead of the one before: its digest or the beginning of it")
  .option("--clear", "forward again, to the release in app/")
  .option("--yes", "do not ask")
  .description("go back to a release that the real servers still have, and stay there")
  .action(async ({ to, clear, yes }: { to?: string; clear?: true; yes?: true }) => {
    if (clear && to !== undefined) throw new Error("--clear goes to the release in app/: leave --to out.");
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    const done = clear
      ? await clearRollback(stack, inventory, yes === true)
      : await rollback(stack, inventory, { to, yes: yes === true });
    process.exitCode = done ? EXIT.well : EXIT.failed;
  });

program
  .command("prove")
  .option("--fail-over", "also take the VIP from its holder, without a farewell, and time it")
  .description(
    "on aws: go through what only a real deployment proves, and write a dated report (docs/aws.md)",
  )
  .action(async ({ failOver }: { failOver?: true }) => {
    const { stack } = program.opts<{ stack: string }>();
    const inventory = await readInventory(stack);
    if (inventory.platform !== "aws")
      throw new Error(`Stack "${stack}" is not on aws: scripts/test faults proves the others in the lab.`);
    await using ssh = await connect(stack, inventory);
    const proofs = await prove(inventory, ssh, { failOver: failOver === true });
    const now = Date.now();
    const file = `prove-${stack}-${new Date(now).toISOString().slice(0, 19).replaceAll(":", "")}.md`;
    const report = renderProofs(stack, proofs, now);
    await writeFile(file, report);
    console.log(`${report}\nWritten to ${file}.`);
    process.exitCode = proofs.every(({ holds }) => holds !== false) ? EXIT.well : EXIT.findings;
  });

program
  .command("unlock")
  .option("--force", "also a lock whose holder cannot be seen from here; look there first")
  .description("lift the lock that a killed pulumi left on the stack, and settle what it had begun")
  .action(async ({ force }: { force?: true }) => {
    const { stack } = program.opts<{ stack: string }>();
    const outcome = await unlock(stack, force === true, (line) => console.log(line));
    process.exitCode = outcome === "unlocked" ? EXIT.well : EXIT.findings;
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
