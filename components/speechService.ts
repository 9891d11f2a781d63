import * as pulumi from "@pulumi/pulumi";
import { type ClusterConfig, peersOn } from "../config/schema";
import { paths } from "../render/paths";
import {
  engineSet,
  loadLimit,
  renderDirectors,
  renderPeerKey,
  renderPeers,
  renderRunScript,
  renderServiceEnvironment,
  renderServiceUnit,
} from "../render/service";
import { renderRealServerTurn } from "../render/turns";
import type { Machine } from "./platform/machine";
import type { RealServer } from "./realServer";
import type { Release } from "./release";
import { copy, type LayerContent, layer, made, PROGRAMS } from "./remote/layer";
import { rootFile, rootProgram } from "./remote/manifest";
import { type Engine, stageEngine } from "./speechEngine";

const HOME = "/opt/cosyvoice";

/** File name of a release's archive in the login user's home directory. */
const ARCHIVE = ".cosyvoice-lvs-release.json.gz";

/** Seconds a node may take to start and speak once, besides loading a model. */
const START_LIMIT = 300;

export interface SpeechServiceArgs {
  readonly config: ClusterConfig;
  readonly realServers: readonly RealServer[];
  /** By real server: what must be there before the service starts. */
  readonly mounts: ReadonlyMap<string, pulumi.Resource>;
  /** The version of the app to stage, and to run unless the configuration names another one. */
  readonly release: Release;
  /** The engine to stage and to run, with `service.engine: cosyvoice`. */
  readonly engine?: Engine | undefined;
  /** The key by which real servers know each other. Without it each is alone. */
  readonly peerKey?: pulumi.Input<string> | undefined;
}

/**
 * CosyVoice3 under `run.sh` on every real server. A version is first *staged* beside the running one, everywhere and in
 * parallel (code, Python environments and weights: slow, harms nobody), then *activated*: node by node, each in its turn, drained
 * first and put back to what it was when the new version does not come up.
 */
export class SpeechService extends pulumi.ComponentResource {
  /** The layers after which every real server serves. */
  readonly activated: readonly pulumi.Resource[];
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: SpeechServiceArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:SpeechService", name, {}, opts);
    const { config, release, engine } = args;
    const parent = { parent: this };

    const staged = args.realServers.map(({ machine, configured }) => {
      const each = `${name}-${machine.name}`;
      const copied = copy(`${each}-release`, machine, release.archive, ARCHIVE, {
        ...parent,
        dependsOn: [configured],
      });
      return layer(`${each}-stage`, machine, "service-stage", stageContent(config, release, machine), {
        ...parent,
        dependsOn: [copied],
      });
    });

    const engines = args.realServers.map(({ machine }, index) =>
      engine
        ? stageEngine(`${name}-${machine.name}`, machine, config, engine, {
            ...parent,
            // It makes the service's user, as whom the engine is tried.
            dependsOn: [staged[index]].filter((before) => before !== undefined),
          })
        : undefined,
    );

    const active = config.service.release ?? release.digest;

    if (config.service.peers && !config.secretsSet.peerKey && args.realServers.length > 1) {
      pulumi.log.warn(
        "peerKey is not set, so each real server works alone: a visitor's session stays on one of them, and a full queue is not shared with an idle one. " +
          "Run: openssl rand -hex 32 | pulumi config set --secret peerKey (or set service.peers to false).",
        this,
      );
    }
    const keys = args.realServers.map(({ machine }, index) =>
      this.keyOf(`${name}-${machine.name}-key`, machine, args, staged[index]),
    );

    if (engine && engine.checksums === undefined) {
      pulumi.log.warn(
        "The weights are not pinned: each real server takes what the hub has and checks it only against the hashes that the hub states. " +
          `To pin them, copy ${paths.engine}/models/${engine.model}/checksums.sha256 from a real server that has them, and name the copy in app.model.checksums.`,
        this,
      );
    }

    const everywhere = made([...staged, ...engines].filter((one) => one !== undefined));
    const activations = args.realServers.map(({ machine }, index) => {
      const mount = args.mounts.get(machine.name);
      const content = everywhere.then(() => activateContent(config, active, machine.name, engine));
      return layer(`${name}-${machine.name}`, machine, "service", content, {
        ...parent,
        dependsOn: [staged[index], engines[index], keys[index], mount].filter(
          (before) => before !== undefined,
        ),
      });
    });

