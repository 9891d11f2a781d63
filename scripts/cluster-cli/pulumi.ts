import { execa, type Options } from "execa";
import { Lab } from "../../lab/lab";
import { LabStack, stackName as labStackName } from "../../lab/stack";
import { repository } from "../lib/paths";
import { resolveToolchain } from "../toolchain";
import { explainLocks, projectName } from "../toolchain/locks";

/** What a `pulumi` command came to. */
export interface PulumiResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Commands that know no --stack. */
const WITHOUT_STACK = new Set(["whoami"]);

/** Runs `pulumi ARGS` on a stack; for the lab's, with the lab's own state and passphrase. A failure is a result. */
export async function runPulumi(
  stack: string,
  args: readonly string[],
  input?: string,
): Promise<PulumiResult> {
  const result = await run(stack, args, { reject: false, input: input ?? "" });
  return {
    exitCode: result.exitCode ?? 1,
    stdout: String(result.stdout ?? ""),
    stderr: String(result.stderr ?? ""),
  };
}

/** Runs `pulumi up` on a stack with its output to the terminal. @returns whether it succeeded. */
export async function deploy(stack: string): Promise<boolean> {
  const { exitCode } = await run(stack, ["up", "--yes", "--skip-preview"], {
    reject: false,
    stdio: "inherit",
  });
  if (exitCode === 0) return true;
  const hint = await explainLocks(await backendUrl(stack), projectOf(), stack, repository);
  if (hint !== undefined) console.error(`\n${hint}`);
  return false;
}

/** Where a stack's state is kept. */
export async function backendUrl(stack: string): Promise<string> {
  const result = await runPulumi(stack, ["whoami", "--json"]);
  if (result.exitCode !== 0) throw new Error(`pulumi whoami: ${lastLine(result)}`);
  return (JSON.parse(result.stdout) as { url: string }).url;
}

/** The name of this Pulumi project. */
export function projectOf(): string {
  const name = projectName(repository);
  if (name === undefined) throw new Error(`There is no Pulumi.yaml with a name in ${repository}.`);
  return name;
}

async function run<T extends Options>(stack: string, args: readonly string[], options: T) {
  if (stack === labStackName) return new LabStack(new Lab()).run(args, options);
  const { pulumi, env } = await resolveToolchain();
  const which = WITHOUT_STACK.has(args[0] ?? "") ? [] : ["--stack", stack];
  return execa(pulumi, ["-C", repository, ...args, ...which], { ...options, env });
}

/** The last line that `pulumi` wrote: mostly the reason of a failure. */
export function lastLine({ stderr }: PulumiResult): string {
  return stderr.trim().split("\n").at(-1) ?? "pulumi said nothing";
}
