import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa, type Options } from "execa";
import { Lab } from "../../lab/lab";
import { LabStack, stackName as labStackName } from "../../lab/stack";
import { leavingInterrupts } from "../lib/ending";
import { repository } from "../lib/paths";
import { type Previewed, runPreview } from "../preview-cli/run";
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

/**
 * Runs `pulumi ARGS` on a stack; for the lab's, with the lab's own state and passphrase. A failure is a result.
 *
 * @param configFile instead of the stack's own
 */
export async function runPulumi(
  stack: string,
  args: readonly string[],
  input?: string,
  configFile?: string,
): Promise<PulumiResult> {
  const result = await run(stack, args, { reject: false, input: input ?? "" }, configFile);
  return {
    exitCode: result.exitCode ?? 1,
    stdout: String(result.stdout ?? ""),
    stderr: String(result.stderr ?? ""),
  };
}

/**
 * Previews a stack with another text for its configuration, which is not written to its file.
 *
 * @throws an Error with the program's words when it refuses, or with the rules of the policy pack that would be broken.
 */
export async function preview(stack: string, config: string): Promise<Previewed> {
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-preview-"));
  try {
    const file = join(directory, `Pulumi.${stack}.yaml`);
    await writeFile(file, config, { mode: 0o600 });
    const previewed = await runPreview((args) => runPulumi(stack, args, "", file));
    if (previewed.passed) return previewed;
    const broken = previewed.violations
      .filter(({ mandatory }) => mandatory)
      .map(({ policy, message }) => `${policy}: ${message}`);
    throw new Error(
      `Nothing was changed: the preview fails.\n${[...previewed.errors, ...broken].join("\n")}`,
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/**
 * Runs `pulumi up` on a stack with its output to the terminal.
 *
 * @param aside to standard error, where standard output is for a program
 * @returns whether it succeeded.
 */
export async function deploy(stack: string, aside = false): Promise<boolean> {
  const { exitCode } = await leavingInterrupts(() =>
    run(stack, ["up", "--yes", "--skip-preview"], {
      reject: false,
      stdio: ["inherit", aside ? 2 : "inherit", "inherit"],
    }),
  );
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

/** @param configFile instead of the stack's own */
async function run<T extends Options>(
  stack: string,
  args: readonly string[],
  options: T,
  configFile?: string,
) {
  if (stack === labStackName) return new LabStack(new Lab()).run(args, options, configFile);
  const { pulumi, env } = await resolveToolchain();
  const which = [
    ...(WITHOUT_STACK.has(args[0] ?? "") ? [] : ["--stack", stack]),
    ...(configFile === undefined ? [] : ["--config-file", configFile]),
  ];
  return execa(pulumi, ["-C", repository, ...args, ...which], { ...options, env });
}

/** What to do where Pulumi's own words do not say it: it takes for granted that somebody can type an answer, or download a plugin. */
const hints: readonly (readonly [RegExp, string])[] = [
  [
    /passphrase must be set/,
    "Pulumi does not have the passphrase that encrypts the stack's secrets: export PULUMI_CONFIG_PASSPHRASE_FILE=FILE, with the path of a file that holds it.",
  ],
  [
    /PULUMI_ACCESS_TOKEN must be set for login/,
    "Pulumi is not logged in to a state backend: run pulumi login --local, or log in to yours.",
  ],
  [
    /no stack named '([^']*)' found/,
    "The backend that Pulumi is logged in to has no such stack (pulumi stack ls): pulumi stack init creates it.",
  ],
];

/** What to do about a failure of `pulumi`, where its own words do not say that. */
export function hintOf(said: string): string | undefined {
  const [, plugin, version] =
    /no resource plugin 'pulumi-resource-([\w-]+)' found .*version v([\w.-]+)/.exec(said) ?? [];
  if (plugin !== undefined)
    return `Pulumi's plugin ${plugin} is not on this computer: pulumi plugin install resource ${plugin} ${version}, where its vendor's site can be reached.`;
  return hints.find(([words]) => words.test(said))?.[1];
}

/** The last line that `pulumi` wrote, mostly the reason of a failure; or what to do about it. */
export function lastLine({ stderr }: PulumiResult): string {
  return hintOf(stderr) ?? stderr.trim().split("\n").at(-1) ?? "pulumi said nothing";
}
