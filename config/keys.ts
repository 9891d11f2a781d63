/** Finding one's way between paths in a stack file and the schema: for messages, suggestions and the reference. */
import type * as z from "zod";
import { configSchema, secretKeys } from "./schema";

/** Steps from the root of the configuration to a value. */
export type Path = readonly PropertyKey[];

/** A path as a person writes it: `directors[1].ssh.port`. */
export function pathText(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === "number") return `${text}[${step}]`;
    const key = String(step);
    if (!/^[A-Za-z_][A-Za-z0-9_-]*$/.test(key)) return `${text}[${JSON.stringify(key)}]`;
    return text === "" ? key : `${text}.${key}`;
  }, "");
}

/** Whether a raw value is keys and values. */
export function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The schema below optional and default wrappers. Of a choice between sections, the one that `value` is meant for;
 * `undefined` when that cannot be told.
 */
export function unwrap(schema: z.core.$ZodType, value?: unknown): z.core.$ZodType | undefined {
  const { def } = schema._zod;
  if (def.type === "optional" || def.type === "default" || def.type === "prefault") {
    return unwrap((def as z.core.$ZodOptionalDef).innerType, value);
  }
  if (def.type === "union" && "discriminator" in def) {
    return isSection(value) ? unionOption(schema, value.kind) : undefined;
  }
  return schema;
}

/** The sections a discriminated union chooses from, by the value of their `kind`. */
export function unionOptions(schema: z.core.$ZodType): readonly [string, z.core.$ZodObject][] {
  const { options } = schema._zod.def as z.core.$ZodUnionDef;
  return options.map((option) => {
    const section = option as z.core.$ZodObject;
    const kind = section._zod.def.shape.kind;
    const [name] = [...(kind?._zod.values ?? [])].filter((value) => typeof value === "string");
    return [String(name), section];
  });
}

function unionOption(schema: z.core.$ZodType, kind: unknown): z.core.$ZodType | undefined {
  // The first kind is the default one.
  return unionOptions(schema).find(
    ([name], index) => name === kind || (kind === undefined && index === 0),
  )?.[1];
}

/** The keys of a section, or `undefined` for anything else. */
export function sectionKeys(schema: z.core.$ZodType): readonly string[] | undefined {
  if (schema._zod.def.type === "union" && "discriminator" in schema._zod.def) {
    return [...new Set(unionOptions(schema).flatMap(([, section]) => Object.keys(section._zod.def.shape)))];
  }
  if (schema._zod.def.type !== "object") return undefined;
  return Object.keys((schema as z.core.$ZodObject)._zod.def.shape);
}

/** The schema of the value at a path, unwrapped; `undefined` where there is none. */
export function schemaAt(path: Path, raw: unknown): z.core.$ZodType | undefined {
  let schema: z.core.$ZodType | undefined = configSchema;
  let value = raw;
  for (const step of path) {
    const inner: z.core.$ZodType | undefined = schema === undefined ? undefined : unwrap(schema, value);
    if (inner === undefined) return undefined;
    const { def } = inner._zod;
    if (def.type === "object") {
      const { shape } = def as z.core.$ZodObjectDef;
      schema = Object.hasOwn(shape, step) ? shape[String(step)] : undefined;
    } else if (def.type === "array") {
      schema = (def as z.core.$ZodArrayDef).element;
    } else if (def.type === "record") {
      schema = (def as z.core.$ZodRecordDef).valueType;
    } else {
      return undefined;
    }
    value =
      typeof value === "object" && value !== null && Object.hasOwn(value, step)
        ? (value as Record<PropertyKey, unknown>)[step]
        : undefined;
  }
  if (schema === undefined) return undefined;
  return unwrap(schema, value) ?? innermost(schema);
}

function innermost(schema: z.core.$ZodType): z.core.$ZodType {
  const { def } = schema._zod;
  return def.type === "optional" || def.type === "default" || def.type === "prefault"
    ? innermost((def as z.core.$ZodOptionalDef).innerType)
    : schema;
}

/** What keepalived, ipvsadm and people call things, where a spelling distance would not lead there. */
const otherNames: Readonly<Record<string, string>> = {
  vrid: "vrrp.virtualRouterId",
  advertint: "vrrp.advertInterval",
  authtype: "vrrp.authentication",
  authpass: "vrrpPassword",
  authkey: "vrrpPassword",
  password: "vrrpPassword",
  nopreempt: "vrrp.preempt",
  peerkeyfile: "peerKey",
  clusterkey: "peerKey",
  lbalgo: "loadBalancer.scheduler",
  lvssched: "loadBalancer.scheduler",
  algorithm: "loadBalancer.scheduler",
  lbkind: "loadBalancer.forwarding",
  lvsmethod: "loadBalancer.forwarding",
  mode: "loadBalancer.forwarding",
  persistencetimeout: "loadBalancer.persistence",
  healthcheck: "loadBalancer.check",
  nbgetretry: "loadBalancer.check.retry",
  virtualip: "vip",
  virtualipaddress: "vip",
  hosts: "realServers",
  nodes: "realServers",
  backends: "realServers",
  nfs: "storage",
};

