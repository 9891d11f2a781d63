import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { repository } from "../../scripts/lib/paths";
import type { Fault, Measured } from "./fault";

/** One line of the table, as docs/faults.json keeps it. */
export interface Row {
  readonly name: string;
  readonly title: string;
  readonly group: string;
  /** Day of the run, and what the virtual machine ran on. */
  readonly day: string;
  readonly accelerator: string;
  readonly passed: boolean;
  /** What did not hold. */
  readonly problems: readonly string[];
  /** Of some faults there is nothing but words. */
  readonly measured?: Measured | Pick<Measured, "notes">;
}

const file = join(repository, "docs/faults.json");
const document = join(repository, "docs/faults.md");
const markers = ["<!-- begin: written by scripts/test faults -->", "<!-- end -->"] as const;

export function row(
  fault: Pick<Fault, "name" | "title" | "group">,
  accelerator: string,
  problems: readonly string[],
  measured?: Row["measured"],
): Row {
  const { name, title, group } = fault;
  const day = new Date().toISOString().slice(0, 10);
  const passed = problems.length === 0;
  return { name, title, group, day, accelerator, passed, problems, ...(measured ? { measured } : {}) };
}

const seconds = (value: number | null | undefined, digits = 1) =>
  value === null || value === undefined || !Number.isFinite(value) ? "-" : value.toFixed(digits);

const head = [
  "fault",
  "requests",
  "lost",
  "reset",
  "slow",
  "gap s",
  "share's gap s",
  "moved",
  "streams broken",
  "syntheses lost",
  "out s",
  "back s",
  "one holder s",
  "",
];

function cells({ title, passed, measured }: Row): string[] {
  const mark = passed ? "holds" : "**fails**";
  if (measured === undefined || !("summary" in measured))
    return [title, ...Array.from({ length: head.length - 2 }, () => "-"), mark];
  const { summary, out, back, oneHolder } = measured;
  return [
    title,
    String(summary.requests),
    String(summary.lost),
    String(summary.reset + summary.refused),
    String(summary.slow),
    seconds(summary.gap, 2),
    seconds(summary.shareGap, 2),
    `${summary.moved}/${summary.sources}`,
    `${summary.streamsBroken}/${summary.streams}`,
    `${summary.synthesesLost}/${summary.syntheses}`,
    seconds(out),
    seconds(back),
    oneHolder.map((value) => seconds(value, 2)).join(" / "),
    mark,
  ];
}

/** The table for a terminal. */
export function tableText(rows: readonly Row[]): string {
  const lines = [head, ...rows.map((r) => [r.name, ...cells(r).slice(1)])];
  const widths = head.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  return lines
    .map((line) =>
      line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))),
    )
    .map((line) => line.join("  ").trimEnd())
    .join("\n");
}

/** The table for docs/faults.md, by group, and what did not hold. */
function tableMarkdown(rows: readonly Row[]): string {
  const parts: string[] = [];
  for (const group of new Set(rows.map((r) => r.group))) {
    parts.push(`### ${group[0]?.toUpperCase()}${group.slice(1)}`, "");
    parts.push(
      `| ${head.join(" | ")} |`,
      `|---|${head
        .slice(1)
        .map(() => "---:|")
        .join("")}`,
    );
    const own = rows.filter((r) => r.group === group);
    parts.push(...own.map((r) => `| ${cells(r).join(" | ")} |`), "");
    const said = own.flatMap((r) => {
      const words = [
        ...r.problems.map((problem) => `**${oneLine(problem)}**`),
        ...(r.measured?.notes ?? []).map(oneLine),
      ];
      return words.length > 0 ? [`- *${r.title}*: ${words.join("; ")}.`] : [];
    });
    if (said.length > 0) parts.push(...said, "");
  }
  const runs = [...new Set(rows.map((r) => `${r.day} (${r.accelerator})`))].sort();
  parts.push(`Measured on ${runs.join(", ")}.`);
  return parts.join("\n");
}

const oneLine = (text: string) => text.replace(/\s+/g, " ").trim().slice(0, 300);

/**
 * Keeps rows in docs/faults.json, in place of older ones of the same name, and writes the table into docs/faults.md.
 *
 * @param order names in the order of the table; rows of faults that are no longer there go
 */
export async function record(rows: readonly Row[], order: readonly string[]): Promise<void> {
  const before = JSON.parse(await readFile(file, "utf8").catch(() => "[]")) as Row[];
  const all = new Map([...before, ...rows].map((r) => [r.name, r]));
  const kept = order.flatMap((name) => all.get(name) ?? []);
  await writeFile(file, `${JSON.stringify(kept, null, 2)}\n`);
  await execa("npx", ["biome", "format", "--write", file], { cwd: repository });
  const text = await readFile(document, "utf8");
  const [begin, end] = markers.map((marker) => text.indexOf(marker)) as [number, number];
  if (begin < 0 || end < begin) throw new Error(`docs/faults.md lacks the markers ${markers.join(" and ")}`);
  await writeFile(
    document,
    `${text.slice(0, begin + markers[0].length)}\n\n${tableMarkdown(kept)}\n\n${text.slice(end)}`,
  );
}
