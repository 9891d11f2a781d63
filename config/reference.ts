/** The reference of the configuration, made of the schema: a table for every section. */
import type * as z from "zod";
import { unionOptions } from "./keys";
import { type About, about } from "./leaves";
import { configSchema, secrets } from "./schema";

/** A section to be described, found while describing another. */
interface Section {
  readonly path: string;
  readonly schema: z.core.$ZodType;
}

/** docs/configuration.md as it should be. */
export function renderConfigReference(): string {
  const parts: string[] = [
    "# Configuration",
    "",
    "Generated from `config/schema.ts` by `scripts/config-reference`; changes made here are lost.",
    "",
    "You set these keys in a stack file (`Pulumi.<stack>.yaml`) under `config:`; each top-level key gets the prefix",
    "`cosyvoice-lvs:`. Unknown keys are refused. All mistakes are reported at once, before any machine is touched.",
    "`Pulumi.onprem.yaml` is a commented example.",
    "",
    'A key marked **required** must be set; one marked "required with ..." or "required unless ...", only in that case. Times',
    "are in seconds (`s`).",
    "",
  ];
  const queue: Section[] = [{ path: "", schema: configSchema }];
  for (let section = queue.shift(); section !== undefined; section = queue.shift()) {
    const { lines, below } = describe(section);
    parts.push(...lines);
    // Depth first, so that a reader finds a section right after the one that has it.
    queue.unshift(...below);
  }
  parts.push(...describeSecrets());
  return `${parts.join("\n").trimEnd()}\n`;
}

function describe({ path, schema }: Section): { lines: string[]; below: Section[] } {
  const title = path === "" ? "Top level" : `\`${path}\``;
  const lines = [`## ${title}`, "", wordsOf(schema).text, ""];
  const below: Section[] = [];

  if (isChoice(schema)) {
    for (const [kind, option] of unionOptions(schema)) {
      const words = wordsOf(unwrapped(shapeOf(option).kind ?? option).inner);
      lines.push(`### ${wordsOf(option).text}`, "", words.text, "", ...table(path, option, below, kind), "");
    }
  } else {
    lines.push(...table(path, schema, below), "");
  }
  return { lines, below };
}

function table(path: string, section: z.core.$ZodType, below: Section[], kind?: string): string[] {
  const rows = Object.entries(shapeOf(section)).map(([key, part]) => {
    const { inner, fallback, optional } = unwrapped(part);
    const full = path === "" ? key : `${path}.${key}`;
    const words = wordsOf(inner);
    const deeper = sectionBelow(full, inner);
    if (deeper !== undefined) below.push(deeper);
    const isKind = key === "kind" && kind !== undefined;
    const shownDefault = defaultOf({ fallback, optional, words, isKind, isSection: deeper !== undefined });
    return row([
      `\`${key}\``,
      isKind ? `\`${kind}\`` : formOf(inner, deeper),
      shownDefault,
      isKind ? "Chooses this kind of check." : meaningOf(words, shownDefault, deeper),
    ]);
  });
  return [row(["Key", "Value", "Default", "Meaning"]), row(["---", "---", "---", "---"]), ...rows];
}

function sectionBelow(path: string, schema: z.core.$ZodType): Section | undefined {
  if (schema._zod.def.type === "object" || isChoice(schema)) return { path, schema };
  if (schema._zod.def.type === "array") {
    const { element } = schema._zod.def as z.core.$ZodArrayDef;
    return element._zod.def.type === "object" ? { path: `${path}[]`, schema: element } : undefined;
  }
  return undefined;
}

function formOf(schema: z.core.$ZodType, below: Section | undefined): string {
  const words = wordsOf(schema);
  if (below !== undefined && schema._zod.def.type !== "array")
    return `section, see [below](${anchor(below.path)})`;
  const form = words.form ?? "";
  return below === undefined ? form : `${form}, see [below](${anchor(below.path)})`;
}

interface DefaultOf {
  readonly fallback: unknown;
  readonly optional: boolean;
  readonly words: About;
  readonly isKind: boolean;
  readonly isSection: boolean;
}

function defaultOf({ fallback, optional, words, isKind, isSection }: DefaultOf): string {
  if (isKind) return fallback === undefined ? "" : "yes";
  const required = words.required === undefined ? undefined : `required ${words.required}`;
  if (words.derived !== undefined)
    return [words.derived, required].filter((part) => part !== undefined).join("; ");
  if (required !== undefined) return required;
  if (fallback === undefined) return optional ? "none" : "**required**";
  // The default of a section is the defaults of its keys, which its own table says.
  if (isSection) return "";
  if (typeof fallback === "object") return "none";
  const shown = `\`${typeof fallback === "string" ? fallback : JSON.stringify(fallback)}\``;
  return words.unit === undefined ? shown : `${shown} ${words.unit}`;
}

function meaningOf(words: About, shownDefault: string, below: Section | undefined): string {
  // A default such as `15` GB says the unit already.
  const said = words.unit === undefined || words.unit === "s" || shownDefault.endsWith(` ${words.unit}`);
  const unit = said ? undefined : `In ${words.unit}.`;
  const sentences = [
    words.text,
    unit,
    words.why === undefined || below !== undefined ? undefined : `*${words.why}*`,
  ];
  return sentences.filter((sentence) => sentence !== undefined).join(" ");
}

function describeSecrets(): string[] {
  return [
    "## Secrets",
    "",
    "Set them with `pulumi config set --secret KEY`: the stack file then holds them encrypted. They never appear in clear in a",
    "log or in the state.",
    "",
    row(["Key", "Meaning"]),
    row(["---", "---"]),
    ...Object.entries(secrets).map(([key, words]) => row([`\`${key}\``, words.text])),
    "",
  ];
}

function unwrapped(schema: z.core.$ZodType): {
  inner: z.core.$ZodType;
  fallback: unknown;
  optional: boolean;
} {
  let inner = schema;
  let fallback: unknown;
  let optional = false;
  for (;;) {
    const { def } = inner._zod;
    if (def.type === "default" || def.type === "prefault") {
      const wrapper = def as z.core.$ZodDefaultDef;
      fallback = wrapper.defaultValue;
      inner = wrapper.innerType;
    } else if (def.type === "optional") {
      optional = true;
      inner = (def as z.core.$ZodOptionalDef).innerType;
    } else {
      return { inner, fallback, optional };
    }
  }
}

function isChoice(schema: z.core.$ZodType): boolean {
  return schema._zod.def.type === "union" && "discriminator" in schema._zod.def;
}

function shapeOf(schema: z.core.$ZodType): z.core.$ZodShape {
  return (schema as z.core.$ZodObject)._zod.def.shape;
}

/** @throws Error for a key that nobody has described: a reference with holes is not one. */
function wordsOf(schema: z.core.$ZodType): About {
  const words = about.get(schema);
  if (words === undefined) throw new Error("a schema without a description: register it with `about`");
  return words;
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

/** The anchor that a heading of just this code gets on GitHub and in its kin. */
function anchor(path: string): string {
  return `#${path.toLowerCase().replace(/[^a-z0-9 _-]/g, "")}`;
}
