import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import type { PulumiResult } from "../../scripts/cluster-cli/pulumi";
import { repository } from "../../scripts/lib/paths";
import { resolveToolchain } from "../../scripts/toolchain";
import { madeUpHostKey } from "../unit/config-fixture";

type Yaml = Record<string, unknown>;

interface Step {
  readonly urn: string;
  readonly type: string;
  readonly custom: boolean;
  readonly parent?: string;
  readonly provider?: string;
}

interface Plan {
  readonly resourcePlans: Readonly<
    Record<string, { readonly goal: { readonly inputDiff: { readonly adds?: Yaml } }; readonly state?: Yaml }>
  >;
}

/** What the engine writes where an id is not known yet. */
const UNKNOWN_ID = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
const PROVIDER_ID = "00000000-0000-4000-8000-000000000000";

/**
 * A stack of this project with the real `pulumi` and a state in a folder of its own, but without machines. It is previewed as it is;
 * and it can be taken for deployed: what a preview wants to make is written into the state as if it were there.
 */
export class PreviewStack {
  readonly file: string;
  private readonly folder = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-previews-"));

  private constructor(
    readonly name: string,
    private readonly pulumi: string,
    private readonly env: NodeJS.ProcessEnv,
    private readonly config: Yaml,
  ) {
    this.file = join(this.folder, `Pulumi.${name}.yaml`);
  }

  /** @param path folders that come first on the PATH. */
  static async make(name: string, config: Yaml, path: readonly string[] = []): Promise<PreviewStack> {
    const { pulumi, env } = await resolveToolchain();
    const stack = new PreviewStack(name, pulumi, { ...env, PATH: [...path, env.PATH].join(":") }, config);
    const backend = join(stack.folder, "backend");
    mkdirSync(backend);
    Object.assign(stack.env, {
      PULUMI_BACKEND_URL: `file://${backend}`,
      PULUMI_CONFIG_PASSPHRASE: "made up",
      PULUMI_DEBUG_COMMANDS: "true",
    });
    // `stack init` writes to the file beside the project's, and the repository's are not ours to write to.
    writeFileSync(join(stack.folder, "Pulumi.yaml"), stringify({ name: "cosyvoice-lvs", runtime: "nodejs" }));
    await stack.must(["-C", stack.folder, "stack", "init", name]);
    await stack.change({});
    return stack;
  }

  /** Changes values, by their keys, in what the stack was made with. */
  async change(values: Yaml): Promise<void> {
    const { encryptionsalt, config } = parse(readFileSync(this.file, "utf8")) as Record<string, Yaml>;
    const secret = Object.entries(config ?? {}).filter(([, value]) => isSecure(value));
    const keys = Object.entries({ ...this.config, ...values }).map(([key, value]) => [
      `cosyvoice-lvs:${key}`,
      value,
    ]);
    writeFileSync(this.file, stringify({ encryptionsalt, config: Object.fromEntries([...keys, ...secret]) }));
  }

  /** Sets a secret of the stack. */
  async setSecret(key: string, value: string): Promise<void> {
    await this.must(["config", "set", "--secret", key, value]);
  }

  /** Runs `pulumi ARGS` on the stack. */
  run(args: readonly string[]): Promise<PulumiResult> {
    const where = args[0] === "-C" ? [] : ["-C", repository, "--stack", this.name];
    const config = ["preview", "config"].includes(args[0] ?? "") ? ["--config-file", this.file] : [];
    return new Promise((resolve) => {
      execFile(
        this.pulumi,
        [...where, ...args, ...config],
        { env: { ...process.env, ...this.env }, maxBuffer: 1 << 28 },
        (error, stdout, stderr) => resolve({ exitCode: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
      );
    });
  }

  /** Writes what would be made into the state, as if it had been. */
  async takeForDeployed(): Promise<void> {
    const [plan, log] = [join(this.folder, "plan.json"), join(this.folder, "events")];
    await this.must(["preview", "--save-plan", plan, "--show-secrets", "--event-log", log]);
    const { resourcePlans } = JSON.parse(readFileSync(plan, "utf8")) as Plan;
    const steps = readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.includes('"resourcePreEvent"'))
      .map((line) => JSON.parse(line).resourcePreEvent.metadata.new as Step);
    const providers = [...new Set(steps.flatMap(({ provider }) => (provider ? [provider] : [])))];
    const resources = [
      ...steps
        .filter(({ type }) => type === "pulumi:pulumi:Stack")
        .map(({ urn, type }) => ({ urn, type, custom: false, outputs: resourcePlans[urn]?.state })),
      ...providers.map((provider) => {
        const urn = provider.split("::").slice(0, -1).join("::");
        const inputs = resourcePlans[urn]?.goal.inputDiff.adds ?? {};
        return { urn, type: urn.split("::")[2], custom: true, id: PROVIDER_ID, inputs, outputs: inputs };
      }),
      ...steps
        .filter(({ type }) => !type.startsWith("pulumi:"))
        .map(({ urn, type, custom, parent, provider }) => {
          const inputs = resourcePlans[urn]?.goal.inputDiff.adds ?? {};
          const made = {
            id: `${urn.split("::").at(-1)}-id`,
            inputs,
            outputs: { ...inputs, stdout: "", stderr: "" },
            provider: provider?.replace(UNKNOWN_ID, PROVIDER_ID),
          };
          return { urn, type, custom, parent, ...(custom ? made : {}) };
        }),
    ];
    const state = join(this.folder, "state.json");
    const { encryptionsalt: salt } = parse(readFileSync(this.file, "utf8")) as { encryptionsalt: string };
    const deployment = {
      manifest: { time: "2026-01-01T00:00:00Z", magic: "", version: "" },
      secrets_providers: { type: "passphrase", state: { salt } },
      resources,
    };
    writeFileSync(state, JSON.stringify({ version: 3, deployment }));
    await this.must(["stack", "import", "--file", state]);
  }

  dispose(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async must(args: readonly string[]): Promise<void> {
    const { exitCode, stdout, stderr } = await this.run(args);
    if (exitCode !== 0) throw new Error(`pulumi ${args.join(" ")}: ${stderr}\n${stdout}`);
  }
}

function isSecure(value: unknown): boolean {
  return typeof value === "object" && value !== null && "secure" in value;
}

/** The committed example of a stack on own machines, with host keys in place of files that are only on somebody's computer. */
export function exampleConfig(): Yaml {
  const { config } = parse(readFileSync(join(repository, "Pulumi.onprem.yaml"), "utf8")) as { config: Yaml };
  const values = Object.fromEntries(
    Object.entries(config).map(([key, value]) => [key.replace("cosyvoice-lvs:", ""), value]),
  );
  return { ...(withHostKeys(values) as Yaml), ssh: {} };
}

function withHostKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withHostKeys);
  if (typeof value !== "object" || value === null) return value;
  const inner = Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withHostKeys(item)]));
  return typeof inner.name === "string" && typeof inner.address === "string"
    ? { ...inner, hostKey: madeUpHostKey(inner.name) }
    : inner;
}
