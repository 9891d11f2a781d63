import type { Problem } from "../../../config/problems";
import type { AwsConfig } from "../../../config/sections/aws";
import { type AwsFacts, quotaOf, wanted } from "./facts";

/** What AWS will not give, of what a configuration asks for: said before anything is made, all of it at once. */
export function awsProblems(section: AwsConfig, facts: AwsFacts): readonly Problem[] {
  return [
    ...offeringProblems(section, facts),
    ...quotaProblems(section, facts),
    ...networkProblems(section, facts),
  ];
}

function offeringProblems(section: AwsConfig, { offered }: AwsFacts): Problem[] {
  return wanted(section).flatMap(({ path, type }) => {
    const zones = offered[type] ?? [];
    if (zones.length === 0) {
      return [
        {
          path,
          value: type,
          message: `is not offered in ${section.region}`,
          fix: "write a type that is: aws ec2 describe-instance-type-offerings lists them",
        },
      ];
    }
    const missing = section.network.zones.filter(({ name }) => !zones.includes(name));
    if (missing.length === 0) return [];
    const names = missing.map(({ name }) => name).join(" and ");
    return [
      {
        path,
        value: type,
        message: `is not offered in ${names}`,
        fix: `write another type, or use a zone that has it: ${[...zones].sort().join(", ")}`,
      },
    ];
  });
}

function quotaProblems(section: AwsConfig, { quotas, vcpus }: AwsFacts): Problem[] {
  const needed = new Map<string, { count: number; paths: string[] }>();
  for (const { path, type, count, spot } of wanted(section)) {
    const code = quotaOf(type, spot);
    const so = needed.get(code) ?? { count: 0, paths: [] };
    needed.set(code, { count: so.count + count * (vcpus[type] ?? 0), paths: [...so.paths, path] });
  }
  return [...needed].flatMap(([code, { count, paths }]) => {
    const limit = quotas[code];
    if (limit === undefined || count <= limit) return [];
    return [
      {
        path: paths[0] ?? "aws",
        value: section.realServers.instanceType,
        message: `and the other types under the same quota need ${count} vCPUs, but the quota ${code} of this account allows ${limit} in ${section.region}`,
        fix: `ask for more: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code ${code} --desired-value ${count} --region ${section.region} (it takes hours to days), or have fewer machines`,
      },
    ];
  });
}

function networkProblems({ network }: AwsConfig, { vpcCidr, subnets }: AwsFacts): Problem[] {
  const problems: Problem[] = [];
  const differs = (path: string, value: string, is: string) => {
    if (value !== is) problems.push({ path, value, message: `is ${is} in AWS`, fix: `write ${is}` });
  };
  if (vpcCidr !== undefined) differs("aws.network.cidr", network.cidr, vpcCidr);
  subnets.forEach((subnet, index) => {
    const zone = network.zones[index];
    if (zone === undefined) return;
    const path = `aws.network.zones[${index}]`;
    differs(`${path}.cidr`, zone.cidr, subnet.cidr);
    differs(`${path}.name`, zone.name, subnet.zone);
    if (subnet.vpcId !== network.vpcId) {
      problems.push({
        path: `${path}.subnetId`,
        value: zone.subnetId,
        message: `is a subnet of ${subnet.vpcId}`,
        fix: `write a subnet of ${network.vpcId}`,
      });
    }
  });
  return problems;
}
