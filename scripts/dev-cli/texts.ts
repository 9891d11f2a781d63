import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { stringify } from "yaml";
import type { Manifest } from "../../components/remote/manifest";
import type { Rendered } from "./render";

const WITHHELD = "(secret)\n";

/** A machine's layers for people: what each asks for, then its files whole. Pure. */
export function renderedText({ machine, layers }: Rendered): string {
  return layers
    .map(({ resource, manifest }) => {
      const files = Object.entries(manifest.files ?? {}).map(
        ([path, { mode, owner, content }]) =>
          `--- ${path} ${mode} ${owner}\n${manifest.secret ? WITHHELD : content}`,
      );
      return [`=== ${machine}, layer ${manifest.layer} (${resource})`, rest(manifest), ...files].join("\n");
    })
    .join("\n");
}

/** The content of one file of a machine. @throws with the paths that there are. */
export function fileText({ machine, layers }: Rendered, path: string): string {
  const all = layers.flatMap(({ manifest }) =>
    Object.entries(manifest.files ?? {}).map(([at, { content }]) => ({
      at,
      text: manifest.secret ? WITHHELD : content,
    })),
  );
  const found = all.find(({ at }) => at === path);
  if (found) return found.text;
  throw new Error(`${machine} gets no ${path}. It gets:\n${all.map(({ at }) => `  ${at}`).join("\n")}`);
}

/** Writes machines as directories: each file at its path, and beside them what a layer says besides, in LAYER.yaml. */
export async function writeTree(directory: string, rendered: readonly Rendered[]): Promise<void> {
  const put = async (path: string, text: string) => {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  };
  for (const { machine, layers } of rendered) {
    for (const { manifest } of layers) {
      await put(join(directory, machine, `${manifest.layer}.yaml`), rest(manifest));
      for (const [path, { content }] of Object.entries(manifest.files ?? {}))
        await put(join(directory, machine, path), manifest.secret ? WITHHELD : content);
    }
  }
}

/** What a manifest has besides the contents of its files. */
function rest({ layer, owner, files = {}, ...others }: Manifest): string {
  const about = Object.entries(files).map(([path, { content, ...more }]) => [path, more]);
  const shown = about.length === 0 ? others : { ...others, files: Object.fromEntries(about) };
  return stringify(shown, { lineWidth: 0 });
}
