import type { Manifest } from "../../components/remote/manifest";

export type { Manifest, ManifestFile } from "../../components/remote/manifest";

/** The manifest in a layer's `stdin`; `undefined` for anything else, and for one that is not shown or not known yet. */
export function manifestOf(stdin: unknown): Manifest | undefined {
  if (typeof stdin !== "string" || !stdin.startsWith("{")) return undefined;
  try {
    const manifest = JSON.parse(stdin) as Partial<Manifest>;
    return typeof manifest.layer === "string" && typeof manifest.owner === "string"
      ? (manifest as Manifest)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Which layer of which machine a resource is, by the command that takes it away, which is never secret. */
export function layerOf(remove: unknown): { readonly layer: string; readonly machine: string } | undefined {
  if (typeof remove !== "string") return undefined;
  const [, layer, machine] = /\/apply remove (\S+) --owner [^/\s]+\/(\S+)$/.exec(remove) ?? [];
  return layer === undefined || machine === undefined ? undefined : { layer, machine };
}
