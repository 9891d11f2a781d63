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
    .option("--ref <ref>", "for the engine cosyvoice: a commit, tag or branch of CosyVoice, put into app.ref")
    .option("--yes", "do not ask")
    .option("--json", "for programs: what each real server runs")
    .description("bring every real server to the speech app of this checkout, node by node")
    .action(({ ref, yes = false, json = false }: { ref?: string; yes?: boolean; json?: boolean }) =>
      within(program, (session) => upgrade(session, { ref, yes, json })),
    );
  upgradeCommand.addHelpText(
    "after",
    `
It previews, says what each real server runs and will run and what pulumi
would do, asks, deploys, and ends with what each one runs then. A release that
rollback has pinned is let go. The stack file is written after your yes and
not before; where the preview refuses the change it stays as it was. What else
in this checkout or the stack file waits to be deployed goes along, and is
listed.`,
  );
  explain(upgradeCommand, {
    exit: "0 every real server runs what was wanted, 1 one does not, 3 you said no",
    examples: [
      "upgrade",
      "upgrade --stack onprem --ref ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40",
      "upgrade --yes",
    ],
  });

  const rollbackCommand = program
    .command("rollback")
    .option("--to <release>", "this one instead of the one before: its digest or the beginning of it")
    .option("--clear", "forward again, to the release in app/")
    .option("--yes", "do not ask")
    .description("go back to a release that the real servers still have, and stay there")
    .action(({ to, clear, yes }: { to?: string; clear?: true; yes?: true }) => {
      if (clear && to !== undefined) throw new Error("--clear goes to the release in app/: leave --to out.");
      return within(program, (session) =>
        clear ? clearRollback(session, yes === true) : rollback(session, { to, yes: yes === true }),
      );
    });
  rollbackCommand.addHelpText(
    "after",
    `
It previews, says what pulumi would do, asks, pins the release in the stack
file (its comments stay) and deploys. What else in this checkout or the stack
file waits to be deployed goes along, and is listed.`,
  );
  explain(rollbackCommand, {
    exit: "0 it is done, 3 you said no",
    examples: ["rollback", "rollback --to 4f1c9a --yes --stack onprem", "rollback --clear"],
  });

  const scaleCommand = program
    .command("scale")
    .argument("<number>", "how many real servers there shall be", whole(1, 500))
    .option(
      "--add <machine>",
      "on hosts: NAME=ADDRESS of one that comes, and its SSH host key after a blank",
      several,
    )
    .option("--remove <name>", "on hosts: one that goes (default: the last ones of the list)", several)
    .option("--yes", "do not ask")
    .option("--json", "for programs: the real servers")
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
On aws the program makes the machines. On hosts they are yours: a new one
needs Debian 12 or Ubuntu 24.04, your SSH key, and its place in the network;
where the others have a hostKey in the stack file, it needs its own (the first
two words of its /etc/ssh/ssh_host_ed25519_key.pub). It says who comes, who
goes and how many clients meet another real server, previews, asks, writes the
stack file (its comments stay) and deploys. Who goes is drained first. One
that is gone already: scripts/cluster forget NAME.`,
  );
  explain(scaleCommand, {
    exit: "0 all of them serve, 1 one does not, 3 you said no",
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
    .option("--force", "also when the other director does not send to every real server")
    .option("--json", "for programs")
    .description("have the other director take the VIP")
    .action(({ force, json }: { force?: true; json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const moved = await failover(inventory, ssh, force === true, progress);
        print(json ? JSON.stringify(moved, undefined, 2) : renderFailedOver(moved));
        return "well";
      }),
    );
  explain(failoverCommand, {
    exit: "0 it has moved",
    examples: ["failover", "failover --stack onprem", "failover --json | jq -r .holder"],
  });

  const drainCommand = program
    .command("drain")
    .argument("<real server>", "its name")
    .option("--reason <text>", "why, for those who look at the status")
    .option("--wait <seconds>", "how long to wait for its queue", seconds, 300)
    .option("--force", "also the last one that serves")
    .option("--json", "for programs")
    .description("take a real server out of the pool for work by hand; what it has in its queue is finished")
    .action((name: string, options: { reason?: string; wait: number; force?: true; json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const wanted = { reason: options.reason, wait: options.wait, force: options.force === true };
        const drained = await drain(inventory, name, ssh, wanted, progress);
        print(options.json ? JSON.stringify(drained, undefined, 2) : renderDrained(drained));
        return drained.findings.length === 0 ? "well" : "findings";
      }),
    );
  explain(drainCommand, {
    exit: "0 it has nothing left to do, 1 it is drained and still works",
    examples: [
      'drain rs-2 --reason "new fan"',
      "drain rs-2 --wait 0 --stack onprem",
      "drain rs-2 --json | jq .left",
    ],
  });

  const undrainCommand = program
    .command("undrain")
    .argument("<real server>", "its name")
    .option("--json", "for programs")
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
