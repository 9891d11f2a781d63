import {
  equal,
  isArchive,
  isAsset,
  isMap,
  isSecret,
  isUnknown,
  type PropertyMap,
  unwrap,
  type Value,
} from "./values";

/** How a property changed. */
export type Change = "add" | "delete" | "update";

/** A secret whose text is not known yet: the engine cannot compare it, so it counts as unchanged. */
function isOpaque(value: Value | undefined): boolean {
  return value !== undefined && isSecret(value) && isUnknown(unwrap(value));
}

function isPlainMap(value: Value): value is PropertyMap {
  return isMap(value) && !isSecret(value) && !isAsset(value) && !isArchive(value);
}

function child(path: string, key: string): string {
  if (/[.[\]"]/.test(key) || key === "") return `${path}[${JSON.stringify(key)}]`;
  return path === "" ? key : `${path}.${key}`;
}

function compare(path: string, before: Value, after: Value, changes: Map<string, Change>): void {
  if (Array.isArray(before) && Array.isArray(after)) {
    for (let i = 0; i < Math.max(before.length, after.length); i++) {
      const old = before[i];
      const now = after[i];
      if (old === undefined) changes.set(`${path}[${i}]`, "add");
      else if (now === undefined) changes.set(`${path}[${i}]`, "delete");
      else compare(`${path}[${i}]`, old, now, changes);
    }
  } else if (isPlainMap(before) && isPlainMap(after)) {
    compareMaps(path, before, after, changes);
  } else if (!equal(before, after)) {
    changes.set(path, "update");
  }
}

function compareMaps(
  path: string,
  before: PropertyMap,
  after: PropertyMap,
  changes: Map<string, Change>,
): void {
  for (const [key, old] of Object.entries(before)) {
    const now = after[key];
    if (now === undefined) {
      if (!isOpaque(old)) changes.set(child(path, key), "delete");
    } else if (!isOpaque(now)) {
      compare(child(path, key), old, now, changes);
    }
  }
  for (const [key, now] of Object.entries(after)) {
    if (before[key] === undefined && !isOpaque(now)) changes.set(child(path, key), "add");
  }
}

/** What changed between two sets of inputs, by property path (`environment.A`, `triggers[0]`). */
export function diff(before: PropertyMap, after: PropertyMap): Map<string, Change> {
  const changes = new Map<string, Change>();
  compareMaps("", before, after, changes);
  return changes;
}

/** The first name of a property path: the property of the resource itself. */
export function root(path: string): string {
  const quoted = /^\["((?:[^"\\]|\\.)*)"\]/.exec(path);
  return quoted?.[1] ?? path.replace(/[.[].*$/s, "");
}
