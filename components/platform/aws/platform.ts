import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { type PlacedMachine, placedMachines } from "../../../config/awsLayout";
import type { ClusterConfig } from "../../../config/schema";
import { type AwsConfig, awsUser } from "../../../config/sections/aws";
import type { EfsShare } from "../../../render/share";
import type { Machine, SshAccess } from "../machine";
import { Alarms, makeName } from "./extras";
import { pinnedImage } from "./images";
import { type KeyPair, sshKey } from "./keys";
import { asMachine, DIAL_ATTEMPTS, type MachineKind, type MadeMachine, makeMachine } from "./machines";
import { Network } from "./network";
import { assumedBy } from "./policies";
import { SecurityGroups } from "./securityGroups";
import { type Group, securityRules } from "./securityRules";
import { Share } from "./share";
import { Vip } from "./vip";

export interface AwsPlatformArgs {
  readonly config: ClusterConfig;
  readonly aws: AwsConfig;
  /** The director through which the other machines are reached, as {@link answeringDirector} has found out. */
  readonly jumpDirector: string;
}

/** What machines are put into. */
interface Surroundings {
  readonly network: Network;
  readonly groups: SecurityGroups;
  readonly roles: Readonly<
    Record<"directors" | "realServers", { readonly profile: aws.iam.InstanceProfile }>
  >;
  readonly loginKey: KeyPair;
}

/** Everything that a cluster on AWS stands on: network, machines, keys, the way to the VIP, the share. */
export class AwsPlatform extends pulumi.ComponentResource {
  /** In the order of the config. */
  readonly machines: readonly Machine[];
  readonly share: { readonly [K in keyof EfsShare]: pulumi.Output<string> };
  /** Where clients find the service: the VIP, or what stands for it outside. */
  readonly address: pulumi.Output<string>;

  constructor(name: string, args: AwsPlatformArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:aws:Platform", name, {}, opts);
    const { config } = args;
    const parent = { parent: this };
    const network = new Network(`${name}-network`, args.aws, parent);
    const groups = new SecurityGroups(
      `${name}-firewall`,
      { vpcId: network.vpcId, rules: securityRules(config, args.aws) },
      parent,
    );
    const roles = {
      directors: this.role(`${name}-directors`),
      realServers: this.role(`${name}-real-servers`),
    };
    const loginKey = sshKey(`${name}-login-key`, parent);
    const made = this.makeMachines(name, args, { network, groups, roles, loginKey });
    const directors = made.filter(({ placed }) => placed.role === "director");

    const vip = new Vip(
      `${name}-vip`,
      {
        aws: args.aws,
        vip: config.vip,
        account: thisAccount(args.aws.region, parent),
        routeTables: [
          ...network.routeTables,
          ...args.aws.network.clientRouteTables.map((id) => ({ key: id, id })),
        ],
        directors,
        role: roles.directors.role,
      },
      parent,
    );
    this.routeVerifier(name, args.aws, network, made);
    this.share = new Share(
      `${name}-share`,
      {
        service: config.service,
        subnetIds: args.aws.network.zones.map(({ name: zone }, index) => ({
          zone,
          id: network.subnetId(index),
        })),
        securityGroup: groups.id("share"),
        role: roles.realServers.role,
      },
      parent,
    );
    if (args.aws.alarms) {
      new Alarms(
        `${name}-alarms`,
        { emails: args.aws.alarms.emails, machines: made, role: roles.directors.role },
        parent,
      );
    }
    if (args.aws.dns) makeName(`${name}-name`, args.aws.dns, vip.address, parent);

    const access = this.access(name, args, directors, loginKey);
    this.machines = made.map((machine) => asMachine(machine, awsUser, access));
    this.address = args.aws.dns ? pulumi.output(args.aws.dns.name) : vip.address;
    this.registerOutputs({ address: this.address });
  }

  private role(name: string) {
    const parent = { parent: this };
    const role = new aws.iam.Role(
      name,
      { assumeRolePolicy: JSON.stringify(assumedBy("ec2.amazonaws.com")) },
      parent,
    );
    return { role, profile: new aws.iam.InstanceProfile(name, { role: role.name }, parent) };
  }

