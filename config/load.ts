/** The one door: a stack's configuration goes in as found, and comes out valid and complete, or with every mistake named. */

import type * as z from "zod";
import { describeUnknownKey, isSection, type Path, pathText, schemaAt, sectionKeys, unwrap } from "./keys";
import { about } from "./leaves";
import type { Problem } from "./problems";
import { resolveConfig } from "./resolve";
import { type ClusterConfig, configKeys, configSchema, secretKeys } from "./schema";
import { type Draft, findConflicts } from "./validate";

export { formatProblems, type Problem } from "./problems";
export { configKeys, secretKeys } from "./schema";

/** What stands in front of every key in a stack file. */
export const configNamespace = "cosyvoice-lvs";

/** What came of a configuration. */
export type LoadResult =
  | { readonly ok: true; readonly config: ClusterConfig }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/**
 * Makes the input of {@link parseConfig} from what the Pulumi SDK holds: all config keys of the stack, every value as text.
 * Keys of other namespaces (`aws:region`) are left out; structured values, numbers and booleans are read from their JSON.
 *
 * @param all as `runtime.allConfig()` of @pulumi/pulumi gives it: it has the misspelt keys too, which asking key by key
 * would never see.
 */
export function rawFromStack(all: Readonly<Record<string, string>>): Record<string, unknown> {
  const raw: [string, unknown][] = [];
  for (const [fullKey, value] of Object.entries(all)) {
    const prefix = `${configNamespace}:`;
    if (!fullKey.startsWith(prefix)) continue;
    const key = fullKey.slice(prefix.length);
    if (key === "sshPrivateKey") raw.push([key, true]);
    // The others are one text each, and one that looks like a number is a text all the same.
    else if (key !== "receiverSecrets" && secretKeys.some((secret) => secret === key)) raw.push([key, value]);
    else raw.push([key, fromStackText(value)]);
  }
  return Object.fromEntries(raw);
}

function fromStackText(value: string): unknown {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === "string" ? value : parsed;
  } catch {
    // Plain text such as 192.168.1.100 is how Pulumi hands over a plain string.
    return value;
  }
}

/**
 * Reads a stack's configuration. Never throws, whatever it is given; all mistakes come at once, those of single values and
 * those between values (as far as the values concerned are sound themselves).
 *
 * @param raw values by top-level key, see {@link rawFromStack}. A secret is `true` (it is set) or, for all but
 * `sshPrivateKey`, its text or texts, which are looked at and go nowhere.
 * @param now the time at which certificates must be valid
 */
export function parseConfig(raw: Readonly<Record<string, unknown>>, now = new Date()): LoadResult {
  const { settings, secrets } = splitSecrets(raw);
  const parsed = configSchema.safeParse(settings);
  const problems = parsed.success ? [] : parsed.error.issues.flatMap((issue) => problemsOf(issue, settings));

  const refused = new Set(problems.map((problem) => problem.path));
  const draft: Draft = {
    ...(lenient(configSchema, settings) as Partial<Draft> | undefined),
    secrets,
    refused,
    now,
  };
  for (const conflict of findConflicts(draft)) {
    const path = pathText(conflict.path);
    // One mistake, one message: what has been refused already is not refused again for a second reason. But a certificate is one
    // value in which several things can be wrong.
    if (conflict.secret === undefined && problems.some((problem) => problem.path === path)) continue;
    problems.push({
      path,
      value: conflict.secret ?? valueAt(settings, conflict.path),
      message: conflict.message,
      fix: conflict.fix,
    });
  }

  if (!parsed.success || problems.length > 0) return { ok: false, problems: inFileOrder(problems) };
  return { ok: true, config: resolveConfig(parsed.data, secrets) };
}

