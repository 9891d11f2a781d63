import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { resolveToolchain } from "../../../scripts/toolchain/index";
import { makeStandIn } from "../../../scripts/toolchain/plugins";
import { freePort, makeKey, type Server, startSshd, type Way } from "./sshd";
import { type Runner, record, Stack } from "./stack";

/** What all tests share: servers to log in to, and pulumi with the plugin under test. */
export interface World {
  readonly folder: string;
  /** Takes variables that begin with CONFORMANCE_ or PULUMI_COMMAND_. */
  readonly target: Way;
  /** Takes no variables, and starts to turn connections away when ten wait to log in (sshd's own default). */
  readonly jump: Way;
  /** Nobody listens here. */
  readonly closedPort: number;
  /** A file in the shared folder. */
  path(name: string): string;
  stack(name: string): Promise<Stack>;
  stop(): Promise<void>;
}

/** The folder with the plugin under test: the real one's, or by default the stand-in's, made from this source. */
async function pluginFolder(): Promise<string> {
  return process.env.COMMAND_PLUGIN ?? (await makeStandIn(() => undefined));
}

/** Starts the servers and finds the toolchain. */
export async function makeWorld(): Promise<World> {
  const toolchain = await resolveToolchain();
  const plugin = await pluginFolder();
  const folder = mkdtempSync(join(tmpdir(), "conformance-"));
  mkdirSync(join(folder, "home"));
  mkdirSync(join(folder, "files"));
  const key = makeKey(join(folder, "user"));
  const closedPort = await freePort();
  const servers: Server[] = [
    await startSshd(folder, "target", key, ["MaxStartups 200", "AcceptEnv CONFORMANCE_* PULUMI_COMMAND_*"]),
    await startSshd(folder, "jump", key, ["MaxStartups 10:30:100"]),
  ];
  const [target, jump] = servers.map((server) => server.way) as [Way, Way];

  const runner: Runner = {
    pulumi: toolchain.pulumi,
    env: {
      ...toolchain.env,
      // A home without plugins, so that the one on the PATH is the only one there is.
      PULUMI_HOME: join(folder, "home"),
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
      PATH: [plugin, toolchain.env.PATH].join(delimiter),
      SSH_AUTH_SOCK: undefined,
    },
    scrub: [
      [new RegExp(folder, "g"), "$T"],
      [new RegExp(`\\b${target.port}\\b`, "g"), "$TARGET"],
      [new RegExp(`\\b${jump.port}\\b`, "g"), "$JUMP"],
      [new RegExp(`\\b${closedPort}\\b`, "g"), "$CLOSED"],
      [/(\[id=[a-z-]*?)[0-9a-f]{8}\]/g, "$1HEX]"],
      [/default_1_2_1::[0-9a-f-]{36}/g, "default_1_2_1::UUID"],
      [/lookup (\S+) on \S+:/g, "lookup $1:"],
      [/, peer offered: \[[^\]]*\]/g, ""],
      [/^.*using pulumi-resource-command from \$PATH.*\n/gm, ""],
    ],
  };
  return {
    folder,
    target,
    jump,
    closedPort,
    path: (name) => join(folder, "files", name),
    stack: async (name) => {
      const own = join(folder, name);
      mkdirSync(own);
      const stack = new Stack(name, own, runner);
      await stack.init();
      return stack;
    },
    stop: async () => {
      await Promise.all(servers.map((server) => server.stop()));
      const { CONFORMANCE_RECORD: path } = process.env;
      if (path) writeFileSync(path, `${JSON.stringify(record, null, 2)}\n`);
      if (process.env.CONFORMANCE_KEEP) process.stderr.write(`kept: ${folder}\n`);
      else rmSync(folder, { recursive: true, force: true });
    },
  };
}
