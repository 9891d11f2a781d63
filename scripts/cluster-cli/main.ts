import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import type { OpenSsh } from "../../components/remote/openssh";
import { diagnose, renderDiagnosis, repair } from "./doctor";
import { drain, undrain } from "./drain";
import { failover } from "./failover";
import { forget } from "./forget";
import { connect, type Inventory, readInventory } from "./inventory";
import { deployedLayers } from "./layers";
import { followLogs, type LogLine, parseSince, readLogs, renderLogs } from "./logs";
import { ProgressLine } from "./progress";
import { prove, renderProofs } from "./prove";
import { listReleases, readReleases, renderReleases } from "./releases";
import { clearRollback, rollback } from "./rollback";
import { machineIn } from "./run";
import { speak } from "./speak";
import { exportState } from "./state";
import { clusterStatus } from "./status";
import { renderStatus } from "./table";
import { unlock } from "./unlock";
import { where } from "./where";

/** Exit codes: what a script can tell from them. */
const EXIT = { well: 0, findings: 1, failed: 2 } as const;

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0)
    throw new InvalidArgumentError("Give a number of seconds, 0 or more.");
  return value;
}

function since(text: string): number {
  const moment = parseSince(text, Date.now() / 1000);
  if (moment === undefined) throw new InvalidArgumentError("Give a span such as 10m, 2h or 1d, or a moment.");
  return moment;
}

/** What a command works with: the stack's machines, a way to them, and a line for its progress. */
interface Session {
  readonly stack: string;
  readonly inventory: Inventory;
  readonly ssh: OpenSsh;
  readonly progress: ProgressLine;
}

