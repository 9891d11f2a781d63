import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { shellQuote } from "../../render/text";
import { cached, remembered, type Say, writeWhole } from "./cache";
import { type Cli, findOnPath, vendorReachable } from "./cli";

const run = promisify(execFile);
const repository = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** The version in package.json, which is also the version of the plugin. */
const VERSION = "1.2.1";
const EXECUTABLE = "pulumi-resource-command";
/** Lies beside the stand-in in a plugin folder, where the real plugin would lie, and tells them apart. */
const MARK = "stand-in";

/** Where the `command` plugin comes from, and the folder that has to be on the PATH for it, if any. */
export interface CommandPlugin {
  readonly origin: "real" | "stand-in";
  readonly path?: string;
}

function pluginFolder(home: string): string {
  return join(home, "plugins", `resource-command-v${VERSION}`);
}

function realPlugin(home: string): boolean {
  const folder = pluginFolder(home);
  return (
    (existsSync(join(folder, EXECUTABLE)) && !existsSync(join(folder, MARK))) ||
    findOnPath(EXECUTABLE) !== undefined
  );
}

async function install(cli: Cli, home: string, say: Say): Promise<boolean> {
  say(`installing the command plugin ${VERSION}`);
  // The stand-in would count as installed.
  if (existsSync(join(pluginFolder(home), MARK)))
    rmSync(pluginFolder(home), { recursive: true, force: true });
  const env = { ...process.env, PULUMI_HOME: home, PULUMI_SKIP_UPDATE_CHECK: "true" };
  return run(cli.path, ["plugin", "install", "resource", "command", VERSION], { env, timeout: 120_000 }).then(
    () => true,
    (error: Error & { stderr?: string }) => {
      say(`it could not be installed: ${(error.stderr || error.message).trim().split("\n").at(-1)}`);
      return false;
    },
  );
}

/** Everything that the stand-in is made of: a change makes a new one. */
function standInKey(sources: string): string {
  const hash = createHash("sha256").update(process.version).update(process.execPath);
  for (const name of readdirSync(sources).sort()) {
    const path = join(sources, name);
    if (name.endsWith(".ts") && statSync(path).isFile()) hash.update(name).update(readFileSync(path));
  }
  hash.update(readFileSync(join(repository, "package-lock.json")));
  return `command-stand-in-${hash.digest("hex").slice(0, 16)}`;
}

/**
 * Makes the stand-in: one file of JavaScript, so that it starts in a tenth of a second (each run of pulumi starts
 * it), and the executable that the engine looks for. Returns their folder.
 */
export async function makeStandIn(say: Say): Promise<string> {
  const sources = join(repository, "lab", "plugins", "command");
  return cached(standInKey(sources), say, async (target) => {
    const { build } = await import("esbuild");
    await build({
      entryPoints: [join(sources, "main.ts")],
      outfile: join(target, "plugin.cjs"),
      bundle: true,
      platform: "node",
      format: "cjs",
      target: "node20",
      // ssh2 tries these and does without them.
      external: ["cpu-features", "*.node"],
      logLevel: "silent",
    });
    const executable = join(target, EXECUTABLE);
    await writeFile(
      executable,
      `#!/bin/sh\nexec ${shellQuote(process.execPath)} "$(dirname "$0")/plugin.cjs" "$@"\n`,
    );
    await chmod(executable, 0o755);
  });
}

function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

const DAY = 24 * 3600_000;

/**
 * Finds the `command` plugin: one that is installed, else the vendor's, else the stand-in. With a `pulumi` of our own,
 * the stand-in is put where that one keeps its plugins; into the folder of somebody else's it is never written, and
 * goes on the PATH instead (about which the engine warns, rightly).
 */
export async function resolveCommandPlugin(
  cli: Cli,
  ownHome: string | undefined,
  say: Say,
): Promise<CommandPlugin> {
  const home = ownHome ?? process.env.PULUMI_HOME ?? join(homedir(), ".pulumi");
  if (realPlugin(home)) return { origin: "real" };
  if (await vendorReachable()) {
    const done = await remembered(`command-plugin-installed-${shortHash(home)}`, DAY, () =>
      install(cli, home, say),
    );
    if (done && realPlugin(home)) return { origin: "real" };
  }
  const folder = await makeStandIn(say);
  if (ownHome === undefined) return { origin: "stand-in", path: folder };
  const target = pluginFolder(ownHome);
  await writeWhole(join(target, MARK), "This is cosyvoice-lvs's stand-in for the command plugin.\n");
  await writeWhole(
    join(target, EXECUTABLE),
    `#!/bin/sh\nexec ${shellQuote(join(folder, EXECUTABLE))} "$@"\n`,
    0o755,
  );
  return { origin: "stand-in" };
}
