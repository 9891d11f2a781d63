import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { execa } from "execa";
import type { OpenSsh } from "../../components/remote/openssh";
import { type Manifest, PARTS, pack } from "./archive";
import type { Inventory, InventoryMachine } from "./inventory";
import type { ProgressLine } from "./progress";
import { projectOf } from "./pulumi";
import { runProgram } from "./run";
import type { Session } from "./session";
import { stackFilePath } from "./stackFile";
import { exportStateText } from "./state";
import { askAll, reportOf } from "./status";

/** Seconds for the share's files, which a whole share of results may take. */
export const SHARE_LIMIT = 4 * 3600;

export interface BackupOptions {
  /** @default cosyvoice-STACK-TIME.tar.gz here */
  readonly output?: string | undefined;
  /** What of the share: the voices that users saved, results and logs besides, or nothing. */
  readonly share: "voices" | "all" | "none";
}

/**
 * Packs what is not in git: the stack's state (its secrets stay encrypted), its configuration and, of the share, the saved voices.
 *
 * @returns the archive's path, and what is in it.
 * @throws when one of them cannot be had; there is no archive then.
 */
export async function backup(
  { stack, inventory, ssh, progress }: Session,
  { output, share }: BackupOptions,
): Promise<{ readonly file: string; readonly manifest: Manifest }> {
  const made = new Date().toISOString();
  const stamp = made.slice(0, 19).replaceAll(/[-:]/g, "");
  const file = resolve(output ?? `cosyvoice-${stack}-${stamp}.tar.gz`);
  refuseTarget(file);
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-backup-"));
  try {
    progress.show("exporting the state");
    await writeFile(join(directory, PARTS.state), await exportStateText(stack));
    await copyFile(stackFilePath(stack), join(directory, PARTS.config));
    if (share !== "none") {
      const machine = await onTheShare(inventory, ssh, progress);
      progress.show(`reading the share through ${machine.name}`);
      await mkdir(join(directory, PARTS.share));
      const tar = join(directory, "share.tar");
      await runProgram(machine, ssh, "share.py", ["save", share], { timeout: SHARE_LIMIT, outputFile: tar });
      await execa("tar", [
        "--extract",
        "--file",
        tar,
        "--directory",
        join(directory, PARTS.share),
        "--no-same-owner",
      ]);
      await rm(tar);
    }
    progress.show("packing");
    const about = { project: projectOf(), stack, made, share: share === "none" ? null : share };
    return { file, manifest: await pack(directory, about, file) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Before the share is read, which may take hours. @throws when an archive cannot be written there. */
export function refuseTarget(file: string): void {
  if (existsSync(file)) throw new Error(`${file} is there already: name another file with --output.`);
  if (!existsSync(dirname(file)))
    throw new Error(`There is no directory ${dirname(file)}: make it, or name another file with --output.`);
}

/** A real server that has the share mounted. @throws when there is none. */
export async function onTheShare(
  inventory: Inventory,
  ssh: OpenSsh,
  progress: ProgressLine,
): Promise<InventoryMachine> {
  progress.show("looking for a real server with the share");
  const machines = inventory.machines.filter(({ role }) => role === "realServer");
  const answers = await askAll(inventory, machines, ssh);
  const found = machines.find((machine) => (reportOf(answers, machine)?.outputs ?? null) !== null);
  if (found) return found;
  throw new Error(
    "No real server that can be reached has the share mounted (scripts/cluster status). Without its files: --share none.",
  );
}
