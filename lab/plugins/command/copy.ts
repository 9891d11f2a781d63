import { createReadStream, type Stats } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { posix } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Stats as RemoteStats, SFTPWrapper } from "ssh2";
import type { Context } from "./context";
import { type Connection, connect } from "./ssh";
import { isArchive, isAsset, type PropertyMap } from "./values";

/** What is copied, and to where. */
export interface CopyInputs {
  readonly connection: Connection;
  readonly source: PropertyMap;
  readonly remotePath: string;
}

const STATUS: Readonly<Record<number, string>> = { 2: "file does not exist", 3: "permission denied" };

function reason(error: Error): string {
  const { code } = error as Error & { code?: number };
  return STATUS[code ?? -1] ?? `sftp: "${error.message}"`;
}

/** The few file operations that a copy needs, as promises. */
class RemoteFiles {
  constructor(private readonly sftp: SFTPWrapper) {}

  async stat(path: string): Promise<RemoteStats | undefined> {
    return new Promise((resolve, reject) =>
      this.sftp.stat(path, (error, stats) => {
        if (!error) resolve(stats);
        else if ((error as Error & { code?: number }).code === 2) resolve(undefined);
        else reject(new Error(`failed to stat remote path ${path}: ${reason(error)}`));
      }),
    );
  }

  async mkdir(path: string): Promise<void> {
    return new Promise((resolve, reject) =>
      this.sftp.mkdir(path, (error) =>
        error ? reject(new Error(`failed to create remote directory ${path}: ${reason(error)}`)) : resolve(),
      ),
    );
  }

  /** Makes a directory and those above it, as far as they are missing. */
  async mkdirAll(path: string): Promise<void> {
    const stats = await this.stat(path);
    if (stats?.isDirectory()) return;
    if (stats) throw new Error(`remote path ${path} exists but is not a directory`);
    const parent = posix.dirname(path);
    if (parent !== path) await this.mkdirAll(parent);
    try {
      await this.mkdir(path);
    } catch (error) {
      // Another copy may have been quicker.
      const now = await this.stat(path);
      if (!now?.isDirectory()) throw error;
    }
  }

  async parents(path: string): Promise<void> {
    try {
      await this.mkdirAll(posix.dirname(path));
    } catch (error) {
      const text =
        error instanceof Error
          ? error.message.replace(/^failed to create remote directory \S+: /, "")
          : error;
      throw new Error(`failed to create parent directories for ${path}: ${text}`);
    }
  }

  async write(path: string, text: string): Promise<void> {
    return new Promise((resolve, reject) =>
      this.sftp.writeFile(path, text, (error) =>
        error ? reject(new Error(`failed to create remote file ${path}: ${reason(error)}`)) : resolve(),
      ),
    );
  }

  async upload(local: string, path: string): Promise<void> {
    const input = createReadStream(local);
    try {
      await pipeline(input, this.sftp.createWriteStream(path));
    } catch (error) {
      throw new Error(
        `failed to create remote file ${path}: ${error instanceof Error ? reason(error) : error}`,
      );
    }
  }

  async uploadTree(local: string, path: string): Promise<void> {
    const there = await this.stat(path);
    if (!there) await this.mkdir(path);
    else if (!there.isDirectory()) throw new Error(`remote path ${path} exists but is not a directory`);
    for (const entry of await readdir(local, { withFileTypes: true })) {
      const from = posix.join(local, entry.name);
      const to = posix.join(path, entry.name);
      if (entry.isDirectory()) await this.uploadTree(from, to);
      else await this.upload(from, to);
    }
  }
}

async function withFiles<T>(
  connection: Connection,
  context: Context,
  work: (files: RemoteFiles) => Promise<T>,
): Promise<T> {
  const session = await connect(connection, context);
  try {
    const sftp = await new Promise<SFTPWrapper>((resolve, reject) =>
      session.client.sftp((error, wrapper) => (error ? reject(error) : resolve(wrapper))),
    );
    return await work(new RemoteFiles(sftp));
  } finally {
    session.close();
  }
}

async function localStat(path: string): Promise<Stats> {
  return stat(path).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === "ENOENT" ? "no such file or directory" : error.message;
    throw new Error(`open ${path}: ${why}`);
  });
}

/**
 * Copies a file, a folder or a text to another machine. A folder without a slash at its end is copied as a folder of
 * that name, with one its contents are; a file goes into an existing directory or becomes the file of that name.
 */
export async function copyToRemote(inputs: CopyInputs, context: Context): Promise<void> {
  const { source, remotePath } = inputs;
  if (isAsset(source) && typeof source.text === "string" && !source.path) {
    const text = source.text;
    return withFiles(inputs.connection, context, async (files) => {
      const there = await files.stat(remotePath);
      if (there?.isDirectory()) {
        throw new Error(
          `remote path ${remotePath} is a directory; when using a text asset, remotePath must be a file path`,
        );
      }
      await files.parents(remotePath);
      await files.write(remotePath, text);
    });
  }
  if (!isAsset(source) && !isArchive(source)) throw new Error("source must be an asset or an archive");
  const path = String(source.path);
  return withFiles(inputs.connection, context, async (files) => {
    const from = await localStat(path);
    const there = await files.stat(remotePath);
    if (from.isDirectory()) {
      if (!there) await files.mkdirAll(remotePath);
      await files.uploadTree(
        path,
        path.endsWith("/") ? remotePath : posix.join(remotePath, posix.basename(path)),
      );
    } else if (there?.isDirectory()) {
      await files.upload(path, posix.join(remotePath, posix.basename(path)));
    } else {
      if (!there) await files.parents(remotePath);
      await files.upload(path, remotePath);
    }
  });
}

/** Copies one file, for the older resource `CopyFile`. */
export async function copyFile(
  inputs: { connection: Connection; localPath: string; remotePath: string },
  context: Context,
): Promise<void> {
  await localStat(inputs.localPath);
  await withFiles(inputs.connection, context, (files) => files.upload(inputs.localPath, inputs.remotePath));
}
