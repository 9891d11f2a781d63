import * as aws from "@pulumi/aws";
import type * as pulumi from "@pulumi/pulumi";
import type { AwsConfig } from "../../../config/sections/aws";

/** What AWS says about what a configuration asks for. */
export interface AwsFacts {
  /** By instance type: the zones that offer it. */
  readonly offered: Readonly<Record<string, readonly string[]>>;
  /** By instance type. */
  readonly vcpus: Readonly<Record<string, number>>;
  /** By the code of the quota: vCPUs that may run at the same time. */
  readonly quotas: Readonly<Record<string, number>>;
  /** The given VPC and its subnets. */
  readonly vpcCidr?: string;
  readonly subnets: readonly { readonly cidr: string; readonly zone: string; readonly vpcId: string }[];
  /** By director: the address it is reached at, of those that are there. */
  readonly directors: Readonly<Record<string, string>>;
  /** Private addresses of the machines that run. */
  readonly running: readonly string[];
}

/** The quotas that count, by family of instance types and by how they are paid. AWS's codes. */
const quotaCodes = {
  onDemand: { standard: "L-1216C47A", g: "L-DB2E81BA", p: "L-417A185B" },
  spot: { standard: "L-34B43A08", g: "L-3819A6DF", p: "L-7212CCBC" },
} as const;

/** The code of the quota that an instance type counts against. */
export function quotaOf(instanceType: string, spot: boolean): string {
  const codes = spot ? quotaCodes.spot : quotaCodes.onDemand;
  if (/^(gr?\d|vt\d)/.test(instanceType)) return codes.g;
  return /^p\d/.test(instanceType) ? codes.p : codes.standard;
}

/** The instance types that a configuration asks for, with how many of each and how they are paid. */
export function wanted(section: AwsConfig) {
  return [
    {
      path: "aws.realServers.instanceType",
      type: section.realServers.instanceType,
      count: section.realServers.count,
      spot: section.realServers.spot,
    },
    { path: "aws.directors.instanceType", type: section.directors.instanceType, count: 2, spot: false },
    ...(["verifier", "monitor"] as const).flatMap((machine) => {
      const type = section[machine]?.instanceType;
      return type === undefined ? [] : [{ path: `aws.${machine}.instanceType`, type, count: 1, spot: false }];
    }),
  ];
}

/**
 * Asks AWS, before anything is registered. Read-only calls of the one who deploys.
 *
 * @param of names: the stack's, by which its resources are tagged, and that of the platform, with which their names begin.
 * @throws what the provider says when it cannot log in.
 */
export async function readFacts(
  section: AwsConfig,
  { stack, platform }: { readonly stack: string; readonly platform: string },
  opts: pulumi.InvokeOptions,
): Promise<AwsFacts> {
  const types = [...new Set(wanted(section).map(({ type }) => type))];
  const codes = [...new Set(wanted(section).map(({ type, spot }) => quotaOf(type, spot)))];
  const { vpcId, zones } = section.network;
  const offerings = aws.ec2.getInstanceTypeOfferings(
    { filters: [{ name: "instance-type", values: types }], locationType: "availability-zone" },
    opts,
  );
  const ofStack = (what: string) => [
    { name: "tag:cosyvoice-lvs:stack", values: [stack] },
    ...(what === "" ? [] : [{ name: "tag:Name", values: [what] }]),
  ];
  const quotas = codes.map(async (quotaCode) => {
    const { value } = await aws.servicequotas.getServiceQuota({ serviceCode: "ec2", quotaCode }, opts);
    return [quotaCode, value] as const;
  });
  const directors = ["director-1", "director-2"].map(async (director) => {
    const { publicIps } = await aws.ec2.getEips({ filters: ofStack(`${platform}-${director}`) }, opts);
    return publicIps.slice(0, 1).map((address) => [director, address] as const);
  });
  const running = aws.ec2.getInstances(
    {
      filters: [
        { name: "tag:cosyvoice-lvs:stack", values: [stack] },
        { name: "instance-state-name", values: ["running"] },
      ],
    },
    opts,
  );
  const { instanceTypes, locations } = await offerings;
  const offered = types.map(
    (type) => [type, locations.filter((_, index) => instanceTypes[index] === type)] as const,
  );
  // Of a type that no zone offers AWS knows nothing more, and answers with an error.
  const known = offered.filter(([, places]) => places.length > 0);
  const vcpus = known.map(async ([instanceType]) => {
    const { defaultVcpus } = await aws.ec2.getInstanceType({ instanceType }, opts);
    return [instanceType, defaultVcpus] as const;
  });
  const subnets = (vpcId === undefined ? [] : zones).map(async ({ subnetId = "" }) => {
    const { cidrBlock, availabilityZone, vpcId: of } = await aws.ec2.getSubnet({ id: subnetId }, opts);
    return { cidr: cidrBlock, zone: availabilityZone, vpcId: of };
  });
  return {
    offered: Object.fromEntries(offered),
    vcpus: Object.fromEntries(await Promise.all(vcpus)),
    quotas: Object.fromEntries(await Promise.all(quotas)),
    ...(vpcId === undefined ? {} : { vpcCidr: (await aws.ec2.getVpc({ id: vpcId }, opts)).cidrBlock }),
    subnets: await Promise.all(subnets),
    directors: Object.fromEntries((await Promise.all(directors)).flat()),
    running: (await running).privateIps,
  };
}
