/**
 * What a deployment does to every machine, read from a preview: which units are reloaded or restarted, which real servers are
 * drained, and which clients meet another real server afterwards. It follows host/apply.py, which decides the same on the machine.
 *
 * Pure.
 */
import { paths } from "../../render/paths";
import { shareByServer, sharesThatMove } from "./clientMoves";
import { type Disturbance, disturbanceOf, removalOf, secretLayers } from "./disturbance";
import { layerOf, type Manifest, manifestOf } from "./manifests";
import type { PreviewStep } from "./previewEvents";
import { nameOf } from "./urn";

/** How much of a machine's work is disturbed, from the least to the most. */
const effects = ["nothing", "reload", "restart", "drain"] as const;
export type Effect = (typeof effects)[number];

/** What becomes of one machine. */
export interface MachineRadius {
  readonly machine: string;
  readonly change: "new" | "leaves" | "changed" | "unchanged";
  readonly effect: Effect;
  /** What happens there, in words, one for each thing. */
  readonly because: readonly string[];
}

/** What becomes of clients. */
export interface ClientRadius {
  /** `VIP:port` */
  readonly service: string;
  readonly scheduler: string;
  /** Share of the client addresses that meet another real server for good; `null` where that cannot be computed. */
  readonly moved: number | null;
}

export interface BlastRadius {
  readonly machines: readonly MachineRadius[];
  readonly clients: readonly ClientRadius[];
  /** Largest share of clients that a real server has which is drained, while it is; 0 without any. */
  readonly drained: number;
  /** Real servers that may be out at a time; `null` before it was deployed. */
  readonly maxUnavailable: number | null;
  /** What is made, changed or removed besides machines' layers: of the cloud, by what happens to it. */
  readonly others: readonly { readonly op: string; readonly name: string; readonly type: string }[];
}

/** A layer of a machine in a preview. */
interface LayerStep {
  readonly layer: string;
  readonly machine: string;
  readonly step: PreviewStep;
  readonly before: Manifest | undefined;
  readonly after: Manifest | undefined;
}

const MADE = ["create", "create-replacement", "import"];
const REMOVED = ["delete", "delete-replaced", "discard", "discard-replaced"];

/** What a preview does to machines and clients. */
export function blastRadius(steps: readonly PreviewStep[]): BlastRadius {
  const layers = steps.flatMap(layerIn);
  const [before, after] = [directorIn(layers, "before"), directorIn(layers, "after")];
  const [was, is] = [turnsIn(before), turnsIn(after)];
  const moved = is.machines
    .filter(({ name, address }) => was.machines.some((old) => old.name === name && old.address !== address))
    .map(({ name }) => name);
  const other = new Set([...moved, ...replacedInstances(steps)]);
  const machines = namesIn(layers).map((machine) =>
    radiusOf(
      machine,
      layers.filter((layer) => layer.machine === machine),
      other.has(machine),
    ),
  );
  const shares = shareByServer(after ?? before);
  const drained = machines
    .filter(({ effect, change }) => effect === "drain" && change !== "new")
    .map(
      ({ machine }) => [...is.machines, ...was.machines].find(({ name }) => name === machine)?.address ?? "",
    );
  return {
    machines,
    clients: sharesThatMove(before, after),
    drained: Math.max(0, ...drained.map((address) => shares.get(address) ?? 0)),
    maxUnavailable: is.maxUnavailable ?? was.maxUnavailable,
    others: steps.flatMap(otherIn),
  };
}

/** The machines in the order in which one thinks of them. */
function namesIn(layers: readonly LayerStep[]): string[] {
  const roles = ["director", "real-server", "outputs-export", "watcher"];
  const role = (machine: string) => {
    const own = layers.filter((layer) => layer.machine === machine).map(({ layer }) => layer);
    const found = roles.findIndex((layer) => own.includes(layer));
    return found < 0 ? roles.length : found;
  };
  return [...new Set(layers.map(({ machine }) => machine))].sort(
    (one, other) => role(one) - role(other) || one.localeCompare(other, "en", { numeric: true }),
  );
}

