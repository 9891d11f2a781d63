import { mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";

const name = "cosyvoice-lvs";

/** The repository's root. */
export const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/**
 * What can be made again, such as the toolchain and the lab's images: `$COSYVOICE_LVS_CACHE`, else
 * `$XDG_CACHE_HOME/cosyvoice-lvs`, else `~/.cache/cosyvoice-lvs`. Made when missing.
 */
export function cacheDir(): string {
  return ensure("COSYVOICE_LVS_CACHE", "XDG_CACHE_HOME", ".cache");
}

/**
 * What cannot be made again, such as the lab's disk, its keys and its Pulumi state: `$COSYVOICE_LVS_STATE`, else
 * `$XDG_STATE_HOME/cosyvoice-lvs`, else `~/.local/state/cosyvoice-lvs`. Made when missing, for its owner only.
 */
export function stateDir(): string {
  return ensure("COSYVOICE_LVS_STATE", "XDG_STATE_HOME", join(".local", "state"));
}

function ensure(own: string, base: string, fallback: string): string {
  const given = process.env[own];
  // The XDG specification: a relative path is to be ignored.
  const root = process.env[base];
  const directory =
    given !== undefined && given !== ""
      ? given
      : join(root !== undefined && isAbsolute(root) ? root : join(homedir(), fallback), name);
  if (!isAbsolute(directory)) {
    throw new Error(`${own} must be an absolute path, but is "${directory}".`);
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return directory;
}