    this.activated = activations;
    this.content = pulumi
      .all(activations.map((activation) => activation.stdin))
      .apply((texts) => texts.join(""));
    this.registerOutputs({ release: active });
  }

  /** The key's own layer, so that it neither hides nor appears in the diff of the rest. Its group is made by staging. */
  private keyOf(
    name: string,
    machine: Machine,
    { config, peerKey }: SpeechServiceArgs,
    staged: pulumi.Resource | undefined,
  ): pulumi.Resource | undefined {
    if (!peersOn(config)) return undefined;
    if (peerKey === undefined) throw new pulumi.RunError("peerKey was found set, but its value is missing.");
    const content = pulumi.secret(peerKey).apply((key) => keyContent(config, key));
    return layer(name, machine, "service-key", content, {
      parent: this,
      dependsOn: staged === undefined ? [] : [staged],
    });
  }
}

function stageContent({ service, app }: ClusterConfig, release: Release, machine: Machine): LayerContent {
  const archive = `~${machine.endpoint.user}/${ARCHIVE}`;
  return {
    users: [{ name: service.user, uid: service.uid, home: "/var/lib/cosyvoice" }],
    directories: { [HOME]: { mode: "0755", owner: "root:root", purge: true } },
    steps: [
      {
        name: `stage release ${release.digest}`,
        run: [`${PROGRAMS}/release stage ${archive} ${release.digest}`, app.wheels ?? []].flat().join(" "),
        unless: `test -e ${HOME}/releases/${release.digest}/.complete`,
      },
    ],
    // The folder itself may have been there before, and then stays.
    onRemove: [`rm -rf ${archive} ${HOME}/releases ${HOME}/last-good ${HOME}/previous`],
  };
}

function keyContent({ service }: ClusterConfig, peerKey: string): LayerContent {
  const mode = { mode: "0640", owner: `root:${service.user}` };
  return {
    secret: true,
    directories: { "/etc/cosyvoice": { mode: "0755", owner: "root:root" } },
    // No unit is told: the service looks by itself.
    files: { [paths.peerKey]: rootFile(renderPeerKey(peerKey), mode) },
  };
}

function activateContent(
  config: ClusterConfig,
  active: string,
  machineName: string,
  engine: Engine | undefined,
): LayerContent {
  const within = START_LIMIT + (engine ? loadLimit(config) : 0);
  const what = `release ${active}${engine ? `, engine ${engine.name}` : ""}`;
  const restart = { notify: ["restart:cosyvoice.service"] };
  const directory = `${HOME}/releases/${active}`;
  return {
    preflight: [
      {
        name: `release ${active} is staged`,
        run: `test -e ${directory}/.complete`,
        fix: "scripts/cluster releases lists what is there; without service.release the one in app/ is staged and run",
      },
      ...(engine
        ? [
            {
              name: `engine ${engine.name} is staged`,
              run: `test -e ${engineSet(engine.name)}/.complete`,
              fix: "deploy again",
            },
          ]
        : []),
    ],
    directories: {
      [paths.service]: { mode: "0755", owner: "root:root" },
      "/etc/cosyvoice": { mode: "0755", owner: "root:root" },
    },
    files: {
      [paths.runScript]: rootProgram(renderRunScript(config), { check: "bash -n {}", ...restart }),
      [paths.serviceEnvironment]: rootFile(
        renderServiceEnvironment(config, machineName, engine?.name),
        restart,
      ),
      [paths.serviceUnit]: rootFile(renderServiceUnit(config, engine?.name), restart),
      // A new director or real server restarts nobody: the service looks by itself.
      [paths.directors]: rootFile(renderDirectors(config)),
      ...(peersOn(config) ? { [paths.peers]: rootFile(renderPeers(config, machineName)) } : {}),
    },
    links: {
      [`${HOME}/current`]: { target: directory, ...restart },
      [`${paths.service}/app.py`]: `${HOME}/current/app.py`,
      [`${paths.service}/cosyvoice_env`]: `${HOME}/current/env`,
    },
    around: { name: "take a turn", run: renderRealServerTurn(config, machineName, what) },
    units: { "cosyvoice.service": { enabled: true, started: true, within } },
    checks: [
      {
        name: "the node is ready to speak",
        // One that an operator drains is as good as one that serves.
        run: `curl -sS --max-time 5 http://127.0.0.1:${config.port}/readyz | grep -qE '"state": ?"(ready|draining)"'`,
        within,
      },
      { name: "remember the release as good", run: `${PROGRAMS}/release proved`, within: 30 },
    ],
  };
}
