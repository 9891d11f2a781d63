/**
 * Changes of a YAML text that leave every line alone which they do not concern. The `yaml` library keeps comments, too, but lays a
 * document out anew, and takes a comment between two sections for the end of the first one.
 */
import { isDeepStrictEqual } from "node:util";
import { isCollection, isMap, isNode, isScalar, isSeq, type Node, parseDocument, stringify } from "yaml";

/** Keys of maps and places in lists. */
export type YamlPath = readonly (string | number)[];

/** Sets a value; the sections on the way to it are made. */
export function setIn(text: string, path: YamlPath, value: unknown): string {
  const document = parseDocument(text);
  const there = document.getIn(path, true);
  document.setIn(path, document.createNode(value));
  if (isScalar(there) && there.range && isPlain(value)) {
    const [begin, end] = there.range;
    const written = stringify(value, { lineWidth: 0 }).trimEnd();
    return agreeing(`${text.slice(0, begin)}${written}${text.slice(end)}`, document);
  }
  // The nearest section that is there gets what is missing.
  for (let depth = path.length - 1; depth > 0; depth -= 1) {
    const section = parseDocument(text).getIn(path.slice(0, depth), true);
    if (!isMap(section)) continue;
    const missing = path.slice(depth).reduceRight((inner: unknown, key) => ({ [key]: inner }), value);
    return agreeing(appended(text, section, stringify(missing, { lineWidth: 0 })), document);
  }
  return document.toString({ lineWidth: 0 });
}

/** Adds an item at the end of a list. */
export function addIn(text: string, path: YamlPath, item: unknown): string {
  const document = parseDocument(text);
  const list = parseDocument(text).getIn(path, true);
  document.addIn(path, document.createNode(item));
  if (!isSeq(list)) return document.toString({ lineWidth: 0 });
  return agreeing(appended(text, list, stringify([item], { lineWidth: 0 })), document);
}

/** Takes a key or an item out, and the section that is empty then. */
export function removeIn(text: string, path: YamlPath): string {
  const document = parseDocument(text);
  const section = document.getIn(path.slice(0, -1), true);
  if (path.length > 2 && isMap(section) && section.items.length === 1 && section.has(path.at(-1)))
    return removeIn(text, path.slice(0, -1));
  const first = document.hasIn(path) ? offsetOf(section, path.at(-1)) : undefined;
  document.deleteIn(path);
  if (first === undefined) return text;
  const lines = text.split("\n");
  const line = lineAt(text, first);
  const column = first - (text.lastIndexOf("\n", first - 1) + 1);
  const indent = isSeq(section) ? dashOf(lines[line] ?? "") : column;
  // What is said above an item is said of it; above the first one, of the list.
  let begin = line;
  while (isSeq(section) && path.at(-1) !== 0 && isCommentAt(lines[begin - 1] ?? "", indent)) begin -= 1;
  lines.splice(begin, blockEnd(lines, line, indent) - begin);
  return agreeing(lines.join("\n"), document);
}

/** The edited text where it means what the document says, else the document laid out anew. */
function agreeing(text: string, document: ReturnType<typeof parseDocument>): string {
  const read = parseDocument(text);
  const same = read.errors.length === 0 && isDeepStrictEqual(read.toJS(), document.toJS());
  return same ? text : document.toString({ lineWidth: 0 });
}

/** A text with more lines at the end of a collection, laid out as its last entry. */
function appended(text: string, collection: Node, more: string): string {
  if (!isCollection(collection)) return text;
  const last = collection.items.at(-1);
  const first =
    last === undefined
      ? undefined
      : offsetOf(collection, isSeq(collection) ? collection.items.length - 1 : keyOf(last));
  if (first === undefined) return text;
  const lines = text.split("\n");
  const line = lineAt(text, first);
  const column = first - (text.lastIndexOf("\n", first - 1) + 1);
  const indent = isSeq(collection) ? dashOf(lines[line] ?? "") : column;
  const added = more
    .trimEnd()
    .split("\n")
    .map((one) => `${" ".repeat(indent)}${one}`);
  lines.splice(blockEnd(lines, line, indent), 0, ...added);
  return lines.join("\n");
}

function keyOf(item: unknown): unknown {
  const { key } = item as { readonly key: unknown };
  return isScalar(key) ? key.value : key;
}

/** Where an entry of a collection begins: its key, or an item's content. */
function offsetOf(collection: unknown, key: unknown): number | undefined {
  if (isSeq(collection)) {
    const item = collection.items[Number(key)];
    return isNode(item) ? item.range?.[0] : undefined;
  }
  if (!isMap(collection)) return undefined;
  const pair = collection.items.find((candidate) => keyOf(candidate) === key);
  return isNode(pair?.key) ? pair.key.range?.[0] : undefined;
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length - 1;
}

/** After the last line that is further in than the first one; blank lines behind it belong to nobody. */
function blockEnd(lines: readonly string[], first: number, indent: number): number {
  let end = first + 1;
  for (let at = first + 1; at < lines.length; at += 1) {
    const line = lines[at] as string;
    if (line.trim() === "") continue;
    if (line.search(/\S/) <= indent) break;
    end = at + 1;
  }
  return end;
}

function dashOf(line: string): number {
  return Math.max(0, line.search(/\S/));
}

function isCommentAt(line: string, indent: number): boolean {
  return line.search(/\S/) === indent && line[indent] === "#";
}

function isPlain(value: unknown): boolean {
  return ["string", "number", "boolean"].includes(typeof value);
}
