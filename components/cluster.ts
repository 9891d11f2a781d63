import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { hasFirewall } from "../render/firewall";
import { Director } from "./director";
import { Firewall } from "./firewall";
import { FrontDoor, type FrontDoorSecrets } from "./frontDoor";
import { Monitoring } from "./monitoring";
import { OutputsShare, type OutputsShareArgs } from "./outputsShare";
import type { Machine } from "./platform/machine";
import { RealServer } from "./realServer";
import type { Release } from "./release";
import type { Engine } from "./speechEngine";
import { SpeechService } from "./speechService";
import { Verification } from "./verification";

export interface ClusterArgs {
  readonly config: ClusterConfig;
  /** Every machine of the cluster, from either platform, in the order of the config. */
  readonly machines: readonly Machine[];
  /** What the platform aws made besides: the share's names, and where clients go. */
  readonly cloud?:
    | { readonly share: OutputsShareArgs["efs"]; readonly address: pulumi.Input<string> }
    | undefined;
  /** The version of the speech app to run. */
  readonly release: Release;
  /** What speaks, with `service.engine: cosyvoice`. */
  readonly engine?: Engine | undefined;
  /** The VRRPv2 password. */
  readonly vrrpPassword?: pulumi.Input<string> | undefined;
  /** The key by which real servers know each other. */
  readonly peerKey?: pulumi.Input<string> | undefined;
  /** What HTTPS takes. */
  readonly frontDoor?: FrontDoorSecrets | undefined;
  /** What must not be read by others about those who are told of alerts, by their names. */
  readonly receiverSecrets?: pulumi.Input<Readonly<Record<string, string>>> | undefined;
  /** By which what watches lets people in. */
  readonly monitoringPassword?: pulumi.Input<string> | undefined;
}

/** One highly available speech service: directors, real servers, share, service, and the proof that it works. */
export class Cluster extends pulumi.ComponentResource {
  /** Where clients find the service. */
  readonly url: pulumi.Output<string>;
  /** The certificate by which HTTPS is known, and its issuers'. Undefined without HTTPS. */
  readonly certificate: pulumi.Output<string> | undefined;

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
      (machine) =>
        new RealServer(`${name}-${machine.name}`, { machine, config, engine: args.engine }, parent),
    );
    const share = new OutputsShare(
      `${name}-outputs`,
      {
        config,
        storage: withRole("storage")[0],
        efs: args.cloud?.share,
        realServers,
        directors: directors.map(({ configured }) => configured),
      },
      parent,
    );
    const service = new SpeechService(
      `${name}-speech`,
      {
        config,
        realServers,
        mounts: share.mounts,
        release: args.release,
        engine: args.engine,
        peerKey: args.peerKey,
      },
      parent,
    );
    const frontDoor =
      config.https &&
      new FrontDoor(
        `${name}-front-door`,
        { config, https: config.https, realServers, ...args.frontDoor },
        parent,
      );
    const guarded = [
      ...[...directors, ...realServers].map(({ machine, configured: after }) => ({ machine, after })),
      ...share.served,
    ].filter(({ machine }) => hasFirewall(config, machine.role));
    const firewall =
      guarded.length > 0
        ? new Firewall(`${name}-firewall`, { config, machines: guarded }, parent)
        : undefined;
    new Verification(
      `${name}-verification`,
      {
        config,
        client: withRole("client")[0],
        directors: withRole("director"),
        fingerprint: frontDoor?.fingerprint,
        apiKeys: args.frontDoor?.apiKeys,
        content: [...directors, ...realServers, share, service, firewall, frontDoor]
          .filter((part) => part !== undefined)
          .map(({ content }) => content),
        dependsOn: [
          ...directors.map(({ configured }) => configured),
          ...service.activated,
          ...(firewall?.closed ?? []),
          ...(frontDoor?.opened ?? []),
        ],
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
          door: frontDoor && { certificate: frontDoor.certificate, apiKeys: args.frontDoor?.apiKeys },
          password: args.monitoringPassword,
        },
        parent,
      );
    } else {
      pulumi.log.warn(
        "monitoring is not set or is switched off: nothing is monitored, and nobody is alerted.",
        this,
      );
    }

    this.certificate = frontDoor?.certificate;
    this.url = urlOf(config, args.cloud?.address ?? config.vip);
    this.registerOutputs({ url: this.url });
  }
}

function urlOf({ port, https }: ClusterConfig, address: pulumi.Input<string>): pulumi.Output<string> {
  if (https === undefined) return pulumi.interpolate`http://${address}:${port}`;
  return pulumi.output(`https://${https.serverName}${https.port === 443 ? "" : `:${https.port}`}`);
}
