// What a page of the documentation consists of, as far as it can be wrong: commands, links, headings, words in code.

/** A fenced block. */
export interface Block {
  readonly language: string;
  /** Of its first line, counted from 1. */
  readonly line: number;
  readonly lines: readonly string[];
  /** The reason why it is not run, from a comment before it: `<!-- needs: two switches of your own -->`. */
  readonly needs: string | undefined;
}

export interface Page {
  /** Path in the repository. */
  readonly path: string;
  readonly blocks: readonly Block[];
  /** What links lead to, as written. */
  readonly links: readonly { readonly target: string; readonly line: number }[];
  readonly anchors: ReadonlySet<string>;
  /** Words in backquotes outside blocks. */
  readonly codes: readonly { readonly text: string; readonly line: number }[];
}

/** A line that a reader types, and what the page shows of its output. */
export interface Command {
  readonly text: string;
  readonly line: number;
  readonly output: readonly string[];
}

const FENCE = /^(\s*)(?:\d+\. |- )?```(\w*)\s*$/;

export function parsePage(path: string, text: string): Page {
  const blocks: Block[] = [];
  const links: Page["links"][number][] = [];
  const codes: Page["codes"][number][] = [];
  const anchors = new Set<string>();
  let open: { language: string; line: number; lines: string[]; needs: string | undefined } | undefined;
  let needs: string | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    const fence = FENCE.exec(line);
    if (open !== undefined) {
      if (fence === null) open.lines.push(line);
      else {
        blocks.push({ ...open, lines: dedented(open.lines) });
        open = undefined;
      }
      continue;
    }
    if (fence !== null) {
      open = { language: fence[2] ?? "", line: index + 2, lines: [], needs };
      needs = undefined;
      continue;
    }
    const mark = /^\s*<!-- needs: (.+) -->\s*$/.exec(line);
    if (mark !== null) needs = mark[1];
    // A mark that something else follows marks nothing.
    else if (line.trim() !== "") needs = undefined;
    const heading = /^#+ (.*)$/.exec(line);
    if (heading) anchors.add(unique(slug(heading[1] ?? ""), anchors));
    for (const [, code = ""] of line.matchAll(/`([^`]+)`/g)) codes.push({ text: code, line: index + 1 });
    const plain = line.replace(/`[^`]*`/g, (code) => code.replace(/[[\]()]/g, " "));
    for (const [, target = ""] of plain.matchAll(/\]\(([^)\s]+)\)/g)) links.push({ target, line: index + 1 });
  }
  return { path, blocks, links, anchors, codes };
}

/** The commands of a block of a terminal: what stands behind "$ ", with its continued lines; the rest is output. */
export function commandsOf(block: Block): Command[] {
  const commands: { text: string; line: number; output: string[] }[] = [];
  let continued = false;
  for (const [index, line] of block.lines.entries()) {
    const last = commands.at(-1);
    if (line.startsWith("$ ")) commands.push({ text: line.slice(2), line: block.line + index, output: [] });
    else if (last === undefined) throw new Error(`line ${block.line + index}: output without a command`);
    else if (continued) last.text = `${last.text.slice(0, -1).trimEnd()} ${line.trim()}`;
    else last.output.push(line);
    continued = (commands.at(-1)?.text.endsWith("\\") ?? false) && (continued || line.startsWith("$ "));
    if (continued && !line.endsWith("\\")) continued = false;
  }
  return commands.map(({ text, ...rest }) => ({ ...rest, text: withoutComment(text) }));
}

/** Without what a shell would not read: a number sign after a blank, outside quotes. */
function withoutComment(text: string): string {
  let quote = "";
  for (const [index, letter] of [...text].entries()) {
    if (quote !== "") quote = letter === quote ? "" : quote;
    else if (letter === "'" || letter === '"') quote = letter;
    else if (letter === "#" && /\s/.test(text[index - 1] ?? "")) return text.slice(0, index).trimEnd();
  }
  return text.trimEnd();
}

/** The anchor that GitHub gives a heading. */
function slug(heading: string): string {
  return heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .trim()
    .replaceAll(" ", "-");
}

function unique(name: string, taken: ReadonlySet<string>): string {
  if (!taken.has(name)) return name;
  let count = 1;
  while (taken.has(`${name}-${count}`)) count += 1;
  return `${name}-${count}`;
}

/**
 * Figures that a page quotes from another one, by that one: numbers in the words of a link, and in the middle cells of a table's row
 * that ends with a link.
 */
export function quotedFigures(
  text: string,
  from: RegExp,
): { target: string; figure: string; line: number }[] {
  return text.split("\n").flatMap((line, index) => {
    const links = [...line.matchAll(/\[([^\]]*)\]\(([^)\s]+)\)/g)].filter(([, , target = ""]) =>
      from.test(target),
    );
    const cells = line.startsWith("|") ? line.split("|").slice(2, -2).join(" ") : "";
    return links.flatMap(([, words = "", target = ""]) =>
      [...`${words} ${/\d/.test(words) ? "" : cells}`.matchAll(/\d+(?:\.\d+)?/g)].map(([figure]) => ({
        target,
        figure,
        line: index + 1,
      })),
    );
  });
}

/** What stands below a heading, up to the next one of its rank, by its anchor; undefined where there is no such heading. */
export function sectionOf(text: string, anchor: string): string | undefined {
  const lines = text.split("\n");
  const rank = (line: string) => /^#+(?= )/.exec(line)?.[0].length ?? 0;
  const start = lines.findIndex((line) => rank(line) > 0 && slug(line.replace(/^#+ /, "")) === anchor);
  if (start < 0) return undefined;
  const length = lines
    .slice(start + 1)
    .findIndex((line) => rank(line) > 0 && rank(line) <= rank(lines[start] ?? ""));
  return lines.slice(start, length < 0 ? undefined : start + 1 + length).join("\n");
}

/** A block in a list is set in by as much as its first line. */
function dedented(lines: readonly string[]): string[] {
  const depth = /^ */.exec(lines[0] ?? "")?.[0].length ?? 0;
  return lines.map((line) => (line.slice(0, depth).trim() === "" ? line.slice(depth) : line));
}

/** Whether what was printed has the lines that a page shows, in this order; numbers, times and "..." may differ. */
export function resembles(printed: string, shown: readonly string[]): string | undefined {
  const lines = printed.split("\n").map((line) => line.trim());
  let from = 0;
  for (const line of shown) {
    if (line.trim() === "" || line.trim() === "...") continue;
    const wanted = pattern(line.trim());
    const at = lines.findIndex((candidate, index) => index >= from && wanted.test(candidate));
    if (at < 0) return line;
    from = at + 1;
  }
  return undefined;
}

function pattern(line: string): RegExp {
  const text = line
    .split(/(\.\.\.|[0-9a-f]{8,}|\d+|\s+)/)
    .map((part) => {
      if (part === "...") return ".*";
      if (/^\s+$/.test(part)) return "\\s+";
      if (/^[0-9a-f]{8,}$/.test(part)) return "[0-9a-f]+";
      return /^\d+$/.test(part) ? "\\d+" : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    })
    .join("");
  return new RegExp(`^${text}$`);
}
