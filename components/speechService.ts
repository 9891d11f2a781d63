import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { paths } from "../render/paths";
import { renderRunScript, renderServiceEnvironment, renderServiceUnit } from "../render/service";
import type { RealServer } from "./realServer";
import type { Release } from "./release";
import { hostFile } from "./remote/hostFiles";
import { type LayerContent, layer, PROGRAMS } from "./remote/layer";
import { rootFile, rootProgram } from "./remote/manifest";

const HOME = "/opt/cosyvoice";

/** Seconds a node may take to load its model and speak once. A 0.5B model on a slow disk takes a minute or two. */
const START_LIMIT = 300;

export interface SpeechServiceArgs {
  readonly config: ClusterConfig;
  readonly realServers: readonly RealServer[];
  /** By real server: what must be there before the service starts. */
  readonly mounts: ReadonlyMap<string, pulumi.Resource>;
  /** The version of the app to run. */
  readonly release: Release;
}

/**
 * CosyVoice3 under `run.sh` on every real server. A version is first *staged* beside the running one (code and
 * Python environment: slow, harms nobody), then *activated*: links switched, unit restarted, readiness awaited.
 */
export class SpeechService extends pulumi.ComponentResource {
  /** The layers after which every real server serves. */
  readonly activated: readonly pulumi.Resource[];
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: SpeechServiceArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:SpeechService", name, {}, opts);
    const { config, release } = args;
    const parent = { parent: this };

    const stage = stageContent(config, release);
    const activations = args.realServers.map(({ machine, configured }) => {
      const staged = layer(`${name}-${machine.name}-stage`, machine, "service-stage", stage, {
        ...parent,
        dependsOn: [configured],
      });
      const mount = args.mounts.get(machine.name);
      return layer(
        `${name}-${machine.name}`,
        machine,
        "service",
        activateContent(config, release, machine.name),
        { ...parent, dependsOn: mount ? [staged, mount] : [staged] },
      );
    });

    this.activated = activations;
    this.content = pulumi
      .all(activations.map((activation) => activation.stdin))
      .apply((texts) => texts.join(""));
    this.registerOutputs({ release: release.digest });
  }
}

function releaseDirectory(release: Release): string {
  return `${HOME}/releases/${release.digest}`;
}

function stageContent(config: ClusterConfig, release: Release): LayerContent {
  const { service } = config;
  const directory = releaseDirectory(release);
  const environment = `${HOME}/envs/${release.environment}`;
  const files = Object.entries(release.files).map(([path, content]) => [
    `${directory}/${path}`,
    // A node may still be running the version before, so its files outlive the manifest that brought them.
    rootFile(content, { keep: true }),
  ]);
  return {
    users: [{ name: service.user, uid: service.uid, home: "/var/lib/cosyvoice" }],
    directories: { [HOME]: { mode: "0755", owner: "root:root", purge: true } },
    files: {
      [`${PROGRAMS}/build-env`]: rootProgram(hostFile("build-env")),
      ...Object.fromEntries(files),
    },
    steps: [
      {
        name: "build the Python environment",
        run: `${PROGRAMS}/build-env ${directory}/requirements.txt ${environment}`,
        unless: `test -e ${environment}/.complete`,
      },
    ],
    links: { [`${directory}/env`]: { target: environment, keep: true } },
  };
}

function activateContent(config: ClusterConfig, release: Release, machineName: string): LayerContent {
  const restart = { notify: ["restart:cosyvoice.service"] };
  return {
    directories: {
      [paths.service]: { mode: "0755", owner: "root:root" },
      "/etc/cosyvoice": { mode: "0755", owner: "root:root" },
    },
    files: {
      [paths.runScript]: rootProgram(renderRunScript(config), { check: "bash -n {}", ...restart }),
      [paths.serviceEnvironment]: rootFile(renderServiceEnvironment(config, machineName), restart),
      [paths.serviceUnit]: rootFile(renderServiceUnit(config), restart),
    },
    links: {
      [`${HOME}/current`]: { target: releaseDirectory(release), ...restart },
      [`${paths.service}/app.py`]: `${HOME}/current/app.py`,
      [`${paths.service}/cosyvoice_env`]: `${HOME}/current/env`,
    },
    units: { "cosyvoice.service": { enabled: true, started: true, within: START_LIMIT } },
    checks: [
      {
        name: "the node is ready to speak",
        run: `curl -fsS -o /dev/null --max-time 5 http://127.0.0.1:${config.port}/readyz`,
        within: START_LIMIT,
      },
    ],
  };
}
