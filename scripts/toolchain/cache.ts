import { createHash, type Hash } from "node:crypto";
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { pipeline } from "node:stream/promises";
import { cacheDir } from "../lib/paths";

/** Says what is being done, one line at a time. */
export type Say = (line: string) => void;

/** The part of the cache that the toolchain lies in. */
export function toolchainDir(): string {
  return join(cacheDir(), "toolchain");
}

interface Recorded {
  readonly sha256: string;
  readonly size: number;
  readonly modified: number;
}
type Manifest = Readonly<Record<string, Recorded>>;

const MANIFEST = "manifest.json";

/** The SHA-256 of a file, in hexadecimal digits. */
export async function sha256(path: string): Promise<string> {
  const hash: Hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

async function record(folder: string): Promise<void> {
  const manifest: Record<string, Recorded> = {};
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size, mtimeMs } = statSync(path);
    manifest[relative(folder, path)] = { sha256: await sha256(path), size, modified: Math.floor(mtimeMs) };
  }
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
}

/**
 * True when every file is there as it was recorded. A file's size and time of change are compared first, and its
 * checksum when one of them differs: hashing 100 MB at each start would be felt.
 */
async function intact(folder: string): Promise<boolean> {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(readFileSync(join(folder, MANIFEST), "utf8"));
  } catch {
    return false;
  }
  for (const [name, recorded] of Object.entries(manifest)) {
    const path = join(folder, name);
    const stats = statSync(path, { throwIfNoEntry: false });
    if (!stats || stats.size !== recorded.size) return false;
    if (Math.floor(stats.mtimeMs) !== recorded.modified && (await sha256(path)) !== recorded.sha256)
      return false;
  }
  return true;
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

const LOCK_LIMIT = 20 * 60_000;

/** Does the work while no other process does: the lock is a folder with the owner's process id in it. */
async function locked<T>(say: Say, work: () => Promise<T>): Promise<T> {
  const lock = join(toolchainDir(), "lock");
  const owner = join(lock, "pid");
  await mkdir(toolchainDir(), { recursive: true });
  let waiting = false;
  for (const start = Date.now(); ; ) {
    try {
      await mkdir(lock);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const stats = statSync(lock, { throwIfNoEntry: false });
    const pid = Number(await readFile(owner, "utf8").catch(() => "0"));
    // The id is written right after the folder is made: a folder without one is only abandoned when it is old.
    const abandoned = pid > 0 ? !alive(pid) : stats !== undefined && Date.now() - stats.mtimeMs > 10_000;
    if (abandoned) {
      await rm(lock, { recursive: true, force: true });
      continue;
    }
    if (Date.now() - start > LOCK_LIMIT) {
      throw new Error(
        `Another process (${pid}) has been preparing the toolchain for more than 20 minutes. ` +
          `If it hangs, end it and remove ${lock}.`,
      );
    }
    if (!waiting) say(`waiting for process ${pid}, which is preparing the toolchain`);
    waiting = true;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  try {
    await writeFile(owner, `${process.pid}`);
    return await work();
  } finally {
    await rm(lock, { recursive: true, force: true });
  }
}

/**
 * A folder in the cache that is either complete or not there: made in a temporary one, recorded file by file, then
 * renamed. Made again when one of its files is not what was recorded.
 *
 * @param key names the folder; whatever the content depends on must be in it
 */
export async function cached(
  key: string,
  say: Say,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const folder = join(toolchainDir(), key);
  if (await intact(folder)) return folder;
  return locked(say, async () => {
    if (await intact(folder)) return folder;
    if (existsSync(folder)) say(`${folder} is damaged and is made again`);
    const temporary = `${folder}.${process.pid}.tmp`;
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    try {
      await make(temporary);
      await record(temporary);
      await rm(folder, { recursive: true, force: true });
      await rename(temporary, folder);
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
    return folder;
  });
}

/** Writes a file so that nobody ever sees half of it. */
export async function writeWhole(path: string, text: string, mode = 0o644): Promise<void> {
  if (existsSync(path) && readFileSync(path, "utf8") === text) return;
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, text, { mode });
  await rename(temporary, path);
}

/** How long a "no" is believed at most, milliseconds: networks come and go. */
const NO_LIFETIME = 10 * 60_000;

/** Remembers an answer that costs time, such as whether a site can be reached, for some time (milliseconds). */
export async function remembered<T>(name: string, lifetime: number, ask: () => Promise<T>): Promise<T> {
  const path = join(toolchainDir(), `${name}.json`);
  try {
    const { at, answer } = JSON.parse(readFileSync(path, "utf8")) as { at: number; answer: T };
    if (Date.now() - at < (answer === false ? Math.min(lifetime, NO_LIFETIME) : lifetime)) return answer;
  } catch {
    // Never asked, or unreadable: ask.
  }
  const answer = await ask();
  await writeWhole(path, `${JSON.stringify({ at: Date.now(), answer })}\n`);
  return answer;
}
