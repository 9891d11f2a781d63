import { type Manifest, manifestOf as parse } from "../scripts/lib/manifests";

/** A resource as the engine shows it to a policy: its inputs, secrets among them in clear. What a rule says is public. */
export interface Declared {
  /** Such as `aws:ec2/instance:Instance`. */
  readonly type: string;
  readonly name: string;
  readonly inputs: Inputs;
  /** Inputs of its provider. */
  readonly provider?: Inputs | undefined;
}

/** A resource among all of its stack. */
export interface Placed extends Declared {
  readonly urn: string;
  /** URNs of the resources that its inputs come from. */
  readonly leadsTo: readonly string[];
}

export type Inputs = Readonly<Record<string, unknown>>;

/** What stands for a value that is only known once something is deployed. */
export const UNKNOWN = Symbol("unknown");

/**
 * The value at a path, or `undefined` where there is none. Before a deployment some values are not known yet: reading one throws,
 * while whether it is there can be asked.
 */
export function at(inputs: unknown, ...path: readonly (string | number)[]): unknown {
  let found: unknown = inputs;
  for (const key of path) {
    if (typeof found !== "object" || found === null || !Object.hasOwn(found, key)) return undefined;
    try {
      found = (found as Record<string | number, unknown>)[key];
    } catch {
      return UNKNOWN;
    }
  }
  return found ?? undefined;
}

/** The elements of a list; none where it is not there or not known. */
export function listAt(inputs: unknown, ...path: readonly (string | number)[]): readonly unknown[] {
  const found = at(inputs, ...path);
  if (!Array.isArray(found)) return [];
  return Array.from({ length: found.length }, (_, index) => at(found, index));
}

/** What a layer brings to its machine; `undefined` for other resources, and before it is known. */
export function manifestOf({ inputs }: Declared): Manifest | undefined {
  return parse(at(inputs, "stdin"));
}
