/**
 * Which machines the platform aws has, and their addresses. They are worked out and not asked for, so that a preview shows every
 * file before there is a machine, and so that none of them moves when another comes or goes.
 */
import { type Cidr, formatIPv4, parseCidr } from "./addresses";
import type { AwsConfig, AwsZone } from "./sections/aws";

/** Where a machine stands: in the cluster's subnet of a zone, by its place in the list, or in the public one. */
export type Place = number | "public";

/** A machine of the platform aws. */
export interface PlacedMachine {
  readonly name: string;
  readonly role: "director" | "realServer" | "client" | "monitor";
  readonly address: string;
  readonly place: Place;
}

/** From the start of a subnet. AWS keeps the first four addresses and the last. */
const offsets = { director: 10, verifier: 20, monitor: 21, realServer: 32 } as const;

/** How many real servers fit into zones of these sizes. */
export function capacity(zones: readonly Cidr[]): number {
  const smallest = Math.min(...zones.map(({ first, last }) => last - first));
  return Math.max(0, smallest - offsets.realServer) * zones.length;
}

/** The range of the public subnet when nothing is said: the end of the VPC's. */
export function defaultPublicCidr(vpc: Cidr): string {
  const size = Math.min(256, (vpc.last - vpc.first + 1) / 2);
  return `${formatIPv4(vpc.last + 1 - size)}/${32 - Math.log2(size)}`;
}

/** The parts of an {@link AwsConfig} that places and addresses follow from. */
export type Layout = Pick<AwsConfig, "exposure"> & {
  readonly network: { readonly zones: readonly AwsZone[]; readonly publicCidr: string | undefined };
  readonly realServers: { readonly count: number };
  readonly verifier: unknown;
  readonly monitor: unknown;
};

/** Every machine, directors first. */
export function placedMachines(aws: Layout): readonly PlacedMachine[] {
  const { zones, publicCidr } = aws.network;
  const inPlace = (place: Place, offset: number) => {
    const range = parseCidr(place === "public" ? (publicCidr ?? "") : (zones[place]?.cidr ?? ""));
    if (range === undefined) throw new Error(`there is no subnet "${place}"`);
    return { address: formatIPv4(range.first + offset), place };
  };
  // Behind NAT the directors alone are reached from the internet, and only a public subnet lets them answer there.
  const directors = [0, 1].map((index) => ({
    name: `director-${index + 1}`,
    role: "director" as const,
    ...inPlace(aws.exposure === "internet" ? "public" : index % zones.length, offsets.director + index),
  }));
  const realServers = Array.from({ length: aws.realServers.count }, (_, index) => ({
    name: `rs-${index + 1}`,
    role: "realServer" as const,
    ...inPlace(index % zones.length, offsets.realServer + Math.floor(index / zones.length)),
  }));
  const verifier =
    aws.verifier === undefined
      ? []
      : [{ name: "client", role: "client" as const, ...inPlace("public", offsets.verifier) }];
  const monitor =
    aws.monitor === undefined
      ? []
      : [{ name: "monitor", role: "monitor" as const, ...inPlace(0, offsets.monitor) }];
  return [...directors, ...realServers, ...verifier, ...monitor];
}
