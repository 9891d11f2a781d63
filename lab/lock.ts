import { readFile, rm, writeFile } from "node:fs/promises";
import { LabError } from "./errors";

/**
 * Runs `work` while no other process does so with the same lock file.
 *
 * @throws LabError when another one is at it.
 */
export async function withLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      await writeFile(file, `${process.pid}\n`, { flag: "wx" });
      break;
    } catch (error) {
      const holder = Number(await readFile(file, "utf8").catch(() => ""));
      // Killed ones leave their lock behind. An empty file is one that is just being written.
      if (holder > 0 && !isAlive(holder)) {
        await rm(file, { force: true });
        continue;
      }
      throw new LabError(
        `Another scripts/lab is at work on this lab (process ${holder || "unknown"}, ${file}).`,
        "Wait for it to end, or end it.",
        undefined,
        { cause: error },
      );
    }
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
