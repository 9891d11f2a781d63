import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type * as pulumi from "@pulumi/pulumi";
import type { Problem } from "../config/problems";
import type { ClusterConfig } from "../config/schema";
import { paths } from "../render/paths";
import { modelName } from "../render/service";
import { findCommit } from "./commits";
import { digest } from "./digest";
import type { Machine } from "./platform/machine";
import { copy, type LayerContent, layer } from "./remote/layer";
import type { Manifest } from "./remote/manifest";
import { rootFile } from "./remote/manifest";
import { expandHome } from "./remote/openssh";

/** File name of the lock file in the login user's home directory. */
const LOCK = ".cosyvoice-lvs-engine-lock.txt";

/** GiB of an environment with PyTorch and CUDA, with what passes through while it is made; of one without; of a model. */
const SPACE = { cuda: 12, plain: 1, model: 10 } as const;

/** The oldest driver with which each CUDA runs (NVIDIA's release notes, "minor version compatibility"). */
const drivers: Readonly<Record<string, string>> = { 11: "450.80.02", 12: "525.60.13", 13: "580.65.06" };

/** What the engine cosyvoice is made of. */
export interface Engine {
  /** Names the whole: real servers keep it under this name beside others. */
  readonly name: string;
  /** Full commit of upstream's repository. */
  readonly commit: string;
  /** The lock file of its Python environment, on this computer. */
  readonly lock: string;
  /** Names the environment. */
  readonly environment: string;
  /** GiB that the environment takes. */
  readonly environmentSpace: number;
  /** Oldest driver for the CUDA in the lock file. `undefined`: it has none. */
  readonly driver: string | undefined;
  /** Names the weights. */
  readonly model: string;
  /** Text of `app.model.checksums`. */
  readonly checksums: string | undefined;
}

/**
 * Finds out what the configuration's engine is made of: reads the files that it names, and asks the repository what a branch
 * means.
 *
 * @returns the engine, or all that is wrong.
 */
export async function findEngine({ app }: ClusterConfig): Promise<Engine | { problems: Problem[] }> {
  const problems: Problem[] = [];
  const read = (path: string, file: string): string => {
    try {
      return readFileSync(file, "utf8");
    } catch (error) {
      const message = `cannot be read (${(error as NodeJS.ErrnoException).code})`;
      problems.push({ path, value: file, message, fix: "name a file that exists and that you may read" });
      return "";
    }
  };
  const lock =
    app.requirements === undefined
      ? fileURLToPath(new URL("../app/engine/cosyvoice.txt", import.meta.url))
      : expandHome(app.requirements);
  const packages = read("app.requirements", lock);
  if (packages !== "" && !packages.includes("--hash=sha256:")) {
    problems.push({
      path: "app.requirements",
      value: lock,
      message: "has no hashes",
      fix: "generate it with uv pip compile --generate-hashes (see docs/engine.md)",
    });
  }
  const checksums =
    app.model.checksums === undefined
      ? undefined
      : read("app.model.checksums", expandHome(app.model.checksums));
  problems.push(...problemsIn(checksums));
  const commit = await findCommit(app.source, app.ref);
  if (typeof commit !== "string") problems.push(commit);
  if (problems.length > 0 || typeof commit !== "string") return { problems };

  const cuda = /^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)\./m.exec(packages)?.[1];
  // A change of where the interpreter comes from is another environment; the machines compare the part before the dash.
  const environment = `${digest(packages)}-${app.python}${app.environment === "auto" ? "" : `-${app.environment}`}`;
  const { model } = app;
  const weights = digest(
    checksums ?? (model.kind === "hub" ? [model.hub, model.id, model.revision].join(" ") : ""),
  );
  return {
    name: digest([commit, environment, weights, modelName({ app })].join(" ")),
    commit,
    lock,
    environment,
    environmentSpace: cuda === undefined ? SPACE.plain : SPACE.cuda,
    driver: cuda === undefined ? undefined : drivers[cuda],
    model: weights,
    checksums,
  };
}

/** What is wrong with the text of `app.model.checksums`. */
function problemsIn(checksums: string | undefined): Problem[] {
  if (checksums === undefined || checksums === "") return [];
  const lines = checksums.split("\n").filter((line) => line.trim() !== "");
  return lines
    .filter(
      (line) => !/^[0-9a-f]{64} [ *](?!.*(^|\/)\.\.?(\/|$))[A-Za-z0-9_][A-Za-z0-9_@+=,./-]*$/.test(line),
    )
    .map((line) => ({
      path: "app.model.checksums",
      value: line,
      message:
        "has a line that is not a hash and a path inside the model's directory, as sha256sum prints them",
      fix: "create the file in that directory: find -L . -type f -printf '%P\\n' | sort | xargs sha256sum",
    }));
}

