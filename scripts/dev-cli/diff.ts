import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { repository } from "../lib/paths";
import type { Rendered } from "./render";
import { writeTree } from "./texts";

const LOADER = join(repository, "node_modules/tsx/dist/loader.mjs");

/**
 * Shows what a change of this work tree makes of the machines' files, as a diff of what a commit renders and what the tree does. The
 * commit's own program renders, with its own stack file.
 *
 * @returns whether anything differs
 * @throws when there is no such commit, or it cannot render.
 */
export async function diffAgainst(
  ref: string,
  stack: string,
  rendered: readonly Rendered[],
  only: string | undefined,
): Promise<boolean> {
  const commit = ["rev-parse", "--verify", "--quiet", `${ref}^{commit}`];
  const known = await execa("git", ["-C", repository, ...commit], { reject: false });
  if (known.exitCode !== 0)
    throw new Error(
      `${repository} has no commit "${ref}" to compare with: name one that git log has (--against), in a clone made by git.`,
    );
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-dev-"));
  try {
    const tree = join(directory, "tree");
    await mkdir(tree);
    const archive = ["git", "-C", repository, "archive", ref] as const;
    await execa(archive[0], archive.slice(1), { encoding: "buffer" }).pipe("tar", ["-x", "-C", tree]);
    await symlink(join(repository, "node_modules"), join(tree, "node_modules"));
    const before = join(directory, ref);
    const program = ["scripts/dev-cli/main.ts", "render", "--stack", stack, "--into", before];
    const { exitCode, stderr } = await execa(process.execPath, ["--import", LOADER, ...program], {
      cwd: tree,
      reject: false,
      stdin: "ignore",
    });
    if (exitCode !== 0) throw new Error(`${ref} does not render ${stack}: ${stderr}`);
    await writeTree(join(directory, "now"), rendered);
    const sides = [ref, "now"].map((side) => (only === undefined ? side : join(side, only)));
    const shown = await execa("git", ["diff", "--no-index", "--no-prefix", ...colour(), ...sides], {
      cwd: directory,
      reject: false,
    });
    if (shown.stdout !== "") console.log(shown.stdout);
    return shown.exitCode !== 0;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function colour(): string[] {
  return process.stdout.isTTY ? ["--color"] : [];
}
