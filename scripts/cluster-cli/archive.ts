import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { pipeline } from "node:stream/promises";
import { execa } from "execa";
import * as z from "zod";

const MANIFEST = "manifest.json";

/** Names of what an archive has, beside the share's files below `share/`. */
export const PARTS = { state: "state.json", config: "stack.yaml", share: "share" } as const;

const manifestSchema = z.object({
  format: z.literal(1),
  project: z.string(),
  stack: z.string(),
  /** ISO 8601 */
  made: z.string(),
  /** Of the share: `voices`, or `all` of it; null when it has none of its files. */
  share: z.enum(["voices", "all"]).nullable(),
  /** SHA-256 by path in the archive. */
  files: z.record(z.string(), z.string()),
});

/** What an archive says of itself. */
export type Manifest = z.infer<typeof manifestSchema>;

/** SHA-256 of a file. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** Every file below a directory, but for its manifest, with its SHA-256. */
async function hashes(directory: string): Promise<Record<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)))
    .filter((path) => path !== MANIFEST)
    .sort();
  const found: Record<string, string> = {};
  for (const path of paths) found[path] = await sha256(join(directory, path));
  return found;
}

/** Writes the manifest of what a directory has, and packs both into a file that only its owner can read. */
export async function pack(
  directory: string,
  about: Omit<Manifest, "files" | "format">,
  target: string,
): Promise<Manifest> {
  const manifest: Manifest = { format: 1, ...about, files: await hashes(directory) };
  await writeFile(join(directory, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
  // Its owner alone, from its first byte on.
  await writeFile(target, "", { mode: 0o600, flag: "wx" });
  await execa("tar", ["--create", "--gzip", "--file", target, "--directory", directory, "."]);
  return manifest;
}

/**
 * Unpacks an archive into a directory and compares every file with the manifest.
 *
 * @throws an Error with everything that is wrong with it.
 */
export async function unpack(archive: string, directory: string): Promise<Manifest> {
  const tar = ["--extract", "--gzip", "--file", archive, "--directory", directory, "--no-same-owner"];
  const { exitCode, stderr } = await execa("tar", tar, { reject: false });
  // The first line has the reason, the last one that tar gives up.
  if (exitCode !== 0) throw new Error(`${archive} cannot be read: ${stderr.trim().split("\n")[0]}`);
  let manifest: Manifest;
  try {
    manifest = manifestSchema.parse(JSON.parse(await readFile(join(directory, MANIFEST), "utf8")));
  } catch (error) {
    throw new Error(
      `${archive} is not a backup of scripts/cluster, or is one of a newer version: its ${MANIFEST} cannot be read.`,
      {
        cause: error,
      },
    );
  }
  const wrong = compare(manifest.files, await hashes(directory));
  if (wrong.length > 0)
    throw new Error(`${archive} differs from what was packed. Nothing was restored.\n${wrong.join("\n")}`);
  return manifest;
}

/** What differs between what a manifest says and what is there. Pure. */
export function compare(
  said: Readonly<Record<string, string>>,
  there: Readonly<Record<string, string>>,
): string[] {
  return [...new Set([...Object.keys(said), ...Object.keys(there)])].sort().flatMap((path) => {
    if (!(path in there)) return [`  ${path} is missing`];
    if (!(path in said)) return [`  ${path} is not in the manifest`];
    return said[path] === there[path] ? [] : [`  ${path} does not match its SHA-256 in the manifest`];
  });
}
