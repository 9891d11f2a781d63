import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** A measurement, as the programs that measure print it: one JSON object a line. */
export type Row = Readonly<Record<string, unknown>>;

/** What a benchmark found, with where it ran. Written as JSON, one file a benchmark. */
export interface Result {
  readonly name: string;
  /** A fast run, to try it out: not for quoting. */
  readonly quick: boolean;
  /** What it ran on. */
  readonly on: Readonly<Record<string, string | number>>;
  readonly rows: readonly Row[];
}

/** Writes a result to `directory`; a row a line keeps it readable in a diff. */
export async function writeResult(directory: string, result: Result): Promise<void> {
  await mkdir(directory, { recursive: true });
  const { rows, ...head } = result;
  const lines = rows.map((row) => `    ${JSON.stringify(row)}`).join(",\n");
  const start = JSON.stringify(head, null, 2).replace(/\n}$/, "");
  await writeFile(join(directory, `${result.name}.json`), `${start},\n  "rows": [\n${lines}\n  ]\n}\n`);
}

/** A benchmark's result, or undefined when it was not run yet. */
export async function readResult(directory: string, name: string): Promise<Result | undefined> {
  const text = await readFile(join(directory, `${name}.json`), "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Result);
}

/** A row's number. @throws when it has none of that name. */
export function number(row: Row, key: string): number {
  const value = row[key];
  if (typeof value !== "number") throw new Error(`"${key}" is ${JSON.stringify(value)}, not a number`);
  return value;
}

/** The value below which a share of the sorted values lies (nearest rank). NaN: there are none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}
