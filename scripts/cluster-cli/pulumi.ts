import { execa } from "execa";
import { Lab } from "../../lab/lab";
import { LabStack, stackName as labStackName } from "../../lab/stack";
import { repository } from "../lib/paths";
import { resolveToolchain } from "../toolchain";

/** What a `pulumi` command came to. */
export interface PulumiResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `pulumi ARGS` on a stack; for the lab's, with the lab's own state and passphrase. A failure is a result. */
export async function runPulumi(
  stack: string,
  args: readonly string[],
  input?: string,
): Promise<PulumiResult> {
  const options = { reject: false, input: input ?? "" } as const;
  const result =
    stack === labStackName
      ? await new LabStack(new Lab()).run(args, options)
      : await run(stack, args, options);
  return {
    exitCode: result.exitCode ?? 1,
    stdout: String(result.stdout ?? ""),
    stderr: String(result.stderr ?? ""),
  };
}

async function run(
  stack: string,
  args: readonly string[],
  options: { readonly reject: false; readonly input: string },
) {
  const { pulumi, env } = await resolveToolchain();
  return execa(pulumi, ["-C", repository, ...args, "--stack", stack], { ...options, env });
}

/** The last line that `pulumi` wrote: mostly the reason of a failure. */
export function lastLine({ stderr }: PulumiResult): string {
  return stderr.trim().split("\n").at(-1) ?? "pulumi said nothing";
}
