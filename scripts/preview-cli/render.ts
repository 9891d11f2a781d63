import pc from "picocolors";
import { columns } from "../cluster-cli/table";
import { type BlastRadius, blastRadius, type Effect, type MachineRadius } from "../lib/blastRadius";
import { condense } from "./condense";
import type { Previewed } from "./run";

const COLOURS: Record<Effect, (text: string) => string> = {
  nothing: pc.dim,
  reload: pc.green,
  restart: pc.yellow,
  drain: pc.red,
};

/**
 * A preview for a terminal: the blast radius, then the diff.
 *
 * @param full the whole diff, with what stays as it is
 */
export function renderText(stack: string, preview: Previewed, full = false): string {
  return `${renderRadius(stack, preview)}\n\n${full ? preview.diff : condense(preview.diff)}`;
}

/** What a preview says of machines and clients, for a terminal. */
export function renderRadius(stack: string, preview: Previewed): string {
  const radius = blastRadius(preview.steps);
  const rows = radius.machines.map((machine) => [
    machine.machine,
    COLOURS[machine.effect](happening(machine)),
    machine.because.join("; "),
  ]);
  return [
    pc.bold(headline(stack, radius, preview)),
    "",
    ...(rows.length === 0 ? [] : [...columns([["MACHINE", "WHAT HAPPENS", "BECAUSE"], ...rows]), ""]),
    ...remarks(radius).map((line) => `- ${line}`),
    ...verdict(preview),
  ].join("\n");
}

/** By which a program finds the comment of a stack among those of a pull request. */
export function marker(stack: string): string {
  return `<!-- cosyvoice-lvs preview of ${stack} -->`;
}

/** Characters that a comment may have on GitHub, with room for what stands around the diff. */
const LONGEST_COMMENT = 60_000;

/** A preview as the comment of a pull request: the blast radius, and the diff below a fold. */
export function renderMarkdown(stack: string, preview: Previewed): string {
  const radius = blastRadius(preview.steps);
  const head = [
    marker(stack),
    `### ${headline(stack, radius, preview)}`,
    "",
    ...(radius.machines.some(({ change }) => change !== "unchanged") ? [...table(radius.machines), ""] : []),
    ...remarks(radius).map((line) => `- ${line}`),
    ...verdict(preview),
    "",
    "",
  ].join("\n");
  return `${head}${folded(inFirstColumn(condense(preview.diff)), LONGEST_COMMENT - head.length)}\n`;
}

function table(machines: readonly MachineRadius[]): string[] {
  const changed = machines.filter(({ change }) => change !== "unchanged");
  const rest = machines.filter(({ change }) => change === "unchanged").map(({ machine }) => `\`${machine}\``);
  const cell = (text: string) => text.replaceAll("|", "\\|");
  return [
    "| machine | what happens | because |",
    "|---|---|---|",
    ...changed.map(
      (machine) =>
        `| \`${machine.machine}\` | **${happening(machine)}** | ${cell(machine.because.join("<br>"))} |`,
    ),
    ...(rest.length > 0 ? [`| ${rest.join(", ")} | nothing | |`] : []),
  ];
}

/** A line's mark where GitHub looks for it, to give the line a colour. */
function inFirstColumn(diff: string): string {
  return diff.replace(/^( +)([+-]) /gm, "$2$1 ").replace(/^( +)~ /gm, "!$1 ");
}

function folded(diff: string, room: number): string {
  const whole = diff.length <= room;
  const shown = whole ? diff : diff.slice(0, diff.lastIndexOf("\n", room));
  // A fence that is longer than any in the text.
  const fence = "`".repeat(Math.max(3, ...[...shown.matchAll(/`+/g)].map(([ticks]) => ticks.length + 1)));
  return [
    "<details><summary><code>pulumi preview --diff</code></summary>",
    "",
    `${fence}diff`,
    shown,
    fence,
    ...(whole
      ? []
      : ["", "The rest is left out here: the log of the run that wrote this has the whole diff."]),
    "</details>",
  ].join("\n");
}

function happening({ change, effect }: MachineRadius): string {
  switch (change) {
    case "new":
      return "new";
    case "leaves":
      return effect === "drain" ? "drain, leaves" : "leaves";
    case "changed":
      return effect;
    case "unchanged":
      return "nothing";
  }
}

function headline(stack: string, { machines, others }: BlastRadius, { passed }: Previewed): string {
  if (!passed) return `${stack}: this cannot be deployed`;
  const changed = machines.filter(({ change }) => change !== "unchanged").length;
  const cloud = others.length > 0 ? `, and ${counted(others.length, "resource")} of the cloud` : "";
  return changed === 0 && others.length === 0
    ? `${stack}: nothing changes on any machine`
    : `${stack}: ${changed} of ${counted(machines.length, "machine")} ${changed === 1 ? "changes" : "change"}${cloud}`;
}

/** What is to be known besides the table: of clients, and of what the cloud loses. */
function remarks({ machines, clients, drained, maxUnavailable, others }: BlastRadius): string[] {
  const drains = machines.filter(({ effect, change }) => effect === "drain" && change === "changed");
  const vip = machines.some(({ because }) =>
    because.some((text) => text.startsWith("keepalived.service restarts")),
  );
  return [
    ...clients.map(({ service, scheduler, moved }) =>
      moved === null
        ? `Clients of ${service}: with the scheduler ${scheduler} it cannot be computed which clients move to another real server.`
        : `Clients of ${service} that move to another real server for good: ${percent(moved)}.`,
    ),
    ...(drains.length > 0
      ? [
          `${counted(drains.length, "real server")} ${drains.length === 1 ? "is" : "are"} drained, ` +
            `at most ${maxUnavailable ?? 1} at a time: what is in a queue is finished first` +
            (drained > 0
              ? `, and up to ${percent(drained)} of the clients are served by the others meanwhile.`
              : "."),
        ]
      : []),
    ...(vip
      ? [
          "keepalived restarts, on the standby first: the VIP moves once, and is away for a fraction of a second.",
        ]
      : []),
    ...others
      .filter(({ op }) => /delete|replace/.test(op))
      .map(({ op, name, type }) => `${op}: ${name} (${type})`),
  ];
}

function verdict({ violations, errors, warnings, policyPacks, passed }: Previewed): string[] {
  return [
    ...warnings.map((warning) => `- Warning: ${warning.replaceAll("\n", " ")}`),
    ...violations.map(
      ({ policy, message, mandatory }) =>
        `- ${mandatory ? "**Not allowed**" : "Not recommended"} (${policy}): ${message.replaceAll("\n", " ")}`,
    ),
    ...errors.map((error) => `- Failed: ${error.replaceAll("\n", "\n  ")}`),
    // Of a program that failed it has seen next to nothing.
    ...(passed && policyPacks.length > 0 && violations.length === 0
      ? ["- The policy pack has no objection."]
      : []),
  ];
}

/** A share as a person reads it; what is not nothing is never shown as 0. */
function percent(share: number): string {
  if (share === 0) return "none";
  return share < 0.01 ? "less than 1 %" : `${Math.round(share * 100)} %`;
}

function counted(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}