/** Debian packages that the engine's installation takes. */
export function enginePackages({ app }: ClusterConfig): string[] {
  // vLLM compiles on the machine.
  return ["git", ...(app.vllm ? ["gcc", "libc6-dev"] : [])];
}

/** What must be there before anything is touched: GPU, driver and disk. */
export function engineCheck(
  { app }: ClusterConfig,
  engine: Engine,
): NonNullable<Manifest["preflight"]>[number] {
  const model = app.model.kind === "directory" ? app.model.directory : SPACE.model;
  const check = [
    `${paths.engineProgram} check --memory ${app.gpuMemory}`,
    ...(engine.driver === undefined ? [] : [`--driver ${engine.driver}`]),
    `--disk envs/${engine.environment}=${engine.environmentSpace}`,
    `--disk models/${engine.model}=${model}`,
  ];
  return {
    name: "GPU, driver and disk are as the engine cosyvoice needs them",
    run: check.join(" "),
    fix: "docs/engine.md has the needs; nothing was touched on this machine",
  };
}

/**
 * Puts the engine on a real server, beside those that are there: slow, and harms nobody. It is run by what names it in the
 * service's environment.
 *
 * @param name of the resources, without what they are.
 */
export function stageEngine(
  name: string,
  machine: Machine,
  config: ClusterConfig,
  engine: Engine,
  opts: pulumi.CustomResourceOptions & { readonly dependsOn: pulumi.Resource[] },
): pulumi.Resource {
  const copied = copy(`${name}-engine-lock`, machine, engine.lock, LOCK, opts);
  return layer(`${name}-engine`, machine, "engine-stage", stageContent(config, engine, machine), {
    ...opts,
    dependsOn: [...opts.dependsOn, copied],
  });
}

function stageContent(config: ClusterConfig, engine: Engine, machine: Machine): LayerContent {
  const { app, service } = config;
  const lock = `~${machine.endpoint.user}/${LOCK}`;
  const { commit, environment, model, checksums } = engine;
  const part = (kind: string, name: string) => `test -e ${paths.engine}/${kind}/${name}/.complete`;
  const wheels = app.wheels === undefined ? [] : [`--wheels ${app.wheels}`];
  return {
    directories: {
      "/etc/cosyvoice": { mode: "0755", owner: "root:root" },
      [paths.engine]: { mode: "0755", owner: "root:root", purge: true },
    },
    files: checksums === undefined ? {} : { [paths.modelChecksums]: rootFile(checksums) },
    steps: [
      {
        name: `stage the source, commit ${commit}`,
        run: `${paths.engineProgram} source ${commit} ${app.source}`,
        unless: part("sources", commit),
        timeout: 3600,
      },
      {
        name: `stage the environment ${environment}`,
        run: [
          `${paths.engineProgram} environment ${environment} ${lock}`,
          `--python ${app.python} --by ${app.environment}`,
          ...wheels,
        ].join(" "),
        unless: part("envs", environment),
        timeout: 4 * 3600,
      },
      {
        name: `stage the weights ${model}`,
        run: `${paths.weightsProgram} ${model} ${weightsFrom(config)}`,
        unless: part("models", model),
        timeout: 12 * 3600,
      },
      {
        name: `stage the engine ${engine.name}`,
        run: [
          `${paths.engineProgram} assemble ${engine.name} --source ${commit} --environment ${environment}`,
          `--model ${model} --called ${modelName(config)} --user ${service.user}`,
        ].join(" "),
      },
    ],
    onRemove: [`rm -rf ${lock} ${paths.engine}`],
  };
}

function weightsFrom({ app }: ClusterConfig): string {
  const { model } = app;
  const words =
    model.kind === "directory"
      ? [`--directory ${model.directory}`]
      : [
          `--hub ${model.hub} --id ${model.id} --revision ${model.revision}`,
          ...(model.endpoint === undefined ? [] : [`--endpoint ${model.endpoint}`]),
        ];
  if (model.checksums !== undefined) words.push(`--checksums ${paths.modelChecksums}`);
  if (app.tensorrt) words.push("--tensorrt");
  return words.join(" ");
}