/** Opens a session for a command and ends it, whatever happens. */
async function within<T>(work: (session: Session) => Promise<T>): Promise<T> {
  const { stack } = program.opts<{ stack: string }>();
  const inventory = await readInventory(stack);
  const progress = new ProgressLine();
  try {
    await using ssh = await connect(stack, inventory);
    return await work({ stack, inventory, ssh, progress });
  } finally {
    progress.clear();
  }
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
  scripts/cluster doctor                        what is not as it was deployed, and how to mend it
  scripts/cluster logs --request ID             one request, on every machine that had to do with it
  scripts/cluster speak "Is anybody there?"     a sentence through the VIP
  scripts/cluster where 192.168.1.201           which real server that client meets
  scripts/cluster failover                      the VIP to the other director
  scripts/cluster ssh rs-1 -- nvidia-smi        a command on a machine
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
  .action(({ json }: { json?: true }) =>
    within(async ({ inventory, ssh }) => {
      const status = await clusterStatus(inventory, ssh);
      console.log(json ? JSON.stringify(status, undefined, 2) : renderStatus(status));
      process.exitCode = status.findings.length === 0 ? EXIT.well : EXIT.findings;
    }),
  );

program
  .command("watch")
  .option("--every <seconds>", "pause between two looks", seconds, 2)
  .description("the status, again and again")
  .action(({ every }: { every: number }) =>
    within(async ({ inventory, ssh }) => {
      for (;;) {
        const text = renderStatus(await clusterStatus(inventory, ssh));
        // To the upper left, and each line's rest and what is below it away: without a flicker.
        if (process.stdout.isTTY)
          process.stdout.write(`\u001b[H${text.replaceAll("\n", "\u001b[K\n")}\u001b[K\n\u001b[J`);
        else console.log(`${new Date().toISOString()}\n${text}\n`);
        await sleep(every * 1000);
      }
    }),
  );

program
  .command("doctor")
  .option("--repair", "put back what differs from the state, each machine in its turn")
  .option("--json", "for programs")
  .description("compare every machine with what was deployed, and look for what else can be wrong")
  .action(({ repair: mend, json }: { repair?: true; json?: true }) =>
    within(async ({ stack, inventory, ssh, progress }) => {
      const layers = deployedLayers((await exportState(stack, true)).deployment.resources ?? []);
      let diagnosis = await diagnose(inventory, layers, ssh, progress);
      if (mend && diagnosis.differing.size > 0) {
        const said = await repair(inventory, diagnosis, ssh, progress);
        progress.clear();
        console.error(said.join("\n"));
        diagnosis = await diagnose(inventory, layers, ssh, progress);
      }
      progress.clear();
      const { findings, notes } = diagnosis;
      console.log(
        json
          ? JSON.stringify({ findings, notes }, undefined, 2)
          : renderDiagnosis(diagnosis, inventory.machines.length),
      );
      process.exitCode = findings.length === 0 ? EXIT.well : EXIT.findings;
    }),
  );

program
  .command("logs")
  .argument("[machine]", "its name; all of them without")
  .option("--request <id>", "only what has to do with this request: the X-Request-Id of its answer")
  .option("--since <when>", "10m, 2h, 1d, or a moment such as 2026-01-31T03:00Z (default: 15m)", since)
  .option("--follow", "go on with what comes")
  .option("--json", "for programs: a line each")
  .description("what the machines say, in the order of time")
  .action(
    (
      machine: string | undefined,
      options: { request?: string; since?: number; follow?: true; json?: true },
    ) =>
      within(async ({ inventory, ssh }) => {
        const show = (lines: readonly LogLine[]) => {
          if (lines.length > 0)
            console.log(
              options.json
                ? lines.map((line) => JSON.stringify(line)).join("\n")
                : renderLogs(lines, inventory),
            );
        };
        const wanted = { machine, request: options.request, since: options.since ?? since("15m") };
        if (options.follow) await followLogs(inventory, ssh, wanted, show);
        const { lines, missing } = await readLogs(inventory, ssh, wanted);
        show(lines);
        for (const reason of missing) console.error(reason);
        process.exitCode = missing.length > 0 || lines.length === 0 ? EXIT.findings : EXIT.well;
      }),
  );

program
  .command("speak")
  .argument("<text>", "what is to be said")
  .option("-o, --output <file>", "where the audio goes", "speech.wav")
  .option("--voice <id>", "one of GET /v1/voices")
  .option("--seed <number>", "1 to 100000000", Number)
  .option("--fresh", "have it spoken even if the result is there already")
  .description("have a sentence said through the VIP")
  .action((text: string, options: { output: string; voice?: string; seed?: number; fresh?: true }) =>
    within(async ({ inventory, ssh }) => {
      const { voice, seed } = options;
      const spoken = await speak(inventory, ssh, text, { voice, seed, cache: options.fresh !== true });
      await writeFile(options.output, spoken.audio);
      const how = spoken.cache === "hit" ? "found" : "made";
      console.log(
        `${options.output}: ${spoken.seconds.toFixed(1)} s of audio, ${how} by ${spoken.node} in ${spoken.took.toFixed(1)} s. ` +
          `More: scripts/cluster logs --request ${spoken.request}`,
      );
    }),
  );

program
  .command("where")
  .argument("<client>", "its IPv4 address")
  .description("the real server that a client's connections go to, computed as the kernel does")
  .action((client: string) =>
    within(async ({ inventory, ssh }) => console.log(await where(inventory, ssh, client))),
  );

program
  .command("failover")
  .option("--force", "also when the other director does not send to every real server")
  .description("have the other director take the VIP")
  .action(({ force }: { force?: true }) =>
    within(async ({ inventory, ssh, progress }) => {
      const text = await failover(inventory, ssh, force === true, progress);
      progress.clear();
      console.log(text);
    }),
  );

program
  .command("ssh")
  .argument("<machine>", "its name")
  .argument("[command...]", "what to run there, after a --; a shell without")
  .description("log in to a machine, its host key checked")
  .action((name: string, command: string[]) =>
    within(async ({ inventory, ssh }) => {
      process.exitCode = await ssh.session(machineIn(inventory.machines, name).name, command);
    }),
  );

program
  .command("drain")
  .argument("<real server>", "its name")
  .option("--reason <text>", "why, for those who look at the status")
  .option("--wait <seconds>", "how long to wait for its queue", seconds, 300)
  .option("--force", "also the last one that serves")
  .description("take a real server out of the pool for work by hand; what it has in its queue is finished")
  .action((name: string, options: { reason?: string; wait: number; force?: true }) =>
    within(async ({ inventory, ssh, progress }) => {
      const wanted = { reason: options.reason, wait: options.wait, force: options.force === true };
      const { text, idle } = await drain(inventory, name, ssh, wanted, progress);
      progress.clear();
      console.log(text);
      process.exitCode = idle ? EXIT.well : EXIT.findings;
    }),
  );

program
  .command("undrain")
  .argument("<real server>", "its name")
  .description("put a drained real server back into the pool")
  .action((name: string) =>
    within(async ({ inventory, ssh, progress }) => {
      const text = await undrain(inventory, name, ssh, progress);
      progress.clear();
      console.log(text);
    }),
  );

program
  .command("releases")
  .description("the releases of the speech app that the real servers have")
  .option("--json", "for programs")
  .action(({ json }: { json?: true }) =>
    within(async ({ inventory, ssh }) => {
      const nodes = await readReleases(inventory, ssh);
      console.log(json ? JSON.stringify(listReleases(nodes), undefined, 2) : renderReleases(nodes));
      process.exitCode = nodes.some(({ reason }) => reason !== null) ? EXIT.findings : EXIT.well;
    }),
  );

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
