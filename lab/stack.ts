import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa, type Options } from "execa";
import { parse, stringify } from "yaml";
import { leavingInterrupts } from "../scripts/lib/ending";
import { repository } from "../scripts/lib/paths";
import { resolveToolchain, type Toolchain } from "../scripts/toolchain";
import { explainLocks } from "../scripts/toolchain/locks";
import { LabError, reason } from "./errors";
import type { Lab } from "./lab";
import { machines } from "./machines";
import { merge, withFacts, type Yaml } from "./stackConfig";
import { LabTls } from "./tls";

/** The lab's stack. */
export const stackName = "lab";

/**
 * Commands of `pulumi` (CLI 3.185) that run the program or read its configuration, and so take `--config-file`. The
 * others neither need the repository nor may see it: `stack rm` would remove the committed Pulumi.lab.yaml.
 */
const withConfigFile = new Set([
  "config",
  "destroy",
  "import",
  "logs",
  "pre",
  "preview",
  "refresh",
  "up",
  "update",
  "watch",
]);

/** The stack `lab` on a lab's machines; its state, configuration and passphrase are in the lab's directory. */
export class LabStack {
  /** The stack's configuration: the committed Pulumi.lab.yaml, the lab's facts, and what was set by hand. */
  readonly configFile: string;
  /** Who vouches for the lab's HTTPS. */
  readonly tls: LabTls;
  private readonly directory: string;

  constructor(private readonly lab: Lab) {
    this.directory = join(lab.directory, "pulumi");
    this.configFile = join(this.directory, `Pulumi.${stackName}.yaml`);
    this.tls = new LabTls(join(lab.directory, "tls"));
  }

  private get backendUrl(): string {
    return `file://${join(this.directory, "backend")}`;
  }

  /** Who keeps the stack locked and what to do about it; undefined when nobody does. */
  async locked(): Promise<string | undefined> {
    return explainLocks(this.backendUrl, "cosyvoice-lvs", stackName, this.directory);
  }

  /** What has to be in the environment for `pulumi` to find the stack. */
  async environment(toolchain: Toolchain): Promise<NodeJS.ProcessEnv> {
    return {
      ...toolchain.env,
      PULUMI_BACKEND_URL: this.backendUrl,
      PULUMI_STACK: stackName,
      // It would come before the file.
      PULUMI_CONFIG_PASSPHRASE: undefined,
      PULUMI_CONFIG_PASSPHRASE_FILE: join(this.directory, "passphrase"),
      PULUMI_SKIP_UPDATE_CHECK: "true",
    };
  }

  /** Makes the passphrase and the stack, unless they are there, and brings its configuration up to date. */
  async prepare(toolchain: Toolchain): Promise<void> {
    await mkdir(join(this.directory, "backend"), { recursive: true, mode: 0o700 });
    const passphrase = join(this.directory, "passphrase");
    if (!existsSync(passphrase))
      await writeFile(passphrase, `${randomBytes(24).toString("hex")}\n`, { mode: 0o600 });
    // A project without a program: for commands that concern the stack alone. `stack init` writes the salt of its
    // encryption to the configuration beside Pulumi.yaml, which is to be ours and not the committed one.
    await writeFile(
      join(this.directory, "Pulumi.yaml"),
      stringify({
        name: "cosyvoice-lvs",
        runtime: "nodejs",
        description: "The lab's stack, without its program",
      }),
    );
    if (
      !existsSync(join(this.directory, "backend", ".pulumi", "stacks", "cosyvoice-lvs", `${stackName}.json`))
    ) {
      try {
        await execa(
          toolchain.pulumi,
          ["-C", this.directory, "stack", "init", stackName, "--non-interactive"],
          {
            env: { ...(await this.environment(toolchain)), PULUMI_STACK: undefined },
            stdin: "ignore",
          },
        );
      } catch (error) {
        throw new LabError(
          `The stack "${stackName}" could not be made: ${reason(error)}`,
          "scripts/lab destroy, then up, starts from nothing.",
          undefined,
          { cause: error },
        );
      }
    }
    await this.writeConfig();
    await this.makeSecret(toolchain, "peerKey", async () => randomBytes(32).toString("hex"));
    await this.keepCertificate(toolchain);
  }

  /** Whether a section of the stack's configuration says `enabled: true`. */
  async isOn(section: "https" | "monitoring"): Promise<boolean> {
    const config = asMap(asMap(await readYaml(this.configFile)).config);
    return asMap(config[`cosyvoice-lvs:${section}`]).enabled === true;
  }

