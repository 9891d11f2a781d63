import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { paths } from "../render/paths";
import {
  type EfsShare,
  renderExports,
  renderNfsServerConfig,
  renderOutputsKeeper,
  renderOutputsMount,
} from "../render/share";
import { renderRealServerTurn } from "../render/turns";
import type { Machine } from "./platform/machine";
import type { RealServer } from "./realServer";
import { applier, type LayerContent, layer, made, stamp, watching } from "./remote/layer";
import { rootFile } from "./remote/manifest";

export interface OutputsShareArgs {
  readonly config: ClusterConfig;
  /** The machine that serves the share; undefined when the config names an export that exists already. */
  readonly storage?: Machine | undefined;
  /** The share of AWS, when that is what it is. */
  readonly efs?: { readonly [K in keyof EfsShare]: pulumi.Input<string> } | undefined;
  readonly realServers: readonly RealServer[];
  /** After these the directors send nothing more to a real server that is no longer in the configuration. */
  readonly directors: readonly pulumi.Resource[];
}

/** The share that makes every result visible on every node, mounted at `/root/CosyVoice/outputs`. */
export class OutputsShare extends pulumi.ComponentResource {
  /** What the storage machine has got; empty when the share is served elsewhere. */
  readonly exported: readonly pulumi.Resource[];
  /** By real server: the layer that mounts the share there. */
  readonly mounts: ReadonlyMap<string, pulumi.Resource>;
  /** The machine that serves the share, with the layer after which others may follow; none where the export is another's. */
  readonly served: readonly { readonly machine: Machine; readonly after: pulumi.Resource }[];
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: OutputsShareArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:OutputsShare", name, {}, opts);
    const { config, storage } = args;
    const parent = { parent: this };

    const server: pulumi.Resource[] = [];
    const served: { machine: Machine; after: pulumi.Resource }[] = [];
    if (storage) {
      const programs = applier(`${name}-applier`, storage, watching(config), parent);
      // They take longest, and wait for nobody.
      const installed = layer(
        `${name}-packages`,
        storage,
        "outputs-packages",
        { packages: PACKAGES },
        {
          ...parent,
          dependsOn: [programs],
        },
      );
      served.push({ machine: storage, after: installed });
      // A real server that leaves needs its share until it has finished what it does.
      const content = made(args.directors).then(() => exportContent(config));
      server.push(
        layer(`${name}-export`, storage, "outputs-export", content, { ...parent, dependsOn: [installed] }),
      );
    }
    const efs =
      args.efs &&
      pulumi
        .all([args.efs.fileSystemId, args.efs.accessPointId])
        .apply(([fileSystemId, accessPointId]) => ({ fileSystemId, accessPointId }));
    const mounts = args.realServers.map(({ machine, configured }) => {
      const content = efs
        ? efs.apply((known) => mountContent(config, machine.name, known))
        : mountContent(config, machine.name);
      const mount = layer(`${name}-${machine.name}`, machine, "outputs", content, {
        ...parent,
        dependsOn: [configured, ...server],
      });
      return [machine.name, mount] as const;
    });

    this.exported = server;
    this.mounts = new Map(mounts);
    this.served = served;
    this.content = pulumi.all(mounts.map(([, mount]) => mount.stdin)).apply((texts) => texts.join(""));
    this.registerOutputs({ path: paths.outputs });
  }
}

/** Of the storage machine. */
const PACKAGES = ["nfs-kernel-server"];

function exportContent(config: ClusterConfig): LayerContent {
  const { storage, service } = config;
  if (storage.kind !== "machine") throw new Error("an existing export needs no storage machine");
  return {
    packages: PACKAGES,
    users: [{ name: service.user, uid: service.uid, home: "/nonexistent" }],
    directories: { [storage.path]: { mode: "0755", owner: `${service.user}:${service.user}` } },
    files: {
      [paths.nfsServerConfig]: rootFile(renderNfsServerConfig(), {
        notify: ["restart:nfs-kernel-server.service"],
      }),
      [paths.exports]: rootFile(renderExports(config), { notify: ["run:exportfs -ra"] }),
    },
    units: { "nfs-kernel-server.service": { enabled: true, started: true } },
    onRemove: ["exportfs -ra || true"],
  };
}

/** Version 1.36.0 of amazon-efs-utils. */
const EFS_UTILS = "c87d19f3e1db26532f09a7fed338347aacb90e10";

function mountContent(config: ClusterConfig, machineName: string, efs?: EfsShare): LayerContent {
  return {
    ...(efs === undefined
      ? {}
      : {
          steps: [
            {
              name: "install mount.efs",
              unless: "test -x /sbin/mount.efs",
              run: `${paths.installEfsUtils} ${EFS_UTILS}`,
            },
          ],
        }),
    directories: { [paths.service]: { mode: "0755", owner: "root:root" } },
    files: {
      [paths.outputsMount]: rootFile(renderOutputsMount(config, efs), {
        notify: ["restart:root-CosyVoice-outputs.mount"],
      }),
      ...stamp("keep-mounted", "cosyvoice-outputs.service"),
      [paths.outputsKeeper]: rootFile(renderOutputsKeeper(), {
        notify: ["restart:cosyvoice-outputs.service"],
      }),
    },
    around: { name: "take a turn", run: renderRealServerTurn(config, machineName, "the share's settings") },
    // The keeper tries for ever, so the check below decides how long a deployment waits for the storage.
    units: {
      "root-CosyVoice-outputs.mount": { enabled: true, started: true, within: 0 },
      "cosyvoice-outputs.service": { enabled: true, started: true },
    },
    checks: [{ name: "the share is mounted", run: `mountpoint -q ${paths.outputs}`, within: 45 }],
    // systemd makes the mount point and leaves it behind.
    onRemove: [`rmdir --ignore-fail-on-non-empty ${paths.outputs} || true`],
  };
}
