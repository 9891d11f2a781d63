import { local, remote } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { paths } from "../render/paths";
import { servicePorts } from "../render/virtualServices";
import { digest } from "./digest";
import type { Machine } from "./platform/machine";
import { connectionTo } from "./remote/connection";
import { applier, PROGRAMS } from "./remote/layer";
import { asRoot } from "./remote/openssh";

export interface VerificationArgs {
  readonly config: ClusterConfig;
  /** Where the cluster is looked at from; undefined is the computer that deploys. */
  readonly client?: Machine | undefined;
  /** SHA-256 of the certificate that HTTPS must show. Needed where HTTPS is on. */
  readonly fingerprint?: pulumi.Input<string> | undefined;
  /** The keys that HTTPS asks for, where it does. */
  readonly apiKeys?: pulumi.Input<string> | undefined;
  readonly directors: readonly Machine[];
  /** The text of everything that was configured: the check is made again when any of it changes. */
  readonly content: readonly pulumi.Input<string>[];
  readonly dependsOn: readonly pulumi.Resource[];
}

/**
 * The last resource of a deployment: asks the cluster, from where a client stands, for sentences until every real
 * server has spoken, and asks the network who claims the VIP. A finding fails the deployment.
 */
export class Verification extends pulumi.ComponentResource {
  constructor(name: string, args: VerificationArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:Verification", name, {}, opts);
    const { client, config } = args;
    const apiKeys = args.apiKeys === undefined ? undefined : pulumi.secret(args.apiKeys);
    const stdin = pulumi
      .all([pulumi.all([...args.content]), args.fingerprint, apiKeys])
      .apply(([texts, fingerprint, keys]) => {
        const expected = expectations(args.config, digest(texts.join("\n")), fingerprint, keys);
        return `${JSON.stringify(expected, undefined, 1)}\n`;
      });
    const common = { stdin, addPreviousOutputInEnv: false };
    const view = config.aws ? this.viewOfAws(name, args) : [];

    if (client) {
      const programs = applier(`${name}-applier`, client, ["verify"], { parent: this });
      new remote.Command(
        `${name}-${client.name}`,
        { ...common, connection: connectionTo(client), create: asRoot(client.endpoint, VERIFY) },
        { parent: this, dependsOn: [programs, ...view, ...args.dependsOn] },
      );
    } else if (config.aws) {
      pulumi.log.warn(
        "aws.verifier is not set: the deployment checks what AWS reports, but asks for no sentence. scripts/cluster prove asks for one.",
        this,
      );
    } else {
      pulumi.log.warn(
        "verification.client is not set: this computer asks for the sentences. With mh or sh it reaches one real server only, and it can check who answers ARP for the VIP only as root on the VIP's segment.",
        this,
      );
      new local.Command(
        `${name}-here`,
        { ...common, create: "python3 host/verify.py" },
        { parent: this, dependsOn: [...args.dependsOn] },
      );
    }
    this.registerOutputs({});
  }

  /**
   * On aws: whether the routes lead where the VIP is, and nobody's packets are dropped as somebody else's. Both directors ask, and
   * the one that stands by is a client in the cluster's own subnet.
   */
  private viewOfAws(name: string, { config, content, directors, dependsOn }: VerificationArgs) {
    const stdin = pulumi.all([...content]).apply((texts) => {
      const deployment = digest(texts.join("\n"));
      const expected = { deployment, unchecked: foreignAddresses(config), port: servicePorts(config)[0] };
      return `${JSON.stringify(expected, undefined, 1)}\n`;
    });
    return directors.map(
      (director) =>
        new remote.Command(
          `${name}-aws-${director.name}`,
          {
            stdin,
            addPreviousOutputInEnv: false,
            connection: connectionTo(director),
            create: asRoot(director.endpoint, `${paths.vipMover} check ${paths.vipMoverConfig}`),
          },
          { parent: this, dependsOn: [...dependsOn] },
        ),
    );
  }
}

/** The machines that forward packets, or answer for the VIP. */
export function foreignAddresses({ directors, realServers, loadBalancer }: ClusterConfig): string[] {
  const machines = loadBalancer.forwarding === "NAT" ? directors : [...directors, ...realServers];
  return machines.map(({ address }) => address);
}

const VERIFY = `${PROGRAMS}/verify`;

/** What `host/verify.py` is told to find. */
function expectations(
  config: ClusterConfig,
  deployment: string,
  fingerprint: string | undefined,
  apiKeys: string | undefined,
) {
  const { verification, https } = config;
  const nameAndAddress = ({ name, address }: { readonly name: string; readonly address: string }) => ({
    name,
    address,
  });
  return {
    deployment,
    vip: config.vip,
    port: https?.plainPort === "closed" ? null : config.port,
    https: https
      ? { port: https.port, serverName: https.serverName, fingerprint, key: apiKeys?.split(",")[0] ?? null }
      : null,
    sentence: verification.sentence,
    timeout: verification.timeout,
    directors: config.directors.map(nameAndAddress),
    realServers: config.realServers.map(nameAndAddress),
    sourceAddresses: verification.sourceAddresses,
  };
}
