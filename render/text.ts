/** Small helpers of the renderers: indented blocks, systemd units, words of a shell, and the exhaustive end of a `switch`. */

/** One line, or a block of lines in braces. */
export type Line = string | Block;

/** `head { body }` */
export interface Block {
  readonly head: string;
  readonly body: readonly Line[];
}

/** A block in braces; lines that are `undefined` are left out. */
export function block(head: string, ...body: readonly (Line | undefined)[]): Block {
  return { head, body: body.filter((line) => line !== undefined) };
}

/** Lines and blocks as text, four spaces a level, ending with a newline. */
export function renderBlocks(lines: readonly Line[]): string {
  return `${indent(lines, 0).join("\n")}\n`;
}

function indent(lines: readonly Line[], level: number): string[] {
  const margin = "    ".repeat(level);
  return lines.flatMap((line) => {
    if (typeof line !== "string")
      return [`${margin}${line.head} {`, ...indent(line.body, level + 1), `${margin}}`];
    return line === "" ? [""] : [`${margin}${line}`];
  });
}

/** Sections of a systemd unit or an INI file: `[Name]`, then its lines; `undefined` lines are left out. */
export function renderSections(
  sections: readonly (readonly [string, readonly (string | undefined)[]])[],
): string {
  return sections
    .map(([name, lines]) => `[${name}]\n${lines.filter((line) => line !== undefined).join("\n")}\n`)
    .join("\n");
}

/** A text as one word of a POSIX shell's command, in quotes where it needs them. */
export function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Marks the place that no member of a union reaches; the compiler says so when one does. */
export function never(value: never): never {
  throw new Error(`not handled: ${JSON.stringify(value)}`);
}

/** The element with this name, or an error that says which there are. */
export function byName<T extends { readonly name: string }>(elements: readonly T[], name: string): T {
  const found = elements.find((element) => element.name === name);
  if (found === undefined) {
    throw new Error(
      `no machine "${name}" here: there are ${elements.map((element) => element.name).join(", ")}`,
    );
  }
  return found;
}
