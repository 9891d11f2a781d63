import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { Director } from "./director";
import { Monitoring } from "./monitoring";
import { OutputsShare } from "./outputsShare";
import type { Machine } from "./platform/machine";
import { RealServer } from "./realServer";
import type { Release } from "./release";
import { SpeechService } from "./speechService";
import { Verification } from "./verification";

export interface ClusterArgs {
  readonly config: ClusterConfig;
  /** Every machine of the cluster, from either platform, in the order of the config. */
  readonly machines: readonly Machine[];
  /** The version of the speech app to run. */
  readonly release: Release;
  /** The VRRPv2 password. */
  readonly vrrpPassword?: pulumi.Input<string> | undefined;
  /** The key by which real servers know each other. */
  readonly peerKey?: pulumi.Input<string> | undefined;
  /** What must not be read by others about those who are told of alerts, by their names. */
  readonly receiverSecrets?: pulumi.Input<Readonly<Record<string, string>>> | undefined;
}

/** One highly available speech service: directors, real servers, share, service, and the proof that it works. */
export class Cluster extends pulumi.ComponentResource {
  /** Where clients find the service. */
  readonly url: string;

  constructor(name: string, args: ClusterArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:Cluster", name, {}, opts);
    const { config, machines } = args;
    const parent = { parent: this };
    const withRole = (role: Machine["role"]) => machines.filter((machine) => machine.role === role);

    const directors = withRole("director").map(
      (machine) =>
        new Director(`${name}-${machine.name}`, { machine, config, vrrpPassword: args.vrrpPassword }, parent),
    );
    const realServers = withRole("realServer").map(
      (machine) => new RealServer(`${name}-${machine.name}`, { machine, config }, parent),
    );
    const share = new OutputsShare(
      `${name}-outputs`,
      {
        config,
        storage: withRole("storage")[0],
        realServers,
        directors: directors.map(({ configured }) => configured),
      },
      parent,
    );
    const service = new SpeechService(
      `${name}-speech`,
      { config, realServers, mounts: share.mounts, release: args.release, peerKey: args.peerKey },
      parent,
    );
    new Verification(
      `${name}-verification`,
      {
        config,
        client: withRole("client")[0],
        content: [...directors, ...realServers, share, service].map(({ content }) => content),
        dependsOn: [...directors.map(({ configured }) => configured), ...service.activated],
      },
      parent,
    );

    const { monitoring } = config;
    const monitor = withRole("monitor")[0];
    if (monitoring !== undefined && monitor !== undefined) {
      new Monitoring(
        `${name}-monitoring`,
        {
          config: { ...config, monitoring },
          monitor,
          machines: [
            ...directors.map(({ machine, configured }) => ({ machine, after: [configured] })),
            ...realServers.map(({ machine, configured }) => ({ machine, after: [configured] })),
            ...withRole("storage").map((machine) => ({ machine, after: share.exported })),
          ],
          receiverSecrets: args.receiverSecrets,
        },
        parent,
      );
    } else {
      pulumi.log.warn(
        "monitoring is not set, or switched off: nothing is watched, and nobody is told of what is wrong.",
        this,
      );
    }

    this.url = `http://${config.vip}:${config.port}`;
    this.registerOutputs({ url: this.url });
  }
}