  private makeMachines(
    name: string,
    { config, aws: section }: AwsPlatformArgs,
    { network, groups, roles, loginKey }: Surroundings,
  ): readonly MadeMachine[] {
    const parent = { parent: this };
    const apart = new aws.ec2.PlacementGroup(`${name}-directors`, { strategy: "spread" }, parent);
    const directorImage = pinnedImage(`${name}-director-image`, section.directors.image, parent);
    const group = (of: Group) => ({ securityGroup: groups.id(of) });
    // With NAT they have no address but their own.
    const answersForVip = config.loadBalancer.forwarding !== "NAT";
    const kinds: Record<PlacedMachine["role"], MachineKind | undefined> = {
      director: {
        ...section.directors,
        ...group("directors"),
        image: directorImage,
        instanceProfile: roles.directors.profile.name,
        placementGroup: apart.name,
        foreignAddresses: true,
        floatingAddress: section.exposure === "internet",
      },
      realServer: {
        ...section.realServers,
        ...group("realServers"),
        image: pinnedImage(`${name}-real-server-image`, section.realServers.image, parent),
        instanceProfile: roles.realServers.profile.name,
        foreignAddresses: answersForVip,
      },
      client: section.verifier && {
        ...group("verifier"),
        instanceType: section.verifier.instanceType,
        image: directorImage,
        disk: section.directors.disk,
        localRange: section.verifier.sources,
        foreignAddresses: true,
      },
      monitor: section.monitor && {
        ...section.monitor,
        ...group("monitor"),
        image: directorImage,
        foreignAddresses: false,
      },
    };
    return placedMachines(section).map((placed) => {
      const kind = kinds[placed.role];
      if (kind === undefined) throw new Error(`${placed.name} is a machine of no kind`);
      return makeMachine(
        `${name}-${placed.name}`,
        placed,
        kind,
        { subnetId: network.subnetId(placed.place), loginKey },
        { ...parent, dependsOn: network.ready },
      );
    });
  }

  /** What the verifier asks from lies outside the VPC, as the VIP does: replies need a way back. */
  private routeVerifier(
    name: string,
    section: AwsConfig,
    network: Network,
    made: readonly MadeMachine[],
  ): void {
    const verifier = made.find(({ placed }) => placed.role === "client");
    if (section.verifier === undefined || verifier === undefined) return;
    for (const { key, id } of network.routeTables) {
      new aws.ec2.Route(
        `${name}-verifier-${key}`,
        {
          routeTableId: id,
          destinationCidrBlock: section.verifier.sources,
          networkInterfaceId: verifier.interface.id,
        },
        { parent: this },
      );
    }
  }

  /** How this computer reaches the machines: through a director, by its Elastic IP where it has one. */
  private access(
    name: string,
    { config, aws: section, jumpDirector }: AwsPlatformArgs,
    directors: readonly MadeMachine[],
    loginKey: KeyPair,
  ): SshAccess {
    const parent = { parent: this };
    const jump = directors.find(({ placed }) => placed.name === jumpDirector) ?? directors[0];
    if (jump === undefined) throw new Error("there is no director");
    // In a public subnet there is no other way out.
    const open = section.access === "internet" || section.exposure === "internet";
    const addresses = new Map(
      directors.map((director) => {
        const { placed, instance } = director;
        if (!open) return [placed.name, instance.id.apply(() => placed.address)] as const;
        const elastic = new aws.ec2.Eip(
          `${name}-${placed.name}-elastic`,
          {
            domain: "vpc",
            networkInterface: director.interface.id,
            associateWithPrivateIp: placed.address,
            tags: { Name: `${name}-${placed.name}` },
          },
          { ...parent, dependsOn: [instance] },
        );
        return [
          placed.name,
          section.access === "internet" ? elastic.publicIp : instance.id.apply(() => placed.address),
        ] as const;
      }),
    );
    return {
      privateKey: loginKey.privateKey,
      connectTimeout: config.ssh.connectTimeout,
      dialAttempts: DIAL_ATTEMPTS,
      jumpHost: {
        address: addresses.get(jump.placed.name) ?? jump.placed.address,
        port: 22,
        user: awsUser,
        hostKey: jump.hostKey.publicKey,
      },
    };
  }
}

function thisAccount(region: string, opts: pulumi.InvokeOptions) {
  return pulumi
    .all([aws.getPartitionOutput({}, opts), aws.getCallerIdentityOutput({}, opts)])
    .apply(([{ partition }, { accountId }]) => ({ partition, region, account: accountId }));
}
