import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { diagnose, renderDiagnosis, repair } from "../doctor";
import { deployedLayers } from "../layers";
import { followLogs, type LogLine, readLogs, renderLogs } from "../logs";
import { listReleases, readReleases, renderReleases } from "../releases";
import { explain, ipv4, namingStack, seconds, since, within } from "../session";
import { exportState } from "../state";
import { clusterStatus } from "../status";
import { renderStatus } from "../table";
import { renderTrace, trace } from "../trace";
import { renderWhere, where } from "../where";

/** Commands that change nothing, but for what `doctor --repair` puts back. */
export function lookCommands(program: Command): void {
  const status = program
    .command("status")
    .description("show who holds the VIP, who serves and what they run; certificate, GPUs and alerts, if any")
    .option("--json", "print JSON")
    .action(({ json }: { json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        progress.show("asking the machines");
        const found = await clusterStatus(inventory, ssh);
        print(json ? JSON.stringify(found, undefined, 2) : renderStatus(found));
        return found.findings.length === 0 ? "well" : "findings";
      }),
    );
  explain(status, {
    exit: "0 all is well, 1 there are findings (alerts alone do not count)",
    examples: ["status", "status --stack onprem", "status --json | jq -r .holder"],
  });

  const watch = program
    .command("watch")
    .option("--every <seconds>", "pause between two updates", seconds, 2)
    .description("show the status again and again")
    .action(({ every }: { every: number }) =>
      within(program, async ({ stack, inventory, ssh, progress }) => {
        progress.show("asking the machines");
        for (;;) {
          const text = namingStack(renderStatus(await clusterStatus(inventory, ssh)), stack);
          progress.clear();
          // To the upper left, and each line's rest and what is below it away: without a flicker.
          if (process.stdout.isTTY)
            process.stdout.write(`\u001b[H${text.replaceAll("\n", "\u001b[K\n")}\u001b[K\n\u001b[J`);
          else console.log(`${new Date().toISOString()}\n${text}\n`);
          await sleep(every * 1000);
        }
      }),
    );
  explain(watch, {
    exit: "130 when Ctrl-C ended it",
    examples: ["watch", "watch --every 10 --stack onprem"],
  });

  const doctor = program
    .command("doctor")
    .option("--repair", "put back what differs, one machine at a time")
    .option("--json", "print JSON")
    .description("compare every machine with what was deployed, and look for other faults")
    .action(({ repair: mend, json }: { repair?: true; json?: true }) =>
      within(program, async ({ stack, inventory, ssh, progress, print }) => {
        progress.show("reading what was deployed");
        const layers = deployedLayers((await exportState(stack, true)).deployment.resources ?? []);
        let diagnosis = await diagnose(inventory, layers, ssh, progress);
        if (mend && diagnosis.differing.size > 0) {
          const said = await repair(inventory, diagnosis, ssh, progress);
          progress.clear();
          console.error(namingStack(said.join("\n"), stack));
          diagnosis = await diagnose(inventory, layers, ssh, progress);
        }
        const { findings, notes } = diagnosis;
        print(
          json
            ? JSON.stringify({ findings, notes }, undefined, 2)
            : renderDiagnosis(diagnosis, inventory.machines.length),
        );
        return findings.length === 0 ? "well" : "findings";
      }),
    );
  explain(doctor, {
    exit: "0 there are no findings (any more), 1 there are findings",
    examples: ["doctor", "doctor --repair --stack onprem", "doctor --json | jq -r '.findings[].fix'"],
  });

  const logs = program
    .command("logs")
    .argument("[machine]", "its name (default: all machines)")
    .option("--request <id>", "only lines about this request: the X-Request-Id of its answer")
    .option("--since <when>", "10m, 2h, 1d, or a time such as 2026-01-31T03:00Z (default: 15m)", since)
    .option("--follow", "keep printing new lines")
    .option("--json", "print JSON, one object per line")
    .description("show the machines' logs, merged by time")
    .action(
      (
        machine: string | undefined,
        options: { request?: string; since?: number; follow?: true; json?: true },
      ) =>
        within(program, async ({ inventory, ssh, progress }) => {
          const show = (lines: readonly LogLine[]) => {
            progress.clear();
            if (lines.length > 0)
              console.log(
                options.json
                  ? lines.map((line) => JSON.stringify(line)).join("\n")
                  : renderLogs(lines, inventory),
              );
          };
          const wanted = { machine, request: options.request, since: options.since ?? since("15m") };
          progress.show("reading the logs");
          const complain = (missing: readonly string[]) => {
            progress.clear();
            for (const reason of missing) console.error(reason);
          };
          if (options.follow) await followLogs(inventory, ssh, wanted, show, complain);
          const { lines, missing } = await readLogs(inventory, ssh, wanted);
          show(lines);
          complain(missing);
          return missing.length > 0 || lines.length === 0 ? "findings" : "well";
        }),
    );
  explain(logs, {
    exit: "0 there are lines, 1 there are none, or a machine did not answer",
    examples: ["logs --since 1h", "logs director-1 --follow", "logs --request 1f0c2e9a"],
  });

  const whereCommand = program
    .command("where")
    .argument("<client>", "its IPv4 address", ipv4)
    .description("show which real server a client's new connections go to, and its open connections")
    .option("--json", "print JSON")
    .action((client: string, { json }: { json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        progress.show("asking the directors");
        const found = await where(inventory, ssh, client);
        print(json ? JSON.stringify(found, undefined, 2) : renderWhere(found));
        return "well";
      }),
    );
  explain(whereCommand, {
    exit: "0 it was found",
    examples: [
      "where 192.168.1.201",
      "where 10.20.3.4 --stack prod",
      "where 10.20.3.4 --json | jq -r .realServer.name",
    ],
  });

  const traceCommand = program
    .command("trace")
    .option("--from <address>", "an address of the client machine to ask from", ipv4)
    .option("--json", "print JSON")
    .description("send one request, capture it on all machines at once, and show its path hop by hop")
    .action(({ from, json }: { from?: string; json?: true }) =>
      within(program, async ({ inventory, ssh, progress, print }) => {
        const found = await trace(inventory, ssh, from, progress);
        print(json ? JSON.stringify(found, undefined, 2) : renderTrace(found));
        const { verdict, missing } = found;
        return verdict.findings.length + missing.length === 0 ? "well" : "findings";
      }),
    );
  traceCommand.addHelpText(
    "after",
    `
The request is GET /healthz, sent with curl from the stack's client machine
(verification.client) or, without one, from this computer. Every director,
every real server and the client run tcpdump meanwhile, for this connection
only. A machine without tcpdump is named; nothing is installed.`,
  );
  explain(traceCommand, {
    exit: "0 the path is as it should be, 1 it is not, or a machine could not capture",
    examples: ["trace", "trace --from 192.168.1.201", "trace --json | jq .verdict"],
  });

  const releases = program
    .command("releases")
    .description("show the releases of the speech app that the real servers have")
    .option("--json", "print JSON")
    .action(({ json }: { json?: true }) =>
      within(program, async ({ inventory, ssh, progress }) => {
        progress.show("asking the real servers");
        const nodes = await readReleases(inventory, ssh);
        progress.clear();
        console.log(json ? JSON.stringify(listReleases(nodes), undefined, 2) : renderReleases(nodes));
        return nodes.some(({ reason }) => reason !== null) ? "findings" : "well";
      }),
    );
  explain(releases, {
    exit: "0 all real servers answered, 1 one did not",
    examples: ["releases", "releases --stack onprem --json"],
  });
}
