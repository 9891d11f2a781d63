/** Configurations of the platform aws for tests: made up, short, and valid unless a test says otherwise. */
import { parseConfig } from "../../config/load";
import type { ClusterConfig } from "../../config/schema";

/** The section `aws`. A fresh copy every time. */
export function awsSection(): Record<string, unknown> {
  return {
    region: "eu-central-1",
    network: { cidr: "10.20.0.0/16", zones: [{ name: "eu-central-1a", cidr: "10.20.0.0/20" }] },
    clients: ["10.20.0.0/16"],
    admins: ["203.0.113.7/32"],
    realServers: { count: 2 },
    verifier: {},
  };
}

export function rawAws(section: Record<string, unknown> = {}, rest: Record<string, unknown> = {}) {
  return { platform: "aws", vip: "10.255.0.100", aws: { ...awsSection(), ...section }, ...rest };
}

/** What an internet-facing stack says otherwise. */
export function rawInternet(section: Record<string, unknown> = {}) {
  return rawAws(
    { exposure: "internet", clients: ["0.0.0.0/0"], ...section },
    { vip: "10.20.255.15", loadBalancer: { forwarding: "NAT" } },
  );
}

/** Two zones, which TUN makes possible. */
export function rawTwoZones(section: Record<string, unknown> = {}) {
  const zones = [
    { name: "eu-central-1a", cidr: "10.20.0.0/20" },
    { name: "eu-central-1b", cidr: "10.20.16.0/20" },
  ];
  return rawAws(
    { network: { cidr: "10.20.0.0/16", zones }, ...section },
    { loadBalancer: { forwarding: "TUN" } },
  );
}

/** Somebody's VPC. */
export function rawGivenVpc(section: Record<string, unknown> = {}) {
  const { verifier: _, ...rest } = awsSection();
  const network = {
    vpcId: "vpc-0123456789abcdef0",
    cidr: "10.20.0.0/16",
    zones: [{ name: "eu-central-1a", cidr: "10.20.0.0/20", subnetId: "subnet-0123456789abcdef0" }],
    clientRouteTables: ["rtb-0123456789abcdef0"],
  };
  return {
    platform: "aws",
    vip: "10.255.0.100",
    aws: { ...rest, network, admins: ["10.0.0.0/8"], ...section },
  };
}

/** Parsed; fails with the problems when it is not valid. */
export function parsedAws(raw: Record<string, unknown> = rawAws()): ClusterConfig & {
  aws: NonNullable<ClusterConfig["aws"]>;
} {
  const result = parseConfig(raw);
  if (!result.ok) throw new Error(JSON.stringify(result.problems, null, 2));
  const { aws } = result.config;
  if (aws === undefined) throw new Error("not a cluster on aws");
  return { ...result.config, aws };
}
