import { isDeepStrictEqual } from "node:util";

/** Anything that a YAML file can hold. */
export type Yaml =
  | string
  | number
  | boolean
  | null
  | undefined
  | readonly Yaml[]
  | { readonly [key: string]: Yaml };

/** What is only known once a lab was made. */
export interface LabFacts {
  /** Path of the key that may log in. */
  readonly privateKeyFile: string;
  /** Port of 127.0.0.1 of the virtual machine's SSH server. */
  readonly jumpPort: number;
  readonly jumpHostKey: string;
  /** Host keys by machine name. */
  readonly hostKeys: Readonly<Record<string, string>>;
}

const sshKey = "cosyvoice-lvs:ssh";

/**
 * A stack file with the lab's facts put in: how to reach the machines, and every machine's host key (wherever something
 * with the name of one and an address is described). What the file says itself comes first.
 */
export function withFacts(stackFile: Yaml, facts: LabFacts): Yaml {
  const file = isMap(stackFile) ? stackFile : {};
  const config = isMap(file.config) ? withHostKeys(file.config, facts) : {};
  const values = isMap(config) ? config : {};
  const ssh = isMap(values[sshKey]) ? values[sshKey] : {};
  const jumpHost = { address: "127.0.0.1", port: facts.jumpPort, user: "root", hostKey: facts.jumpHostKey };
  return {
    ...file,
    config: { ...values, [sshKey]: { privateKeyFile: facts.privateKeyFile, jumpHost, ...ssh } },
  };
}

function withHostKeys(value: Yaml, facts: LabFacts): Yaml {
  if (isList(value)) return value.map((item) => withHostKeys(item, facts));
  if (!isMap(value)) return value;
  const mapped: Record<string, Yaml> = {};
  for (const [key, item] of Object.entries(value)) mapped[key] = withHostKeys(item, facts);
  const hostKey = typeof value.name === "string" ? facts.hostKeys[value.name] : undefined;
  const isMachine = hostKey !== undefined && typeof value.address === "string";
  return isMachine && mapped.hostKey === undefined ? { ...mapped, hostKey } : mapped;
}

/**
 * Brings a change of what was generated (`before` to `after`) into `current`, the file that `pulumi config set` has
 * written to meanwhile: what was set by hand stays, everything else follows. Lists are followed item by item as long as
 * their lengths agree.
 */
export function merge(before: Yaml, after: Yaml, current: Yaml): Yaml {
  if (isDeepStrictEqual(current, before)) return after;
  if (isDeepStrictEqual(after, before)) return current;
  if (isMap(before) && isMap(after) && isMap(current)) {
    const merged: Record<string, Yaml> = {};
    for (const key of new Set([...Object.keys(after), ...Object.keys(current)])) {
      const value = merge(before[key], after[key], current[key]);
      if (value !== undefined) merged[key] = value;
    }
    return merged;
  }
  if (isList(before) && isList(after) && isList(current)) {
    if (before.length === after.length && after.length === current.length) {
      return after.map((item, i) => merge(before[i], item, current[i]));
    }
  }
  return current;
}

function isList(value: Yaml): value is readonly Yaml[] {
  return Array.isArray(value);
}

function isMap(value: Yaml): value is { readonly [key: string]: Yaml } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
