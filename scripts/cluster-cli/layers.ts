import { nameOf } from "../lib/urn";
import type { StateResource } from "./state";

/** A layer of a machine's configuration, as the last deployment left it in the state. */
export interface DeployedLayer {
  /** The resource's own name, such as `cosyvoice-rs-1-real-server`. */
  readonly resource: string;
  /** Address of its machine. */
  readonly address: string;
  /** What the applier on the machine got, or would get again. It may hold secrets. */
  readonly manifest: string;
}

/** A value in the state; one that is secret is in `plaintext`, as JSON, when secrets are shown. */
type Shown = string | Readonly<Record<string, unknown>> | undefined;

/** Every layer in a state that shows its secrets, in the order in which they depend on each other. */
export function deployedLayers(resources: readonly StateResource[]): DeployedLayer[] {
  return resources.flatMap(({ urn, inputs }) => {
    const create = plain(inputs?.create as Shown);
    const manifest = plain(inputs?.stdin as Shown);
    const address = hostOf(inputs?.connection as Shown);
    if (typeof create !== "string" || !/\/apply apply$/.test(create)) return [];
    if (typeof manifest !== "string" || address === undefined) return [];
    return [{ resource: nameOf(urn), address, manifest }];
  });
}

/** The address that a connection leads to. */
export function hostOf(connection: unknown): string | undefined {
  const { host } = (plain(connection as Shown) ?? {}) as { readonly host?: unknown };
  return typeof host === "string" ? host : undefined;
}

function plain(value: Shown): unknown {
  if (typeof value === "object" && typeof value.plaintext === "string") return JSON.parse(value.plaintext);
  return value;
}
