import assert from "node:assert/strict";
import * as pulumi from "@pulumi/pulumi";
import { AwsPlatform } from "../../components/platform/aws/platform";
import { type Registered, settled } from "../components/mocks";
import { parsedAws, rawAws } from "./fixture";
import { startAws } from "./mocks";

/** What the program asks Pulumi to do with a resource, by its type and name. */
type Options = Map<string, pulumi.CustomResourceOptions>;

/** Makes a platform under mocks; what it registered, and what its names lead to. */
export async function deploy(raw: Record<string, unknown> = rawAws(), jumpDirector = "director-1") {
  const registered = await startAws();
  const config = parsedAws(raw);
  const options: Options = new Map();
  const platform = new AwsPlatform(
    "c",
    { config, aws: config.aws, jumpDirector },
    {
      transformations: [
        ({ type, name, opts }) => {
          options.set(`${type} ${name}`, opts);
          return undefined;
        },
      ],
    },
  );
  await settled();
  return { registered, platform, config, options };
}

/** The inputs of the one resource of that type and name. */
export function named(
  registered: readonly Registered[],
  type: string,
  name: string,
): Record<string, unknown> {
  const found = registered.filter((resource) => resource.type === type && resource.name === name);
  assert.equal(found.length, 1, `exactly one ${type} is called ${name}`);
  return found[0]?.inputs ?? {};
}

export const INSTANCE = "aws:ec2/instance:Instance";
export const INTERFACE = "aws:ec2/networkInterface:NetworkInterface";
export const ROUTE = "aws:ec2/route:Route";
export const INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule";
export const EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule";

/** The document of a role's policy. */
export function policyOf(registered: readonly Registered[], name: string): unknown {
  return JSON.parse(String(named(registered, "aws:iam/rolePolicy:RolePolicy", name).policy)) as unknown;
}

/** The rules of a security group in one direction, each as one line. */
export function rulesOf(registered: readonly Registered[], group: string, type: string): string[] {
  return registered
    .filter(
      ({ type: of, inputs }) => of === type && inputs.securityGroupId === `c-firewall-${group}.SecurityGroup`,
    )
    .map(({ inputs: { ipProtocol, fromPort, toPort, cidrIpv4, referencedSecurityGroupId } }) =>
      [ipProtocol, fromPort, toPort === fromPort ? undefined : toPort, cidrIpv4 ?? referencedSecurityGroupId]
        .filter((part) => part !== undefined)
        .join(" ")
        .replace(/c-firewall-(\w+)\.SecurityGroup/, "$1"),
    )
    .sort();
}

/** What an output becomes. */
export function known<T>(output: pulumi.Input<T> | undefined): Promise<T> {
  return new Promise((resolve) => pulumi.output(output).apply((value) => resolve(value as T)));
}
