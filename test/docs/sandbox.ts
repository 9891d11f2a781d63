import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { parse } from "yaml";
import { cacheDir, repository } from "../../scripts/lib/paths";
import { resolveToolchain } from "../../scripts/toolchain";

/** The stack of which the pages speak. */
export const STACK = "office";

/** What a program came to. */
export interface Outcome {
  readonly exitCode: number;
  readonly output: string;
}

/**
 * Where a page's commands are typed: a directory that looks like a clone of the repository, in which stack files can be written, a
 * home directory with a login key and the host keys of the machines of Pulumi.onprem.yaml, and `pulumi` on the PATH.
 */
export class Sandbox implements AsyncDisposable {
  private constructor(
    readonly directory: string,
    private readonly environment: NodeJS.ProcessEnv,
  ) {}

  static async open(): Promise<Sandbox> {
    const root = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-docs-"));
    const [directory, home] = [join(root, "cosyvoice-lvs"), join(root, "home")];
    mkdirSync(directory);
    mkdirSync(join(home, ".ssh"), { recursive: true });
    for (const name of readdirSync(repository)) {
      const [from, to] = [join(repository, name), join(directory, name)];
      // Pulumi writes to its files, and through a link it would be to the repository's.
      if (/^Pulumi\..*yaml$/.test(name)) cpSync(from, to);
      else symlinkSync(from, to);
    }
    await execa("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(home, ".ssh/id_ed25519")]);
    writeFileSync(join(home, ".ssh/known_hosts"), await hostKeys());
    const { env } = await resolveToolchain();
    // Its login is written there, and is nobody else's; its plugins are those of the toolchain.
    const plugins = join(env.PULUMI_HOME ?? process.env.PULUMI_HOME ?? join(homedir(), ".pulumi"), "plugins");
    mkdirSync(join(home, ".pulumi/state"), { recursive: true });
    if (existsSync(plugins)) symlinkSync(plugins, join(home, ".pulumi/plugins"));
    return new Sandbox(directory, {
      ...env,
      HOME: home,
      COSYVOICE_LVS_CACHE: cacheDir(),
      PULUMI_CONFIG_PASSPHRASE: "made up",
      PULUMI_BACKEND_URL: undefined,
      PULUMI_STACK: undefined,
      PULUMI_HOME: join(home, ".pulumi"),
    });
  }

  /** Runs a line as a shell does. */
  async run(line: string): Promise<Outcome> {
    // Pulumi finds the user's home without asking for HOME.
    const state = `file://${this.environment.PULUMI_HOME}/state`;
    const own = line.replace("pulumi login --local", `pulumi login ${state}`);
    const { exitCode, all } = await execa("bash", ["-c", own], {
      cwd: this.directory,
      env: this.environment,
      reject: false,
      stdin: "ignore",
      all: true,
      timeout: 120_000,
    });
    return { exitCode: exitCode ?? 1, output: all };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(join(this.directory, ".."), { recursive: true, force: true });
  }
}

/** A known_hosts of the machines that the example names; each has a key, and none is real. */
async function hostKeys(): Promise<string> {
  const text = JSON.stringify(parse(await readFile(join(repository, "Pulumi.onprem.yaml"), "utf8")));
  const addresses = new Set([...text.matchAll(/"address":"([\d.]+)"/g)].map(([, address]) => address));
  return [...addresses].map((address) => `${address} ssh-ed25519 ${"A".repeat(68)}\n`).join("");
}
