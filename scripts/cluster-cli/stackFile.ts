import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isNode, parse, parseDocument } from "yaml";
import { configNamespace, type LoadResult, parseConfig, rawFromStack } from "../../config/load";
import { Lab } from "../../lab/lab";
import { LabStack, stackName as labStackName } from "../../lab/stack";
import { repository } from "../lib/paths";
import { addIn, removeIn, setIn } from "./yamlEdit";

/** A top-level key of this project, and the way into its value. */
type Keys = readonly [string, ...(string | number)[]];

/** Where a stack's configuration is. */
export function stackFilePath(stack: string): string {
  return stack === labStackName
    ? new LabStack(new Lab()).configFile
    : join(repository, `Pulumi.${stack}.yaml`);
}

/**
 * A stack's configuration, to be changed in place: comments, order and what is not touched stay as they are. Nothing is written
 * before {@link save}.
 */
export class StackFile {
  private constructor(
    readonly path: string,
    private readonly before: string,
    private now: string,
  ) {}

  /** @throws when there is no such file, or it is no YAML. */
  static async open(stack: string): Promise<StackFile> {
    const path = stackFilePath(stack);
    try {
      return StackFile.from(path, await readFile(path, "utf8"));
    } catch (error) {
      throw new Error(`The stack file cannot be read: ${(error as Error).message}`, { cause: error });
    }
  }

  /** The same of a text. */
  static from(path: string, text: string): StackFile {
    const [error] = parseDocument(text).errors;
    if (error) throw error;
    return new StackFile(path, text, text);
  }

  /** The value of a key of this project, such as `["app", "ref"]`; undefined when it is not there. */
  get(keys: Keys): unknown {
    const document = parseDocument(this.now);
    const value = document.getIn(pathOf(keys));
    return isNode(value) ? value.toJS(document) : value;
  }

  set(keys: Keys, value: unknown): void {
    this.now = setIn(this.now, pathOf(keys), value);
  }

  /** Adds an item to a list. */
  add(keys: Keys, item: unknown): void {
    this.now = addIn(this.now, pathOf(keys), item);
  }

  /** Takes a key out, and its section when nothing else is in it. */
  remove(keys: Keys): void {
    this.now = removeIn(this.now, pathOf(keys));
  }

  get text(): string {
    return this.now;
  }

  get changed(): boolean {
    return this.now !== this.before;
  }

  /** What the program makes of it. */
  load(): LoadResult {
    const values = Object.entries((parse(this.now) as { config?: object } | null)?.config ?? {});
    const secret = ([, value]: [string, unknown]) => holdsSecret(value);
    const texts = values
      .filter((entry) => !secret(entry))
      .map(([key, value]) => [key, typeof value === "object" ? JSON.stringify(value) : String(value)]);
    const set = values.filter(secret).map(([key]) => [key.slice(key.indexOf(":") + 1), true] as const);
    return parseConfig({ ...rawFromStack(Object.fromEntries(texts)), ...Object.fromEntries(set) });
  }

  /** Replaces the file, whole. */
  async save(): Promise<void> {
    const { mode } = await stat(this.path);
    await writeFile(`${this.path}.new`, this.text, { mode });
    await rename(`${this.path}.new`, this.path);
  }
}

function pathOf([key, ...rest]: Keys): (string | number)[] {
  return ["config", `${configNamespace}:${key}`, ...rest];
}

/** Whether a value is encrypted, or a part of it. */
function holdsSecret(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return "secure" in value || Object.values(value).some(holdsSecret);
}
