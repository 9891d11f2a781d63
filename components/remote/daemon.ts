import { posix } from "node:path";
import { type Program, stamp } from "./layer";
import { type ManifestFile, rootFile } from "./manifest";

/** A path on the machine, and what is to be there. */
export type Text = readonly [path: string, content: string];

/**
 * A program of ours under systemd: its unit, and its configuration with what a change of that asks for. A change of the program
 * or of the unit restarts it.
 */
export function daemon(
  program: Program,
  [unitPath, unitText]: Text,
  config?: { readonly reload: Text } | { readonly restart: Text },
) {
  const unit = posix.basename(unitPath);
  const configured = (verb: string, [path, content]: Text): Record<string, ManifestFile> => ({
    [path]: rootFile(content, { notify: [`${verb}:${unit}`] }),
  });
  return {
    files: {
      ...stamp(program, unit),
      ...(config === undefined
        ? {}
        : "reload" in config
          ? configured("reload", config.reload)
          : configured("restart", config.restart)),
      [unitPath]: rootFile(unitText, { notify: [`restart:${unit}`] }),
    },
    units: { [unit]: { enabled: true, started: true } },
  };
}
