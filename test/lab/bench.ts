import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { copyFile, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { type ExecaError, execa } from "execa";
import { parseDocument } from "yaml";
import { Lab } from "../../lab/lab";
import { LabStack } from "../../lab/stack";
import { cacheDir, repository } from "../../scripts/lib/paths";

/** Whether the lab is the tests' own: nobody's machines are lost to them. COSYVOICE_LVS_STATE names another one. */
export const ownLab = process.env.COSYVOICE_LVS_STATE === undefined;
process.env.COSYVOICE_LVS_STATE ??= join(cacheDir(), "test-state");

export const lab = new Lab();

export const VIP = "192.168.1.100";
export const DIRECTORS = ["director-1", "director-2"] as const;
export const REAL_SERVERS = ["rs-1", "rs-2", "rs-3"] as const;

/** What a program came to. */
export interface Outcome {
  readonly exitCode: number;
  /** All that it said, as a terminal shows it, without the colours that it has where CI is set. */
  readonly output: string;
  /** What is for programs: standard output alone, without what tells people how far it is. */
  readonly stdout: string;
}

/** Runs one of `scripts/`, as a user would; its output goes to this terminal too. */
export async function script(name: string, ...args: string[]): Promise<Outcome> {
  const result = await execa(join(repository, "scripts", name), args, {
    reject: false,
    all: true,
    stdin: "ignore",
    stdout: ["pipe", "inherit"],
    stderr: ["pipe", "inherit"],
  });
  return {
    exitCode: result.exitCode ?? 1,
    output: stripVTControlCharacters(result.all ?? ""),
    stdout: result.stdout,
  };
}

/** Runs a shell command as root in a machine, also when its network is gone. @throws when it fails. */
export async function inside(machine: string, command: string): Promise<string> {
  try {
    const { stdout } = await lab.exec(machine, ["sh", "-c", command], { stdin: "ignore" });
    return String(stdout);
  } catch (error) {
    const { exitCode, stderr } = error as ExecaError;
    throw new Error(`${machine}: ${command}: exit ${exitCode}: ${stderr}`);
  }
}

/** Runs a shell command in the virtual machine around the machines. @throws when it fails. */
export async function aroundMachines(command: string): Promise<string> {
  return lab.ssh.inVm("bash", "-c", command);
}

/** The directors that have the VIP on their network interface. */
export async function holders(): Promise<string[]> {
  const found: string[] = [];
  for (const director of DIRECTORS) {
    const on = (await lab.status()).machines.find(({ name }) => name === director)?.state === "on";
    if (on && (await inside(director, "ip -o -4 address show")).includes(` ${VIP}/32 `)) found.push(director);
  }
  return found;
}

/** The one director that holds the VIP. */
export async function holder(): Promise<string> {
  const [one, ...more] = await holders();
  assert.deepEqual(more, []);
  assert.ok(one, "somebody holds the VIP");
  return one;
}

/** The director with the VIP, when it has come to rest: where processors are busy it moves now and then. */
export async function settledHolder(): Promise<string> {
  let found: readonly string[] = [];
  await until("one director holds the VIP", 60, async () => {
    found = await holders();
    return found.length === 1;
  });
  return found[0] as string;
}

/** Deploys the lab's stack as it is now. */
export function up(): Promise<Outcome> {
  return script("lab", "pulumi", "up", "--yes", "--skip-preview", "--non-interactive");
}

/** Asks for a sentence from the client machine, from one of its addresses; which node spoke, or curl's exit code. */
export async function ask(source: string, seconds = 15): Promise<string> {
  const body = JSON.stringify({ model: "cosyvoice", input: "One more." });
  return inside(
    "client",
    `curl -sS -f -m ${seconds} --interface ${source} -o /dev/null -D - -H 'Content-Type: application/json' ` +
      `-d '${body}' http://${VIP}:7860/v1/audio/speech | sed -n 's/^x-served-by: *//Ip' | tr -d '\\r' ; true`,
  );
}

/** Repeats until it is true. @throws with what was waited for. */
export async function until(what: string, seconds: number, test: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  while (!(await test())) {
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Waits until `scripts/cluster status` has no finding. */
export async function untilWell(seconds: number): Promise<void> {
  let last = "";
  try {
    await until("scripts/cluster status finds nothing", seconds, async () => {
      const { exitCode, stdout } = await execa(join(repository, "scripts/cluster"), ["status"], {
        reject: false,
        stdin: "ignore",
      });
      last = stdout;
      return exitCode === 0;
    });
  } catch (error) {
    throw new Error(`${(error as Error).message}\n${last}`);
  }
}

/** Sets values of the lab's stack for a while; then the file is what it was. Takes what {@link applySettings} takes. */
export async function withSettings(
  settings: Record<string, unknown>,
  work: () => Promise<void>,
): Promise<void> {
  const { configFile } = new LabStack(lab);
  const within = existsSync(beside(configFile));
  const had = await readFile(configFile, "utf8");
  await applySettings(settings);
  try {
    await work();
  } finally {
    // Within other settings, those are in force again.
    if (within) await writeFile(configFile, had);
    else await restoreSettings();
  }
}

/**
 * Sets values of the lab's stack, as `pulumi config set --path` would, until {@link restoreSettings}.
 *
 * @param settings by path below the project's namespace, such as `vrrp.advertInterval`; undefined takes a key out.
 */
export async function applySettings(settings: Record<string, unknown>): Promise<void> {
  const { configFile } = new LabStack(lab);
  const document = parseDocument(await readFile(configFile, "utf8"));
  for (const [path, value] of Object.entries(settings)) {
    const [key, ...rest] = path.split(".");
    const keys = [
      "config",
      `cosyvoice-lvs:${key}`,
      ...rest.map((part) => (/^\d+$/.test(part) ? Number(part) : part)),
    ];
    if (value === undefined) document.deleteIn(keys);
    else document.setIn(keys, value);
  }
  if (!existsSync(beside(configFile))) await copyFile(configFile, beside(configFile));
  await writeFile(configFile, document.toString());
}

/** Takes back what was set, also by a run that was killed. */
export async function restoreSettings(): Promise<void> {
  const { configFile } = new LabStack(lab);
  if (existsSync(beside(configFile))) await rename(beside(configFile), configFile);
}

const beside = (configFile: string) => `${configFile}.before`;