/** A director's manifest, from which it is known where clients go: of the first one that has it. */
function directorIn(layers: readonly LayerStep[], side: "before" | "after"): Manifest | undefined {
  return layers.find((one) => one.layer === "director" && one[side] !== undefined)?.[side];
}

interface Turns {
  readonly maxUnavailable: number | null;
  readonly machines: readonly { readonly name: string; readonly address: string }[];
}

/** What a director is told of turns: who takes part, and how many at a time. */
function turnsIn(director: Manifest | undefined): Turns {
  const text = director?.files?.[paths.turnsConfig]?.content;
  if (text === undefined) return { maxUnavailable: null, machines: [] };
  const { maxUnavailable, directors, realServers } = JSON.parse(text);
  return { maxUnavailable, machines: [...directors, ...realServers] };
}

function layerIn(step: PreviewStep): LayerStep[] {
  const named = layerOf(step.after?.delete) ?? layerOf(step.before?.delete);
  // A replacement has three steps; the one that makes says both what was and what will be.
  if (named === undefined || step.op === "replace" || step.op === "delete-replaced") return [];
  return [
    {
      ...named,
      step,
      before:
        MADE.includes(step.op) && step.op !== "create-replacement"
          ? undefined
          : manifestOf(step.before?.stdin),
      after: REMOVED.includes(step.op) ? undefined : manifestOf(step.after?.stdin),
    },
  ];
}

function radiusOf(machine: string, layers: readonly LayerStep[], another: boolean): MachineRadius {
  const kept = layers.filter(({ step }) => !REMOVED.includes(step.op));
  const had = layers.filter(({ step }) => !MADE.includes(step.op));
  const pooled = layers.some(({ layer }) => layer === "real-server");
  if (kept.length === 0) {
    const because = [pooled ? "leaves the cluster: drained, then cleaned" : "leaves the cluster: cleaned"];
    return { machine, change: "leaves", effect: pooled ? "drain" : "restart", because };
  }
  if (another || had.length === 0) {
    const because = [another ? "another machine takes its place, and is set up" : "is set up"];
    return { machine, change: "new", effect: "nothing", because };
  }
  const disturbances = layers.flatMap(disturbanceIn);
  if (disturbances.length === 0) return { machine, change: "unchanged", effect: "nothing", because: [] };
  return {
    machine,
    change: "changed",
    effect: worst(disturbances.map(({ effect }) => effect)),
    because: [...new Set(disturbances.flatMap(({ because }) => because))],
  };
}

function worst(all: readonly Effect[]): Effect {
  return effects[Math.max(0, ...all.map((effect) => effects.indexOf(effect)))] ?? "nothing";
}

function disturbanceIn({ layer, step, before, after }: LayerStep): Disturbance[] {
  if (step.op === "same" || step.op === "read" || step.op === "refresh") return [];
  if (REMOVED.includes(step.op)) return [removalOf(layer, before)];
  if (step.op === "create-replacement") {
    // It is taken away first.
    return [
      {
        effect: removalOf(layer, before).effect,
        because: [`its layer ${layer} is removed and created again`],
      },
    ];
  }
  if (after !== undefined) return [disturbanceOf(layer, MADE.includes(step.op) ? undefined : before, after)];
  const kept = secretLayers[layer];
  if (kept !== undefined && step.op !== "create") return [kept];
  return [
    {
      effect: "nothing",
      because: [
        step.op === "create" ? `gets its layer ${layer}` : `its layer ${layer} is known only at deployment`,
      ],
    },
  ];
}

/** The machines on AWS in whose place another one comes. */
function replacedInstances(steps: readonly PreviewStep[]): string[] {
  return steps
    .filter(({ type, op }) => type === "aws:ec2/instance:Instance" && op === "create-replacement")
    .flatMap(({ urn }) => /^cosyvoice-(.+)-instance$/.exec(nameOf(urn))?.[1] ?? []);
}

/** What is no layer and no copy of a file to a machine, and does something. */
function otherIn({ op, urn, type }: PreviewStep): BlastRadius["others"] {
  const of = type.split(":")[0] ?? "";
  const silent = ["same", "read", "refresh", "replace"].includes(op);
  if (silent || ["command", "pulumi", "cosyvoice-lvs"].includes(of)) return [];
  return [{ op, name: nameOf(urn), type }];
}
