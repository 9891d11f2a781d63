import { chmod, mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { type DiskKeys, diskDirectories, diskFiles, diskLinks } from "./diskFiles";
import { systemPath } from "./hostPackages";

/** Size of the data disk. The file is sparse: it takes what the machines wrote. */
const size = "16G";

/**
 * Writes a lab's data disk (ext4) to `path`, without a loop device: `mkfs.ext4 -d` copies a directory. Files belong to
 * whoever runs this; the virtual machine hands them to root at its first boot.
 *
 * @throws when mkfs.ext4 fails, with what it said.
 */
export async function createDataDisk(path: string, keys: DiskKeys): Promise<void> {
  const directory = await mkdtemp(join(dirname(path), "disk-"));
  try {
    const tree = join(directory, "tree");
    // mkdir and writeFile are subject to the umask; the modes are to be exact.
    await mkdir(tree, { mode: 0o755 });
    for (const file of diskFiles(keys)) {
      const target = join(tree, file.path);
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, file.content);
      await chmod(target, file.mode ?? 0o644);
    }
    for (const link of diskLinks()) {
      const target = join(tree, link.path);
      await mkdir(dirname(target), { recursive: true });
      await symlink(link.target, target);
    }
    await execa("find", [tree, "-type", "d", "-exec", "chmod", "755", "{}", "+"]);
    for (const { path: name, mode } of diskDirectories()) {
      const target = join(tree, name);
      await mkdir(target, { recursive: true });
      await chmod(target, mode);
    }
    const image = join(directory, "image");
    // The file is new and sparse: its zeros need not be written, now or later.
    const extended = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    await execa(
      "mkfs.ext4",
      ["-q", "-F", "-L", "lab-data", "-m", "0", "-E", extended, "-d", tree, image, size],
      {
        env: systemPath(),
      },
    );
    await chmod(image, 0o600);
    await rename(image, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
