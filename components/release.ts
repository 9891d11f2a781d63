import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { digest } from "./digest";

/** One version of the speech app, in a file, as it travels to machines. */
export interface Release {
  /** Names the version: a hash of every file's path and content. */
  readonly digest: string;
  /** Path on this computer: gzipped JSON of paths and texts. The state keeps its hash, not its content. */
  readonly archive: string;
}

/**
 * Packs the release that a directory holds (`app.py`, the lock file and the package) into a file named after its digest.
 *
 * @param target directory of the file; it is made when it is missing.
 * @throws when a part is missing.
 */
export function packRelease(directory: string, target: string): Release {
  const files = Object.fromEntries(
    ["app.py", "requirements.txt", ...sources(directory, "cosyvoice_app")]
      .sort()
      .map((path) => [path, readFileSync(join(directory, path), "utf8")] as const),
  );
  const content = JSON.stringify(files);
  const name = digest(content);
  const archive = join(target, `${name}.json.gz`);
  mkdirSync(target, { recursive: true });
  // Another deployment may be reading it.
  const written = `${archive}.${process.pid}`;
  writeFileSync(written, gzipSync(content, { level: 9 }));
  renameSync(written, archive);
  return { digest: name, archive };
}

/** The text files of a Python package: code, pages, styles. */
function sources(root: string, below: string): string[] {
  return readdirSync(join(root, below), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes("__pycache__"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}
