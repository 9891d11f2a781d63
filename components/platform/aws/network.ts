import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { isPrivate, parseCidr } from "../../../config/addresses";
import type { Place } from "../../../config/awsLayout";
import type { AwsConfig, AwsZone } from "../../../config/sections/aws";
import { assumedBy, flowLogPolicy } from "./policies";

/** A route table whose subnets are to find the VIP. */
export interface RouteTable {
  /** `public`, `eu-central-1a`, or the id of a given one. */
  readonly key: string;
  readonly id: pulumi.Input<string>;
}

/** Days that rejected connections are kept. */
const FLOW_LOG_DAYS = 30;

/**
 * The network: a VPC with a public subnet and one of the cluster in each zone, or a given one.
 *
 * The cluster's subnets have no public addresses and go out through a NAT gateway. Directors stand in them too (DR wants all in one
 * subnet), and yet are reached over SSH from the internet: what goes back to administrators, and to nobody else, is routed through
 * the internet gateway.
 */
export class Network extends pulumi.ComponentResource {
  readonly vpcId: pulumi.Input<string>;
  /** All of the program's own route tables. */
  readonly routeTables: readonly RouteTable[];
  /** The way to the internet, which machines need from their first minute on. */
  readonly ready: readonly pulumi.Resource[];
  private readonly subnets = new Map<Place, pulumi.Input<string>>();

  constructor(name: string, config: AwsConfig, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:aws:Network", name, {}, opts);
    const { network } = config;
    if (network.vpcId === undefined) {
      const made = this.make(name, config);
      this.vpcId = made.vpc.id;
      this.routeTables = made.routeTables;
      this.ready = made.ready;
    } else {
      this.vpcId = network.vpcId;
      network.zones.forEach((zone, index) => {
        this.subnets.set(index, given(zone));
      });
      this.routeTables = [];
      this.ready = [];
    }
    this.registerOutputs({ vpcId: this.vpcId });
  }

  /** @throws Error when no machine can stand there. */
  subnetId(place: Place): pulumi.Input<string> {
    const id = this.subnets.get(place);
    if (id === undefined) throw new Error(`there is no subnet "${place}"`);
    return id;
  }

  private make(name: string, config: AwsConfig) {
    const { network } = config;
    const parent = { parent: this };
    const tags = (what: string) => ({ Name: `${name}-${what}` });
    const vpc = new aws.ec2.Vpc(
      `${name}-vpc`,
      // EFS is found by a name.
      { cidrBlock: network.cidr, enableDnsSupport: true, enableDnsHostnames: true, tags: tags("vpc") },
      parent,
    );
    const vpcId = vpc.id;
    // What nobody chose lets nothing through.
    new aws.ec2.DefaultSecurityGroup(`${name}-unused`, { vpcId, ingress: [], egress: [] }, parent);
    if (network.flowLogs) this.logFlows(name, vpcId);

    const gateway = new aws.ec2.InternetGateway(
      `${name}-internet`,
      { vpcId, tags: tags("internet") },
      parent,
    );
    const open = this.subnet(name, "public", vpcId, network.publicCidr ?? "", network.zones[0]?.name ?? "");
    const openRoute = this.route(name, "public-default", {
      routeTableId: open.table.id,
      destinationCidrBlock: "0.0.0.0/0",
      gatewayId: gateway.id,
    });
    const address = new aws.ec2.Eip(
      `${name}-nat`,
      { domain: "vpc", tags: tags("nat") },
      { ...parent, dependsOn: [gateway] },
    );
    const nat = new aws.ec2.NatGateway(
      `${name}-nat`,
      { allocationId: address.id, subnetId: open.subnet.id, tags: tags("nat") },
      { ...parent, dependsOn: [openRoute] },
    );
    this.subnets.set("public", open.subnet.id);

    const routeTables: RouteTable[] = [{ key: "public", id: open.table.id }];
    const ready: pulumi.Resource[] = [openRoute];
    network.zones.forEach((zone, index) => {
      const { subnet, table } = this.subnet(name, zone.name, vpcId, zone.cidr, zone.name);
      this.subnets.set(index, subnet.id);
      routeTables.push({ key: zone.name, id: table.id });
      const way = { routeTableId: table.id };
      ready.push(
        this.route(name, `${zone.name}-default`, {
          ...way,
          destinationCidrBlock: "0.0.0.0/0",
          natGatewayId: nat.id,
        }),
      );
      for (const admin of publicAdmins(config)) {
        ready.push(
          this.route(name, `${zone.name}-admin-${admin.replace("/", "_")}`, {
            ...way,
            destinationCidrBlock: admin,
            gatewayId: gateway.id,
          }),
        );
      }
    });
    return { vpc, routeTables, ready };
  }

  private subnet(name: string, key: string, vpcId: pulumi.Input<string>, cidrBlock: string, zone: string) {
    const parent = { parent: this };
    const tags = { Name: `${name}-${key}` };
    const subnet = new aws.ec2.Subnet(
      `${name}-${key}`,
      { vpcId, cidrBlock, availabilityZone: zone, mapPublicIpOnLaunch: false, tags },
      parent,
    );
    const table = new aws.ec2.RouteTable(`${name}-${key}`, { vpcId, tags }, parent);
    new aws.ec2.RouteTableAssociation(
      `${name}-${key}`,
      { subnetId: subnet.id, routeTableId: table.id },
      parent,
    );
    return { subnet, table };
  }

  private route(name: string, key: string, args: aws.ec2.RouteArgs) {
    return new aws.ec2.Route(`${name}-${key}`, args, { parent: this });
  }

  private logFlows(name: string, vpcId: pulumi.Input<string>): void {
    const parent = { parent: this };
    const group = new aws.cloudwatch.LogGroup(`${name}-flows`, { retentionInDays: FLOW_LOG_DAYS }, parent);
    const role = new aws.iam.Role(
      `${name}-flows`,
      { assumeRolePolicy: JSON.stringify(assumedBy("vpc-flow-logs.amazonaws.com")) },
      parent,
    );
    new aws.iam.RolePolicy(
      `${name}-flows`,
      { role: role.id, policy: group.arn.apply((arn) => JSON.stringify(flowLogPolicy(arn))) },
      parent,
    );
    new aws.ec2.FlowLog(
      `${name}-flows`,
      { vpcId, trafficType: "REJECT", logDestination: group.arn, iamRoleArn: role.arn },
      parent,
    );
  }
}

/** Administrators to whom the cluster's subnets need a way of their own. Behind NAT the directors are in the public one. */
function publicAdmins({ exposure, admins }: AwsConfig): readonly string[] {
  if (exposure === "internet") return [];
  return admins.filter((admin) => {
    const range = parseCidr(admin);
    return range !== undefined && !isPrivate(range);
  });
}

function given({ name, subnetId }: AwsZone): string {
  if (subnetId === undefined)
    throw new Error(`zone ${name} has no subnet in a configuration that was found valid`);
  return subnetId;
}
