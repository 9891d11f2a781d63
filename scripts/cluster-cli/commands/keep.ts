import { writeFile } from "node:fs/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { PARTS } from "../archive";
import { type BackupOptions, backup } from "../backup";
import { forget } from "../forget";
import { readInventory } from "../inventory";
import { ProgressLine } from "../progress";
import { prove, renderProofs } from "../prove";
import { type Part, restore } from "../restore";
import { machineIn } from "../run";
import { EXIT, explain, namingStack, stackOf, within } from "../session";
import { unlock } from "../unlock";

/** Commands about what is known of a stack: its state, its configuration, its proofs. */
export function keepCommands(program: Command): void {
  const backupCommand = program
    .command("backup")
    .option("-o, --output <file>", "where it goes (default: cosyvoice-STACK-TIME.tar.gz here)")
    .addOption(
      new Option("--share <what>", "of the share: saved voices, results and logs too, or nothing")
        .choices(["voices", "all", "none"])
        .default("voices"),
    )
    .option("--json", "for programs")
    .description("pack what is not in git: the state, the stack file, the voices that users saved")
    .action(({ output, share, json }: BackupOptions & { json?: true }) =>
      within(program, async (session) => {
        const { file, manifest } = await backup(session, { output, share });
        session.progress.clear();
        const count = Object.keys(manifest.files).length;
        console.log(
          json
            ? JSON.stringify({ file, ...manifest }, undefined, 2)
            : `${file}: ${count} files of the stack ${manifest.stack}, ${count - 2} of them from the share.\n` +
                "Its secrets are as encrypted as in the state: keep the stack's passphrase (or key) elsewhere, without it they are lost.",
        );
        return "well";
      }),
    );
  explain(backupCommand, {
    exit: "0 the archive is whole",
    examples: [
      "backup --stack onprem",
      "backup --share all -o /mnt/backup/cosyvoice.tar.gz",
      "backup --share none --json",
    ],
  });

  const restoreCommand = program
    .command("restore")
    .argument("<archive>", "a file that backup has made")
    .option("--only <parts>", `some of ${Object.keys(PARTS).join(", ")}, with commas`, parts)
    .option("--check", "compare it with its manifest and with what is there, and change nothing")
    .option("--yes", "do not ask")
    .option("--json", "for programs: what would be overwritten")
    .description("put back what backup has packed, after saying what that overwrites")
    .action(async (archive: string, options: { only?: Part[]; check?: true; yes?: true; json?: true }) => {
      const progress = new ProgressLine();
      const { only, check = false, yes = false, json = false } = options;
      try {
        const outcome = await restore(stackOf(program), archive, { only, check, yes, json }, progress);
        process.exitCode = EXIT[outcome];
      } finally {
        progress.clear();
      }
    });
  restoreCommand.addHelpText(
    "after",
    `
An archive that differs from its manifest, or is another stack's, is refused.
Files that only the share has stay. On a new computer: pulumi stack init STACK
with the passphrase that the stack had, restore --only config,state, and then
the share.`,
  );
  explain(restoreCommand, {
    exit: "0 it is put back, 1 --check found differences, 3 you said no",
    examples: [
      "restore cosyvoice-onprem-20260131T030000.tar.gz --check --stack onprem",
      "restore cosyvoice-lab-20260131T030000.tar.gz --only share --yes",
    ],
  });

  const unlockCommand = program
    .command("unlock")
    .option("--force", "also a lock whose holder cannot be seen from here; look there first")
    .description("lift the lock that a killed pulumi left on the stack, and settle what it had begun")
    .action(async ({ force }: { force?: true }) => {
      const stack = stackOf(program);
      const outcome = await unlock(stack, force === true, (line) => console.log(namingStack(line, stack)));
      process.exitCode = outcome === "unlocked" ? EXIT.well : EXIT.findings;
    });
  explain(unlockCommand, {
    exit: "0 the stack is not locked (any more), 1 a lock was kept",
    examples: ["unlock", "unlock --stack onprem --force"],
  });

  const forgetCommand = program
    .command("forget")
    .argument("<machine>", "its name")
    .description("take a machine that is gone for good out of the stack's state, without contacting it")
    .action(async (name: string) => {
      const stack = stackOf(program);
      const inventory = await readInventory(stack);
      const gone = await forget(stack, machineIn(inventory.machines, name).address);
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
  explain(forgetCommand, {
    exit: "0 it is forgotten, 1 the state had nothing of it",
    examples: ["forget rs-2 --stack onprem"],
  });

  const proveCommand = program
    .command("prove")
    .option("--fail-over", "also take the VIP from its holder, without a farewell, and time it")
    .description(
      "on aws: go through what only a real deployment proves, and write a dated report (docs/aws.md)",
    )
    .action(({ failOver }: { failOver?: true }) =>
      within(program, async ({ stack, inventory, ssh, progress }) => {
        if (inventory.platform !== "aws")
          throw new Error(
            `Stack "${stack}" is not on aws: scripts/test faults proves the others in the lab.`,
          );
        progress.show("going through the proofs");
        const proofs = await prove(inventory, ssh, { failOver: failOver === true });
        progress.clear();
        const now = Date.now();
        const file = `prove-${stack}-${new Date(now).toISOString().slice(0, 19).replaceAll(":", "")}.md`;
        const report = namingStack(renderProofs(stack, proofs, now), stack);
        await writeFile(file, report);
        console.log(`${report}\nWritten to ${file}.`);
        return proofs.every(({ holds }) => holds !== false) ? "well" : "findings";
      }),
    );
  explain(proveCommand, {
    exit: "0 everything holds, 1 something does not",
    examples: ["prove --stack prod", "prove --stack prod --fail-over"],
  });
}

/** An option's argument: parts of an archive. */
function parts(text: string): Part[] {
  const names = text.split(",").map((name) => name.trim());
  const wrong = names.filter((name) => !(name in PARTS));
  if (wrong.length > 0) throw new InvalidArgumentError(`Give some of: ${Object.keys(PARTS).join(", ")}.`);
  return names as Part[];
}
