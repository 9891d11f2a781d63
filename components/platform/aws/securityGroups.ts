import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { type Group, groups, ruleName, type SecurityRule } from "./securityRules";

export interface SecurityGroupsArgs {
  readonly vpcId: pulumi.Input<string>;
  readonly rules: readonly SecurityRule[];
}

/** The security groups of the cluster, with one resource for each rule, so that a preview shows the rule that comes or goes. */
export class SecurityGroups extends pulumi.ComponentResource {
  private readonly ids: ReadonlyMap<Group, pulumi.Output<string>>;

  constructor(name: string, args: SecurityGroupsArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:aws:SecurityGroups", name, {}, opts);
    const parent = { parent: this };
    const used = groups.filter((group) => args.rules.some((rule) => rule.group === group));
    this.ids = new Map(
      used.map((group) => {
        const made = new aws.ec2.SecurityGroup(
          `${name}-${group}`,
          { vpcId: args.vpcId, description: `cosyvoice-lvs: ${group}`, tags: { Name: `${name}-${group}` } },
          parent,
        );
        return [group, made.id] as const;
      }),
    );
    for (const rule of args.rules) {
      const Rule =
        rule.direction === "in" ? aws.vpc.SecurityGroupIngressRule : aws.vpc.SecurityGroupEgressRule;
      new Rule(`${name}-${ruleName(rule)}`, this.ruleArgs(rule), parent);
    }
    this.registerOutputs({});
  }

  /** @throws Error when the cluster has no such group. */
  id(group: Group): pulumi.Output<string> {
    const id = this.ids.get(group);
    if (id === undefined) throw new Error(`there is no security group "${group}"`);
    return id;
  }

  private ruleArgs({ group, protocol, ports, peer, text }: SecurityRule) {
    return {
      securityGroupId: this.id(group),
      ipProtocol: protocol,
      ...(ports === undefined ? {} : { fromPort: ports[0], toPort: ports[1] }),
      ...("group" in peer ? { referencedSecurityGroupId: this.id(peer.group) } : { cidrIpv4: peer.cidr }),
      description: text,
    };
  }
}
