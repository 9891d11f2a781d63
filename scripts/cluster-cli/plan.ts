import * as z from "zod";
import { nameOf } from "./state";

const previewSchema = z.object({
  steps: z.array(z.object({ op: z.string(), urn: z.string() })).default([]),
  diagnostics: z.array(z.object({ message: z.string(), severity: z.string() })).default([]),
});

/** What a deployment would do to one resource. */
export interface PlannedStep {
  /** Pulumi's word: create, update, delete, replace ... */
  readonly op: string;
  readonly resource: string;
}

/** Operations that change nothing, and those of which a `replace` consists. */
const QUIET = new Set(["same", "read", "refresh", "create-replacement", "delete-replaced"]);

/** Types of the stack itself, and of components. */
const GROUPS = /^(pulumi:pulumi:Stack|cosyvoice-lvs:.*)$/;

/** What `pulumi preview --json` would change, in its order. Groups of resources are left out: what is in them is named. Pure. */
export function plannedSteps(preview: string): PlannedStep[] {
  return previewSchema
    .parse(JSON.parse(preview))
    .steps.filter(({ op, urn }) => !QUIET.has(op) && !GROUPS.test(typeOf(urn)))
    .map(({ op, urn }) => ({ op, resource: nameOf(urn) }));
}

/** A resource's own type; before it in the URN are those of what it is in. */
function typeOf(urn: string): string {
  return urn.split("::")[2]?.split("$").at(-1) ?? "";
}

/** Why a preview was refused, in the words of the program; empty when it said nothing. Pure. */
export function complaints(preview: string): string[] {
  try {
    return previewSchema
      .parse(JSON.parse(preview))
      .diagnostics.filter(({ severity }) => severity === "error")
      .map(({ message }) => message.trim());
  } catch {
    return [];
  }
}

/** The steps for people: by operation, each resource named. */
export function renderSteps(steps: readonly PlannedStep[]): string {
  return steps.map(({ op, resource }) => `  ${op.padEnd(8)} ${resource}`).join("\n");
}
