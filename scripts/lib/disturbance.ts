import type { Effect } from "./blastRadius";
import type { Manifest, ManifestFile } from "./manifests";

/** What a change of one layer does to its machine. */
export interface Disturbance {
  readonly effect: Effect;
  /** In words, one for each thing. */
  readonly because: readonly string[];
}

/**
 * What a change of a layer asks for whose text a preview does not show, because it is secret. Each has one purpose, and so one
 * effect.
 */
export const secretLayers: Readonly<Record<string, Disturbance>> = {
  "director-auth": { effect: "reload", because: ["keepalived.service reads its VRRP password anew"] },
  "service-key": {
    effect: "nothing",
    because: ["cosyvoice.service sees by itself that its peers' key has changed"],
  },
  "front-door-secrets": {
    effect: "reload",
    because: ["cosyvoice-front-door.service reads its certificate and keys anew"],
  },
  "watcher-secrets": {
    effect: "restart",
    because: ["cosyvoice-alert-relay.service restarts: the receivers' secrets"],
  },
};

interface Entry {
  readonly path: string;
  readonly notify: readonly string[];
}

/** What the applier does when it brings `after` where `before` was; without a `before` the layer is new on its machine. */
export function disturbanceOf(layer: string, before: Manifest | undefined, after: Manifest): Disturbance {
  if (before === undefined) return { effect: "nothing", because: [`gets its layer ${layer}`] };
  const changed = [...changedEntries(before, after)];
  const stopped = stoppedUnits(before, after);
  // A unit that is new is started, and then needs no restart.
  const known = new Set(Object.keys(before.units ?? {}));
  const fresh = Object.keys(after.units ?? {}).filter((unit) => !known.has(unit));
  const restarts = byUnit(changed, "restart", [...fresh, ...stopped]);
  const reloads = byUnit(changed, "reload", [...fresh, ...stopped, ...restarts.keys()]);
  const because = [
    ...stopped.map((unit) => `${unit} stops`),
    ...fresh.map((unit) => `${unit} starts`),
    ...[...restarts].map(([unit, paths]) => `${unit} restarts: ${paths.join(", ")}`),
    ...[...reloads].map(([unit, paths]) => `${unit} is reloaded: ${paths.join(", ")}`),
    ...quietly(changed, before, after),
  ];
  return {
    effect: effectOf(after, [...restarts.keys(), ...stopped], [...reloads.keys()]),
    // Such as another way to ask for a turn.
    because: because.length > 0 ? because : ["is applied again, and finds nothing to change"],
  };
}

/** What the applier does when a layer goes from a machine that stays. */
export function removalOf(layer: string, before: Manifest | undefined): Disturbance {
  const units = Object.entries(before?.units ?? {}).flatMap(([unit, { started }]) => (started ? [unit] : []));
  return {
    effect: units.length > 0 ? "restart" : "nothing",
    because: [`loses its layer ${layer}`, ...units.map((unit) => `${unit} stops`)],
  };
}

/** A real server is drained around whatever disturbs a unit that its layer puts it in its turn for. */
function effectOf(after: Manifest, restarts: readonly string[], reloads: readonly string[]): Effect {
  if (restarts.length + reloads.length > 0 && /\/turn real-server /.test(after.around?.run ?? ""))
    return "drain";
  if (restarts.length > 0) return "restart";
  return reloads.length > 0 ? "reload" : "nothing";
}

function* changedEntries(before: Manifest, after: Manifest): Generator<Entry> {
  const [was, is] = [entriesOf(before), entriesOf(after)];
  for (const [path, entry] of is) {
    if (was.get(path)?.text !== entry.text) yield { path, notify: entry.notify };
  }
  for (const [path, entry] of was) {
    if (!is.has(path)) yield { path, notify: entry.notify };
  }
}

/** Files and links by path, with all that makes one of them another. */
function entriesOf(manifest: Manifest) {
  const ofFile = ({ content, mode, owner, notify }: ManifestFile) => ({
    text: [mode, owner, content].join("\n"),
    notify: notify ?? [],
  });
  const links = Object.entries(manifest.links ?? {}).map(([path, link]) => {
    const { target, notify = [] } = typeof link === "string" ? { target: link } : link;
    return [path, { text: target, notify }] as const;
  });
  const files = Object.entries(manifest.files ?? {}).map(([path, file]) => [path, ofFile(file)] as const);
  return new Map([...files, ...links]);
}

function stoppedUnits(before: Manifest, after: Manifest): string[] {
  const started = ({ units }: Manifest) =>
    Object.entries(units ?? {}).flatMap(([unit, wanted]) => (wanted.started ? [unit] : []));
  const still = started(after);
  return started(before).filter((unit) => !still.includes(unit));
}

/** The units that changed entries ask something for, with those entries. */
function byUnit(
  changed: readonly Entry[],
  verb: "reload" | "restart",
  but: readonly string[],
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { path, notify } of changed) {
    for (const item of notify) {
      const unit = item.slice(verb.length + 1);
      if (!item.startsWith(`${verb}:`) || but.includes(unit)) continue;
      found.set(unit, [...(found.get(unit) ?? []), path]);
    }
  }
  return found;
}

/** What changes without a unit being told. */
function quietly(changed: readonly Entry[], before: Manifest, after: Manifest): string[] {
  const files = changed.filter(({ notify }) => !notify.some((item) => /^(reload|restart):/.test(item)));
  const differ = (key: keyof Manifest) =>
    JSON.stringify(before[key] ?? null) !== JSON.stringify(after[key] ?? null);
  const added = (after.packages ?? []).filter((name) => !before.packages?.includes(name));
  const sysctls = Object.entries(after.sysctls ?? {}).filter(
    ([key, value]) => before.sysctls?.[key] !== value,
  );
  const steps = (after.steps ?? []).filter(
    (step) => !before.steps?.some((other) => JSON.stringify(other) === JSON.stringify(step)),
  );
  return [
    ...(files.length > 0 ? [`changes ${files.map(({ path }) => path).join(", ")}`] : []),
    ...(added.length > 0 ? [`installs ${added.join(", ")}`] : []),
    ...sysctls.map(([key, value]) => `sets ${key} = ${value}`),
    ...steps.map(({ name }) => name),
    ...(["users", "directories", "modules"] as const).filter(differ).map((key) => `changes its ${key}`),
  ];
}
