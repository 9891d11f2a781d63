import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hintOf, type PulumiResult } from "../cluster-cli/pulumi";
import { repository } from "../lib/paths";
import { type Preview, readPreview } from "../lib/previewEvents";

/** What a preview came to. */
export interface Previewed extends Preview {
  /** What `pulumi preview --diff` printed. */
  readonly diff: string;
  /** The deployment can go on: nothing failed, and no rule that must be kept is broken. */
  readonly passed: boolean;
}

/**
 * Runs one `pulumi preview --diff` with the policy pack, and reads what it said to people and, from its log of events, to programs.
 *
 * @param pulumi runs `pulumi ARGS` on the stack, with this process's environment
 */
export async function runPreview(
  pulumi: (args: readonly string[]) => Promise<PulumiResult>,
): Promise<Previewed> {
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-preview-"));
  const log = join(directory, "events");
  // Without it, pulumi has no log of events.
  process.env.PULUMI_DEBUG_COMMANDS = "true";
  try {
    const { exitCode, stdout, stderr } = await pulumi([
      ...["preview", "--diff", "--non-interactive", "--suppress-progress", "--color", "never"],
      ...["--policy-pack", join(repository, "policy"), "--event-log", log],
    ]);
    const preview = readPreview(await readFile(log, "utf8").catch(() => ""));
    // What fails before there are events is said on standard error.
    const errors =
      exitCode === 0 || preview.errors.length > 0
        ? preview.errors.map((error) =>
            [error, hintOf(error)].filter((text) => text !== undefined).join("\n"),
          )
        : [hintOf(stderr) ?? (stderr.trim() || stdout.trim()).replace(/^error: /, "")];
    return { ...preview, errors, diff: stdout.trimEnd(), passed: exitCode === 0 };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
