import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { digest } from "./digest";

/** One version of the speech app, as it will lie on a machine. */
export interface Release {
  /** Names the version: a hash of every file's path and content. */
  readonly digest: string;
  /** Names the Python environment it needs: a hash of its lock file. */
  readonly environment: string;
  /** Path below the release's directory, and text. */
  readonly files: Readonly<Record<string, string>>;
}

/** The file that pins the app's Python packages. */
const LOCK = "requirements.txt";

/**
 * Reads the release that a directory holds: `app.py`, the lock file and the package.
 *
 * @throws when the directory has no lock file.
 */
export function readRelease(directory: string): Release {
  const files = Object.fromEntries(
    ["app.py", LOCK, ...sources(directory, "cosyvoice_app")]
      .sort()
      .map((path) => [path, readFileSync(join(directory, path), "utf8")] as const),
  );
  const lock = files[LOCK];
  if (lock === undefined) throw new Error(`${join(directory, LOCK)} is missing`);
  return { digest: digest(JSON.stringify(files)), environment: digest(lock), files };
}

/** The text files of a Python package: code, pages, styles. */
function sources(root: string, below: string): string[] {
  return readdirSync(join(root, below), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes("__pycache__"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)));
}