/** What to say about a key that the schema does not have. */
export function describeUnknownKey(
  parent: Path,
  key: string,
  raw: unknown,
): { message: string; fix: string } {
  const schema = schemaAt(parent, raw);
  const here = [
    ...(schema === undefined ? [] : (sectionKeys(schema) ?? [])),
    ...(parent.length === 0 ? secretKeys : []),
  ];
  const where = parent.length === 0 ? "" : ` of ${pathText(parent)}`;

  const union = unionAt(parent, raw);
  if (union !== undefined) {
    const kinds = unionOptions(union).filter(([, section]) => Object.hasOwn(section._zod.def.shape, key));
    if (kinds.length > 0) {
      const names = kinds.map(([name]) => name).join(", ");
      return {
        message: "is not a key of this kind of check",
        fix: `remove it, or set kind to one that has it: ${names}`,
      };
    }
  }

  const near = nearest(key, here);
  if (near !== undefined) {
    return { message: `is not a key${where}`, fix: `did you mean ${pathText([...parent, near])}?` };
  }
  const elsewhere = otherNames[plain(key)] ?? pathOfKey(plain(key));
  if (elsewhere !== undefined && elsewhere !== pathText([...parent, key])) {
    return { message: `is not a key${where}`, fix: `did you mean ${elsewhere}?` };
  }
  return { message: `is not a key${where}`, fix: `remove it; the keys known here are ${here.join(", ")}` };
}

function unionAt(path: Path, raw: unknown): z.core.$ZodType | undefined {
  const last = path.at(-1);
  const parent = last === undefined ? undefined : schemaAt(path.slice(0, -1), raw);
  if (parent?._zod.def.type !== "object") return undefined;
  const schema = (parent as z.core.$ZodObject)._zod.def.shape[String(last)];
  const inner = schema === undefined ? undefined : innermost(schema);
  return inner !== undefined && "discriminator" in inner._zod.def ? inner : undefined;
}

/** snake_case, kebab-case and camelCase of one name are one name. */
function plain(key: string): string {
  return key.toLowerCase().replace(/[^a-z0-9]/g, "");
}

/** Where in the schema a key of this (plain) name is, if anywhere; the first place in reading order. */
function pathOfKey(wanted: string, schema: z.core.$ZodType = configSchema, at = ""): string | undefined {
  const inner = innermost(schema);
  if (inner._zod.def.type === "array") {
    return pathOfKey(wanted, (inner._zod.def as z.core.$ZodArrayDef).element, `${at}[]`);
  }
  const sections =
    inner._zod.def.type === "object"
      ? [inner as z.core.$ZodObject]
      : "discriminator" in inner._zod.def
        ? unionOptions(inner).map(([, section]) => section)
        : [];
  for (const section of sections) {
    for (const [key, part] of Object.entries(section._zod.def.shape)) {
      const path = at === "" ? key : `${at}.${key}`;
      if (plain(key) === wanted) return path;
      const deeper = pathOfKey(wanted, part, path);
      if (deeper !== undefined) return deeper;
    }
  }
  return undefined;
}

/** The candidate that a misspelt text was probably meant to be, if one is near enough. */
export function nearest(text: string, candidates: readonly string[]): string | undefined {
  const wanted = plain(text);
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, plain(candidate));
    if (best === undefined || distance < best.distance) best = { candidate, distance };
  }
  // One slip in a short word, two or three in a long one; more is another word.
  const limit = Math.min(3, Math.max(1, Math.floor(wanted.length / 3)));
  return best !== undefined && best.distance <= limit ? best.candidate : undefined;
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other. */
function editDistance(one: string, other: string): number {
  // Long garbage is not a misspelt key, and the table below is quadratic.
  if (Math.abs(one.length - other.length) > 3 || one.length > 60) return Number.POSITIVE_INFINITY;
  const rows: number[][] = [Array.from({ length: other.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const cost = one[i - 1] === other[j - 1] ? 0 : 1;
      const above = rows[i - 1] ?? [];
      let least = Math.min((above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (above[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]) {
        least = Math.min(least, (rows[i - 2]?.[j - 2] ?? 0) + 1);
      }
      row.push(least);
    }
    rows.push(row);
  }
  return rows[one.length]?.[other.length] ?? Number.POSITIVE_INFINITY;
}