  /** With HTTPS the stack has a certificate of the lab's CA, and without it none, which would be refused. */
  private async keepCertificate(toolchain: Toolchain): Promise<void> {
    if (await this.isOn("https")) {
      await this.tls.ensure();
      await this.makeSecret(toolchain, "tlsCertificate", () => this.tls.certificate());
      await this.makeSecret(toolchain, "tlsKey", () => this.tls.key());
      return;
    }
    const file = asMap(await readYaml(this.configFile));
    const {
      "cosyvoice-lvs:tlsCertificate": certificate,
      "cosyvoice-lvs:tlsKey": key,
      ...rest
    } = asMap(file.config);
    if (certificate !== undefined || key !== undefined)
      await writeYaml(this.configFile, { ...file, config: rest });
  }

  /** Sets a secret of the stack, unless it is set. */
  private async makeSecret(toolchain: Toolchain, name: string, make: () => Promise<string>): Promise<void> {
    const { config } = asMap(await readYaml(this.configFile));
    if (`cosyvoice-lvs:${name}` in asMap(config)) return;
    await this.setSecret(toolchain, name, await make());
  }

  /** Sets a secret of the stack, whatever it was. */
  async setSecret(toolchain: Toolchain, name: string, text: string): Promise<void> {
    const set = ["config", "set", "--secret", name, "--config-file", this.configFile, "--non-interactive"];
    try {
      await execa(toolchain.pulumi, ["-C", repository, ...set], {
        env: await this.environment(toolchain),
        // Not as an argument, which everybody on this computer could read.
        input: text,
      });
    } catch (error) {
      throw new LabError(
        `The secret ${name} could not be kept: ${reason(error)}`,
        "scripts/lab destroy, then up, starts from nothing.",
        undefined,
        { cause: error },
      );
    }
  }

  /**
   * Runs `pulumi ARGS` on the lab's stack: its configuration, backend and passphrase. `destroy` goes on with the other
   * machines when one fails.
   *
   * @param configFile instead of the stack's own, for a preview of what is not written there yet.
   */
  async run<T extends Options>(args: readonly string[], options: T, configFile?: string) {
    // Before anything is built or written for it.
    if (!existsSync(this.lab.keys.loginKeyFile))
      throw new LabError("There is no lab on this computer.", "scripts/lab up makes one.");
    const toolchain = await resolveToolchain();
    await this.prepare(toolchain);
    const command = args.find((arg) => !arg.startsWith("-")) ?? "";
    const own = withConfigFile.has(command)
      ? ["-C", repository, ...args, "--config-file", configFile ?? this.configFile]
      : ["-C", this.directory, ...args];
    const env = {
      ...(await this.environment(toolchain)),
      ...(command === "destroy" ? { PULUMI_CONTINUE_ON_ERROR: "true" } : {}),
    };
    return execa(toolchain.pulumi, own, { ...options, env });
  }

  /** The same with its output to the terminal, and an interrupt left to it. @returns its exit code */
  async runOnTerminal(args: readonly string[]): Promise<number> {
    const { exitCode } = await leavingInterrupts(() => this.run(args, { stdio: "inherit", reject: false }));
    return exitCode ?? 1;
  }

  private async writeConfig(): Promise<void> {
    const hostKeys: Record<string, string> = {};
    for (const { name } of machines) hostKeys[name] = await this.lab.keys.hostKey(name);
    const generated = withFacts(await readYaml(join(repository, `Pulumi.${stackName}.yaml`)), {
      privateKeyFile: this.lab.keys.loginKeyFile,
      jumpPort: await this.lab.sshPort(),
      jumpHostKey: await this.lab.keys.hostKey("vm"),
      hostKeys,
    });
    const generatedFile = join(this.directory, "generated.yaml");
    const current = await readYaml(this.configFile);
    // Beyond the salt, `stack init` leaves nothing: the first time, all of it is generated.
    const before = existsSync(generatedFile) ? await readYaml(generatedFile) : undefined;
    const merged =
      before === undefined ? { ...asMap(generated), ...asMap(current) } : merge(before, generated, current);
    await writeYaml(this.configFile, merged);
    await writeYaml(generatedFile, generated);
  }
}

function asMap(value: Yaml): { readonly [key: string]: Yaml } {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as { readonly [key: string]: Yaml })
    : {};
}

async function readYaml(file: string): Promise<Yaml> {
  const text = await readFile(file, "utf8").catch(() => "");
  return parse(text) as Yaml;
}

async function writeYaml(file: string, value: Yaml): Promise<void> {
  await writeFile(`${file}.new`, stringify(value, { lineWidth: 0 }), { mode: 0o600 });
  await rename(`${file}.new`, file);
}
