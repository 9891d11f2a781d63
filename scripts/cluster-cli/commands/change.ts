import type { Command } from "commander";
import { drain, renderDrained, renderUndrained, undrain } from "../drain";
import { failover, renderFailedOver } from "../failover";
import { clearRollback, rollback } from "../rollback";
import { scale } from "../scale";
import { explain, seconds, several, whole, within } from "../session";
import { upgrade } from "../upgrade";

/** Commands that change what runs, or where it goes. */
export function changeCommands(program: Command): void {
  const upgradeCommand = program
    .command("upgrade")
    .option("--ref <ref>", "for the engine cosyvoice: commit, tag or branch of CosyVoice to set as app.ref")
    .option("--yes", "do not ask")
    .option("--json", "print JSON: what each real server runs")
    .description("deploy the speech app of this checkout to every real server, in turn")
    .action(({ ref, yes = false, json = false }: { ref?: string; yes?: boolean; json?: boolean }) =>
      within(program, (session) => upgrade(session, { ref, yes, json })),
    );
  upgradeCommand.addHelpText(
    "after",
    `
It previews the change, shows what each real server runs now and will run and
what pulumi would do, asks you, deploys, and shows what each real server runs
then. A release that rollback has pinned is unpinned. The stack file is written
only after you agree; if the preview refuses the change, it stays as it was.
Other changes in this checkout or the stack file that are not deployed yet are
listed and deployed too.`,
  );
  explain(upgradeCommand, {
    exit: "0 every real server runs the wanted version, 1 one does not, 3 you declined",
    examples: [
      "upgrade",
      "upgrade --stack onprem --ref ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40",
      "upgrade --yes",
    ],
  });

  const rollbackCommand = program
    .command("rollback")
    .option(
      "--to <release>",
      "release to go back to (default: the previous one): its digest, or the beginning of it",
    )
    .option("--clear", "go forward again, to the release in app/")
    .option("--yes", "do not ask")
    .description("go back to a release that the real servers still have, and pin it")
    .action(({ to, clear, yes }: { to?: string; clear?: true; yes?: true }) => {
      if (clear && to !== undefined) throw new Error("--clear goes to the release in app/: leave --to out.");
      return within(program, (session) =>
        clear ? clearRollback(session, yes === true) : rollback(session, { to, yes: yes === true }),
      );
    });
  rollbackCommand.addHelpText(
    "after",
    `
It previews the change, shows what pulumi would do, asks you, pins the release
in the stack file (whose comments stay) and deploys. Other changes in this
checkout or the stack file that are not deployed yet are listed and deployed
too.`,
  );
  explain(rollbackCommand, {
    exit: "0 it is done, 3 you declined",
    examples: ["rollback", "rollback --to 4f1c9a --yes --stack onprem", "rollback --clear"],
  });

  const scaleCommand = program
    .command("scale")
    .argument("<number>", "number of real servers wanted", whole(1, 500))
    .option(
      "--add <machine>",
      "on hosts: NAME=ADDRESS of a real server to add, then a space and its SSH host key",
      several,
    )
    .option(
      "--remove <name>",
      "on hosts: a real server to remove (default: the last ones in the list)",
      several,
    )
    .option("--yes", "do not ask")
    .option("--json", "print JSON: the real servers")
    .description("change the number of real servers")
    .action((count: number, options: { add?: string[]; remove?: string[]; yes?: true; json?: true }) =>
      within(program, (session) => {
        const { add = [], remove = [], yes = false, json = false } = options;
        return scale(session, { count, add, remove, yes, json });
      }),
    );
  scaleCommand.addHelpText(
    "after",
    `
On aws the program creates the machines. On hosts you provide them: a new one
needs Debian 12 or Ubuntu 24.04, your SSH key, and its address in the network;
if the others have a hostKey in the stack file, it needs one too (the first
two words of its /etc/ssh/ssh_host_ed25519_key.pub). The command shows which
real servers are added and removed and how many clients move to another one,
previews, asks you, writes the stack file (whose comments stay) and deploys.
Real servers are drained before they are removed. For one that is gone
already, use scripts/cluster forget NAME.`,
  );
  explain(scaleCommand, {
    exit: "0 all of them serve, 1 one does not, 3 you declined",
    examples: [
      "scale 2",
      "scale 4 --add rs-4=192.168.1.104 --stack onprem",
      'scale 4 --add "rs-4=192.168.1.104 ssh-ed25519 AAAAC3..." --stack onprem',
      "scale 2 --remove rs-1 --yes",
      "scale 5 --stack prod",
    ],
  });

  const failoverCommand = program
    .command("failover")
    .option("--force", "move it even if the other director does not send to every real server")
    .option("--json", "print JSON")
    .description("move the VIP to the other director")
    .action(({ force, json }: { force?: true; json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const moved = await failover(inventory, ssh, force === true, progress);
        print(json ? JSON.stringify(moved, undefined, 2) : renderFailedOver(moved));
        return "well";
      }),
    );
  explain(failoverCommand, {
    exit: "0 the VIP has moved",
    examples: ["failover", "failover --stack onprem", "failover --json | jq -r .holder"],
  });

  const drainCommand = program
    .command("drain")
    .argument("<real server>", "its name")
    .option("--reason <text>", "the reason, which scripts/cluster status shows")
    .option("--wait <seconds>", "how long to wait for its queue to empty", seconds, 300)
    .option("--force", "drain it even if it is the last one that serves")
    .option("--json", "print JSON")
    .description("take a real server out of the pool, for example for maintenance; it finishes its queue")
    .action((name: string, options: { reason?: string; wait: number; force?: true; json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const wanted = { reason: options.reason, wait: options.wait, force: options.force === true };
        const drained = await drain(inventory, name, ssh, wanted, progress);
        print(options.json ? JSON.stringify(drained, undefined, 2) : renderDrained(drained));
        return drained.findings.length === 0 ? "well" : "findings";
      }),
    );
  explain(drainCommand, {
    exit: "0 it has finished its queue, 1 it is drained but has not finished",
    examples: [
      'drain rs-2 --reason "new fan"',
      "drain rs-2 --wait 0 --stack onprem",
      "drain rs-2 --json | jq .left",
    ],
  });

  const undrainCommand = program
    .command("undrain")
    .argument("<real server>", "its name")
    .option("--json", "print JSON")
    .description("put a drained real server back into the pool")
    .action((name: string, { json }: { json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const undrained = await undrain(inventory, name, ssh, progress);
        print(json ? JSON.stringify(undrained, undefined, 2) : renderUndrained(undrained));
        return "well";
      }),
    );
  explain(undrainCommand, { exit: "0 it serves", examples: ["undrain rs-2", "undrain rs-2 --json"] });
}
