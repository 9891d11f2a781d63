import { delimiter, dirname, join } from "node:path";
import { type Say, toolchainDir } from "./cache";
import { type Cli, resolveCli, vendorReachable } from "./cli";
import { resolveCommandPlugin } from "./plugins";

/** A `pulumi` with everything that it needs to run this project's program. */
export interface Toolchain {
  /** The path of `pulumi`. */
  readonly pulumi: string;
  /** What has to be added to the environment for it, PATH included. */
  readonly env: NodeJS.ProcessEnv;
  /** What was chosen, in one line. */
  readonly summary: string;
}

/** How the choice is told. */
export interface ToolchainOptions {
  /** Gets a line for each step that takes time. @default standard error */
  readonly say?: Say;
}

const ORIGINS: Readonly<Record<Cli["origin"], string>> = {
  installed: "as installed",
  official: "the vendor's build",
  built: "built from its Go modules",
};

/**
 * Finds or makes a `pulumi` and the plugins it needs. What is made lies in the cache and is made once; the second call
 * only compares what is there with what was recorded.
 *
 * @throws an Error that says what to install when there is no way to a `pulumi` here
 */
export async function resolveToolchain(options: ToolchainOptions = {}): Promise<Toolchain> {
  const say: Say = options.say ?? ((line) => process.stderr.write(`toolchain: ${line}\n`));
  const cli = await resolveCli(say);
  // An installed pulumi keeps its own home, with its user's login. Ours keeps nothing outside the cache.
  const home = cli.origin === "installed" ? undefined : join(toolchainDir(), "home");
  const plugin = await resolveCommandPlugin(cli, home, say);

  const path = [plugin.path, dirname(cli.path), process.env.PATH].filter((entry) => entry !== undefined);
  const env: NodeJS.ProcessEnv = { PATH: path.join(delimiter), PULUMI_SKIP_UPDATE_CHECK: "true" };
  if (home !== undefined) env.PULUMI_HOME = home;
  // Otherwise each run asks, in vain and five times, for every plugin that an npm package names.
  if (plugin.origin === "stand-in" && !(await vendorReachable())) {
    env.PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION = "true";
  }
  const which = plugin.origin === "real" ? "plugin command" : "a stand-in for plugin command";
  const summary = `pulumi ${cli.version.replace(/^v/, "")}, ${ORIGINS[cli.origin]}, with ${which}`;
  return { pulumi: cli.path, env, summary };
}
