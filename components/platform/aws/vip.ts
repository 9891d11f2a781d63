import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { AwsConfig } from "../../../config/sections/aws";
import type { MadeMachine } from "./machines";
import type { RouteTable } from "./network";
import { type Account, addressMoverPolicy, routeMoverPolicy } from "./policies";

export interface VipArgs {
  readonly aws: AwsConfig;
  readonly vip: string;
  readonly account: pulumi.Output<Account>;
  readonly routeTables: readonly RouteTable[];
  readonly directors: readonly MadeMachine[];
  /** Of the directors. */
  readonly role: aws.iam.Role;
}

/**
 * How clients' packets find the director that holds the VIP, and the right of the directors to change it. Where it leads is theirs to
 * say once it is there: the first director is only where it begins.
 */
export class Vip extends pulumi.ComponentResource {
  /** Where clients in reach of it go: the VIP, or the Elastic IP before it. */
  readonly address: pulumi.Output<string>;

  constructor(name: string, args: VipArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:aws:Vip", name, {}, opts);
    const { policy, address } =
      args.aws.exposure === "vpc" ? this.byRoute(name, args) : this.byAddress(name, args);
    new aws.iam.RolePolicy(
      `${name}-mover`,
      { role: args.role.id, policy: policy.apply((document) => JSON.stringify(document)) },
      { parent: this },
    );
    this.address = address;
    this.registerOutputs({ address });
  }

  private byRoute(name: string, { vip, account, routeTables, directors }: VipArgs) {
    for (const { key, id } of routeTables) {
      new aws.ec2.Route(
        `${name}-${key}`,
        {
          routeTableId: id,
          destinationCidrBlock: `${vip}/32`,
          ...(directors[0] === undefined ? {} : { networkInterfaceId: directors[0].interface.id }),
        },
        // Or a deployment would undo a failover.
        { parent: this, ignoreChanges: ["networkInterfaceId"] },
      );
    }
    const policy = pulumi
      .all([account, pulumi.all(routeTables.map(({ id }) => id))])
      .apply(([known, ids]) => routeMoverPolicy(known, ids));
    return { policy, address: pulumi.output(vip) };
  }

  private byAddress(name: string, { account, directors }: VipArgs) {
    // Belongs to no interface here: the mover of the director that holds the VIP sends it there.
    const elastic = new aws.ec2.Eip(
      `${name}-elastic`,
      { domain: "vpc", tags: { Name: name, "cosyvoice-lvs:part": "vip" } },
      { parent: this, ignoreChanges: ["instance", "networkInterface", "associateWithPrivateIp"] },
    );
    const policy = pulumi
      .all([account, pulumi.all(directors.map((director) => director.interface.id)), elastic.allocationId])
      .apply(([known, interfaces, allocation]) => addressMoverPolicy(known, interfaces, allocation));
    return { policy, address: elastic.publicIp };
  }
}
