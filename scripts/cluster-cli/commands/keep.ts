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
    .option(
      "-o, --output <file>",
      "archive to write (default: cosyvoice-STACK-TIME.tar.gz in this directory)",
    )
    .addOption(
      new Option(
        "--share <what>",
        "what to take from the share: saved voices, all (also results and logs), or nothing",
      )
        .choices(["voices", "all", "none"])
        .default("voices"),
    )
    .option("--json", "print JSON")
    .description("save what is not in git to an archive: the state, the stack file, the users' voices")
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
    exit: "0 the archive is complete",
    examples: [
      "backup --stack onprem",
      "backup --share all -o /mnt/backup/cosyvoice.tar.gz",
      "backup --share none --json",
    ],
  });

  const restoreCommand = program
    .command("restore")
    .argument("<archive>", "an archive that scripts/cluster backup wrote")
    .option(
      "--only <parts>",
      `only these parts, separated by commas: ${Object.keys(PARTS).join(", ")}`,
      parts,
    )
    .option("--check", "compare the archive with its manifest and with what is there; change nothing")
    .option("--yes", "do not ask")
    .option("--json", "print JSON: what would be overwritten")
    .description("restore an archive, after showing what that overwrites")
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
An archive that differs from its manifest, or belongs to another stack, is
refused. Files on the share that the archive does not have are kept. On a new
computer, run pulumi stack init STACK with the stack's old passphrase, then
restore --only config,state, then restore --only share.`,
  );
  explain(restoreCommand, {
    exit: "0 it is restored, 1 --check found differences, 3 you declined",
    examples: [
      "restore cosyvoice-onprem-20260131T030000.tar.gz --check --stack onprem",
      "restore cosyvoice-lab-20260131T030000.tar.gz --only share --yes",
    ],
  });

  const unlockCommand = program
    .command("unlock")
    .option("--force", "also lift a lock whose holder cannot be seen from this computer; look there first")
    .description("lift the lock that a killed pulumi left on the stack, and settle unfinished operations")
    .action(async ({ force }: { force?: true }) => {
      const stack = stackOf(program);
      const outcome = await unlock(stack, force === true, (line) => console.log(namingStack(line, stack)));
      process.exitCode = outcome === "unlocked" ? EXIT.well : EXIT.findings;
    });
  explain(unlockCommand, {
    exit: "0 the stack is not locked (any more), 1 a lock was left in place",
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
    .option("--fail-over", "also kill keepalived on the director with the VIP, and time the failover")
    .description(
      "on aws: check what only a real deployment can prove, and write a dated report (docs/aws.md)",
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