/** What is known about the secrets: whether they are set, and the texts that were given. */
function splitSecrets(raw: Readonly<Record<string, unknown>>) {
  const isSet = (key: string) => Object.hasOwn(raw, key) && raw[key] !== undefined && raw[key] !== false;
  const textOf = (key: string) => (isSet(key) && typeof raw[key] === "string" ? raw[key] : undefined);
  return {
    settings: Object.fromEntries(
      Object.entries(raw).filter(([key]) => !secretKeys.some((secret) => secret === key)),
    ),
    secrets: {
      vrrpPassword: isSet("vrrpPassword"),
      vrrpPasswordText: textOf("vrrpPassword"),
      peerKey: isSet("peerKey"),
      peerKeyText: textOf("peerKey"),
      tlsCertificate: isSet("tlsCertificate"),
      tlsCertificateText: textOf("tlsCertificate"),
      tlsKey: isSet("tlsKey"),
      tlsKeyText: textOf("tlsKey"),
      apiKeys: isSet("apiKeys"),
      apiKeysText: textOf("apiKeys"),
      httpUsers: isSet("httpUsers"),
      httpUsersText: textOf("httpUsers"),
      receiverSecrets: isSet("receiverSecrets"),
      receiverSecretTexts: isSection(raw.receiverSecrets) ? raw.receiverSecrets : undefined,
      monitoringPassword: isSet("monitoringPassword"),
      monitoringPasswordText: textOf("monitoringPassword"),
      sshPrivateKey: isSet("sshPrivateKey"),
    },
  };
}

/** Reads as much as is sound: a value that the schema refuses becomes `undefined`, its neighbours stay. */
function lenient(schema: z.core.$ZodType, value: unknown): unknown {
  const whole = safeParse(schema, value);
  if (whole.success) return whole.data;
  const inner = unwrap(schema, value);
  if (inner?._zod.def.type === "object" && isSection(value)) {
    const { shape } = inner._zod.def as z.core.$ZodObjectDef;
    return Object.fromEntries(
      Object.entries(shape).map(([key, part]) => [
        key,
        lenient(part, Object.hasOwn(value, key) ? value[key] : undefined),
      ]),
    );
  }
  if (inner?._zod.def.type === "array" && Array.isArray(value)) {
    const { element } = inner._zod.def as z.core.$ZodArrayDef;
    return value.map((part) => lenient(element, part));
  }
  return undefined;
}

function safeParse(schema: z.core.$ZodType, value: unknown) {
  return (schema as z.ZodType).safeParse(value);
}

function problemsOf(issue: z.core.$ZodIssue, raw: Record<string, unknown>): Problem[] {
  const { path } = issue;
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      const full = [...path, key];
      const secretLooking = /pass|secret|token|private/i.test(key);
      return {
        path: pathText(full),
        // Somebody may have put a password where it does not belong; it need not be printed as well.
        value: secretLooking ? "(not shown)" : valueAt(raw, full),
        ...describeUnknownKey(path, key, raw),
      };
    });
  }

  const value = valueAt(raw, path);
  const form = formOf(issue, raw);
  if (value === undefined)
    return [{ path: pathText(path), value, message: "is missing", fix: `write ${form}` }];
  if (issue.code === "invalid_key") {
    return [
      { path: pathText(path), value: path.at(-1), message: `is not ${form}`, fix: `rename it to ${form}` },
    ];
  }
  return [{ path: pathText(path), value, message: `is not ${form}`, fix: `write ${form}` }];
}

/** What would have been right, completing "write ...". */
function formOf(issue: z.core.$ZodIssue, raw: Record<string, unknown>): string {
  if (issue.code === "invalid_union" && issue.discriminator !== undefined)
    return "one of poller, tcp, http, misc";
  if (issue.code === "invalid_key") return issue.issues[0]?.message ?? "a name";
  const schema = schemaAt(issue.path, raw);
  const keys = schema === undefined ? undefined : sectionKeys(schema);
  if (keys !== undefined) return `a section with any of the keys ${keys.join(", ")}`;
  const words = schema === undefined ? undefined : about.get(schema);
  return words?.form ?? issue.message;
}

function valueAt(raw: unknown, path: Path): unknown {
  let value = raw;
  for (const step of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[step];
  }
  return value;
}

/** Problems as a reader meets their keys in the reference; within one key, in the order they were found. */
function inFileOrder(problems: readonly Problem[]): Problem[] {
  const position = ({ path }: Problem) => {
    const index = configKeys.indexOf(/^[^.[]*/.exec(path)?.[0] ?? "");
    return index < 0 ? configKeys.length : index;
  };
  return [...problems].sort((one, other) => position(one) - position(other));
}
