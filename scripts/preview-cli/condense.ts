/**
 * The lines of `pulumi preview --diff` that a reviewer reads: what changes, what it is part of, and the neighbours that Pulumi
 * shows of a line in a file. Left out is what stays as it is, of which a layer of this project has some two hundred lines. Resources
 * come in the order of their names, so that the same change is the same text every time.
 *
 * Pure. A text that it does not understand comes back whole.
 */
export function condense(diff: string): string {
  const lines = diff.split("\n").map(read);
  const starts = lines.flatMap((_, index) => (nameAt(lines, index) === undefined ? [] : [index]));
  const end = lines.findIndex(({ text }) => text === "--outputs:--" || text === "Resources:");
  if (starts.length === 0 || end < 0) return diff;
  const resources = starts
    .filter((start) => start < end)
    .map((start, at) => ({
      name: nameAt(lines, start) ?? "",
      lines: lines.slice(start, Math.min(starts[at + 1] ?? end, end)),
    }))
    .filter(({ lines: [first] }) => first?.marked)
    .sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  const versions = lines.findIndex(({ text }) => text === "Policy Packs run:");
  const rest = lines.slice(end, versions < 0 ? undefined : versions);
  return [
    ...resources.flatMap(({ name, lines: [first, ...body] }) => [
      `${first?.original} ${name}`,
      ...changedIn(body).map(({ original }) => original),
    ]),
    ...rest.filter(({ text }) => text !== "").map(({ original }) => original),
  ].join("\n");
}

interface Line {
  readonly original: string;
  /** Column at which the text begins, with its mark taken for blanks. */
  readonly indent: number;
  readonly text: string;
  /** Something that comes, goes or changes. */
  readonly marked: boolean;
}

function read(original: string): Line {
  const mark = /^ *(?:\+\+|--|\+-|>~|[~+<>-]) /.exec(original)?.[0];
  const blank = mark === undefined ? original : " ".repeat(mark.length) + original.slice(mark.length);
  const text = blank.trim();
  return {
    original: original.trimEnd(),
    indent: blank.length - blank.trimStart().length,
    text,
    marked: mark !== undefined,
  };
}

/** The name of the resource that begins in a line: below it, Pulumi says which one it is. */
function nameAt(lines: readonly Line[], index: number): string | undefined {
  if (!/^[a-zA-Z0-9/:_-]+: \([a-z -]+\)/.test(lines[index]?.text ?? "")) return undefined;
  const about = lines.slice(index + 1, index + 4).find(({ text }) => text.startsWith("[urn="));
  return about?.text.slice(0, -1).split("::").at(-1);
}

/** Of what is said of one resource, the lines that change, with those that they are part of. */
function changedIn(body: readonly Line[]): Line[] {
  const kept = new Set<Line>();
  /** What is open at a line, from the outermost. */
  const open: Line[] = [];
  /** The text of a file, whose lines have no structure of their own. */
  let file: Line | undefined;
  for (const line of body) {
    if (line.text === "" || /^\[(id|urn|provider)=.*\]$/.test(line.text)) continue;
    if (file !== undefined && line.indent > file.indent) {
      kept.add(line);
      continue;
    }
    file = undefined;
    let last: Line | undefined;
    while ((open.at(-1)?.indent ?? -1) >= line.indent) last = open.pop();
    if (/^[}\]]/.test(line.text)) {
      if (last !== undefined && kept.has(last)) kept.add(line);
      continue;
    }
    if (line.marked) {
      for (const one of [...open, line]) kept.add(one);
      if (line.text.endsWith(":")) file = line;
    }
    open.push(line);
  }
  return body.filter((line) => kept.has(line));
}
