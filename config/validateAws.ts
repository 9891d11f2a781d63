/** How the values of the section `aws` fit together, and with the rest of the file. */
import {
  type Cidr,
  contains,
  formatIPv4,
  isPrivate,
  maxExpandedAddresses,
  overlap,
  parseCidr,
  parseIPv4,
} from "./addresses";
import { capacity, defaultPublicCidr, type Layout, type PlacedMachine, placedMachines } from "./awsLayout";
import type { Path } from "./keys";
import type { Draft, Report } from "./validate";

type RawAws = NonNullable<Draft["aws"]>;

/** Every conflict of a stack on the platform aws. */
export function checkAws(draft: Draft, report: Report): void {
  checkForeignKeys(draft, report);
  const { aws } = draft;
  if (aws === undefined) return;
  checkExposure(draft, aws, report);
  checkNetwork(aws, report);
  checkVip(draft, aws, report);
  checkPeople(aws, report);
  checkMachines(draft, aws, report);
}

/**
 * The machines of a draft whose network is sound enough to know them: what other checks count and compare.
 *
 * @returns the draft itself on the platform hosts.
 */
export function withAwsMachines(draft: Draft): Draft {
  if (draft.platform !== "aws") return draft;
  const machines = machinesOf(draft.aws) ?? [];
  return {
    ...draft,
    interface: draft.interface ?? "ens5",
    directors: machines
      .filter(({ role }) => role === "director")
      .map(({ name, address }) => ({ name, address })),
    realServers: machines
      .filter(({ role }) => role === "realServer")
      .map(({ name, address }) => ({ name, address, weight: 1 })),
  };
}

function machinesOf(aws: RawAws | undefined): readonly PlacedMachine[] | undefined {
  const zones = rangesOf(aws?.network?.zones?.map((zone) => zone?.cidr));
  const count = aws?.realServers?.count;
  if (aws === undefined || zones === undefined || zones.length === 0 || count === undefined) return undefined;
  if (count > capacity(zones)) return undefined;
  const layout: Layout = {
    exposure: aws.exposure ?? "vpc",
    network: {
      zones: (aws.network?.zones ?? []).map((zone) => ({
        name: zone?.name ?? "",
        cidr: zone?.cidr ?? "",
        subnetId: undefined,
      })),
      publicCidr: publicRange(aws)?.text,
    },
    realServers: { count },
    verifier: aws.verifier,
    // Its address is nobody else's, and it has nothing to be counted for here.
    monitor: undefined,
  };
  const needsPublic = layout.exposure === "internet" || layout.verifier !== undefined;
  return needsPublic && layout.network.publicCidr === undefined ? undefined : placedMachines(layout);
}

function rangesOf(texts: readonly (string | undefined)[] | undefined): Cidr[] | undefined {
  const ranges = texts?.map((text) => parseCidr(text ?? ""));
  return ranges?.every((range) => range !== undefined) ? ranges : undefined;
}

/** The public subnet's range, said or not. */
function publicRange({ network }: RawAws): { text: string; range: Cidr } | undefined {
  const vpc = parseCidr(network?.cidr ?? "");
  if (network === undefined || vpc === undefined || network.vpcId !== undefined) return undefined;
  const text = network.publicCidr ?? defaultPublicCidr(vpc);
  const range = parseCidr(text);
  return range && { text, range };
}

// --- what belongs to the other platform --------------------------------------------------------------------------------

function checkForeignKeys(draft: Draft, report: Report): void {
  const { ssh, verification, secrets, loadBalancer, vrrp } = draft;
  for (const key of ["jumpHost", "privateKeyFile", "knownHostsFile"] as const) {
    if (ssh?.[key] !== undefined) {
      report(
        ["ssh", key],
        "is given, but on the platform aws the program creates all keys, and the directors are the jump hosts",
        "remove it",
      );
    }
  }
  if (secrets.sshPrivateKey) {
    report(
      ["sshPrivateKey"],
      "is set, but on the platform aws the program creates the login key",
      "run: pulumi config rm sshPrivateKey",
      "(a secret)",
    );
  }
  if (verification?.client !== undefined) {
    report(
      ["verification", "client"],
      "is given, but the platform aws creates its machines itself",
      "remove it, and write aws.verifier: {}",
    );
  }
  if ((verification?.sourceAddresses?.length ?? 0) > 0) {
    report(
      ["verification", "sourceAddresses"],
      "is given, but on the platform aws the addresses come from aws.verifier.sources",
      "remove it",
    );
  }
  if (vrrp?.unicast === false) {
    report(["vrrp", "unicast"], "is false, but a VPC has no multicast", "remove it: unicast is the default");
  }
  if (loadBalancer?.connectionSync === true) {
    report(
      ["loadBalancer", "connectionSync"],
      "is true, but needs multicast, which a VPC does not have",
      "leave it out; mh and sh do not need it",
    );
  }
}

// --- exposure and forwarding -------------------------------------------------------------------------------------------

function checkExposure({ loadBalancer, service, firewall }: Draft, aws: RawAws, report: Report): void {
  const forwarding = loadBalancer?.forwarding;
  if (aws.exposure === "internet" && forwarding !== undefined && forwarding !== "NAT") {
    report(
      ["loadBalancer", "forwarding"],
      `is ${forwarding}, but with aws.exposure: internet the internet gateway drops the replies that real servers send with the VIP as their source`,
      "set it to NAT: replies then go through the director",
    );
  }
  const zones = aws.network?.zones;
  if (zones !== undefined && (zones.length === 0 || zones.length > 2)) {
    report(
      ["aws", "network", "zones"],
      `has ${zones.length} entries, but must have one or two`,
      "list one zone, or two with forwarding TUN",
    );
  } else if (zones?.length === 2 && forwarding !== undefined && forwarding !== "TUN") {
    report(
      ["aws", "network", "zones"],
      forwarding === "DR"
        ? "has two zones, but DR rewrites MAC addresses, which works within one subnet only"
        : "has two zones, which only TUN supports",
      "list one zone, or set loadBalancer.forwarding to TUN",
    );
  }
  if (firewall?.enabled) {
    report(
      ["firewall", "enabled"],
      "is true, but on aws the security groups already let through only what is needed",
      "leave it out",
    );
  }
  const type = aws.realServers?.instanceType;
  if (service?.engine === "cosyvoice" && type !== undefined && !/^(gr?\d|p\d)/.test(type)) {
    report(
      ["aws", "realServers", "instanceType"],
      "has no NVIDIA GPU, which the engine cosyvoice needs",
      "write a type such as g5.xlarge, or set service.engine to cpu",
    );
  }
}

// --- network -----------------------------------------------------------------------------------------------------------

function checkNetwork(aws: RawAws, report: Report): void {
  const { network } = aws;
  if (network === undefined) return;
  const at = (...path: Path) => ["aws", "network", ...path];
  const vpc = parseCidr(network.cidr ?? "");
  if (vpc !== undefined && (vpc.prefix < 16 || vpc.prefix > 26)) {
    report(
      at("cidr"),
      `is a /${vpc.prefix}, but a VPC can be a /16 to a /28, and this program needs a /26 or larger`,
      "write a range such as 10.20.0.0/16",
    );
  }
  const given = network.vpcId !== undefined;
  if (given) {
    if (network.clientRouteTables?.length === 0) {
      report(
        at("clientRouteTables"),
        "is empty, but in an existing VPC the program has no route tables of its own: no client would find the VIP",
        "list the route tables of the subnets with clients",
      );
    }
    if (aws.exposure === "internet") {
      report(
        at("vpcId"),
        "is given together with aws.exposure: internet, which works only in a VPC that the program creates",
        "remove it, or set aws.exposure to vpc",
      );
    }
    if (network.publicCidr !== undefined) {
      report(
        at("publicCidr"),
        "is given together with vpcId, but the program creates no subnets in an existing VPC",
        "remove one of them",
      );
    }
    if (aws.verifier !== undefined) {
      report(
        ["aws", "verifier"],
        "is given together with aws.network.vpcId, but needs a subnet, which the program does not create in an existing VPC",
        "remove it; scripts/cluster prove asks from the standby director",
      );
    }
  }

  const taken: { what: string; range: Cidr }[] = [];
  const open = given ? undefined : publicRange(aws);
  if (vpc !== undefined && open !== undefined) {
    if (!contains(vpc, open.range))
      report(at("publicCidr"), `lies outside the VPC's range, ${network.cidr}`, "write a part of that range");
    else if (open.range.prefix > 27) report(at("publicCidr"), "is too small", "write a /27 or larger");
    taken.push({ what: `the public subnet, ${open.text}`, range: open.range });
  }
  network.zones?.forEach((zone, index) => {
    if (zone === undefined) return;
    const { name, subnetId } = zone;
    const { region } = aws;
    if (
      name !== undefined &&
      region !== undefined &&
      !(name.startsWith(region) && name.length === region.length + 1)
    ) {
      report(
        at("zones", index, "name"),
        `is not a zone of ${region}`,
        `write ${region}a or another zone of the region`,
      );
    }
    if (name !== undefined && network.zones?.slice(0, index).some((other) => other?.name === name)) {
      report(at("zones", index, "name"), "is listed already", "list two different zones");
    }
    if (given && subnetId === undefined) {
      report(
        at("zones", index, "subnetId"),
        "is missing, but aws.network.vpcId names an existing VPC",
        "write the id of the subnet in that zone",
      );
    } else if (!given && subnetId !== undefined) {
      report(
        at("zones", index, "subnetId"),
        "is given, but aws.network.vpcId is not",
        "write the VPC's id too, or remove it",
      );
    }
    const range = parseCidr(zone.cidr ?? "");
    if (range === undefined) return;
    if (vpc !== undefined && !contains(vpc, range)) {
      report(
        at("zones", index, "cidr"),
        `lies outside the VPC's range, ${network.cidr}`,
        "write a part of that range",
      );
    }
    const clash = taken.find((other) => overlap(other.range, range));
    if (clash !== undefined) {
      report(
        at("zones", index, "cidr"),
        `overlaps with ${clash.what}`,
        "give every subnet a range of its own",
      );
    }
    taken.push({ what: `aws.network.zones[${index}], ${zone.cidr}`, range });
  });
  const zones = rangesOf(network.zones?.map((zone) => zone?.cidr));
  const count = aws.realServers?.count;
  if (zones !== undefined && zones.length > 0 && count !== undefined && count > capacity(zones)) {
    report(
      ["aws", "realServers", "count"],
      `is more than the zones' ranges have room for: ${capacity(zones)}`,
      "write larger ranges in aws.network.zones, such as a /20, or fewer real servers",
    );
  }
}

// --- the VIP -----------------------------------------------------------------------------------------------------------

function checkVip({ vip }: Draft, aws: RawAws, report: Report): void {
  const address = parseIPv4(vip ?? "");
  const vpc = parseCidr(aws.network?.cidr ?? "");
  const sources = parseCidr(aws.verifier?.sources ?? "");
  if (sources !== undefined) {
    const path = ["aws", "verifier", "sources"];
    if (sources.last - sources.first + 1 > maxExpandedAddresses) {
      report(path, `has more than ${maxExpandedAddresses} addresses`, "write a /24 or smaller");
    }
    if (vpc !== undefined && overlap(vpc, sources)) {
      report(
        path,
        `overlaps with the VPC's range, ${aws.network?.cidr}, inside which no route can lead to the verifier`,
        "write a range outside it, such as 10.255.1.0/24",
      );
    }
    if (address !== undefined && contains(sources, address)) {
      report(path, "contains the VIP", "write a range without it");
    }
  }
  if (address === undefined || vpc === undefined) return;
  if (aws.exposure === "vpc" && contains(vpc, address)) {
    report(
      ["vip"],
      `lies in the VPC's range, ${aws.network?.cidr}, inside which no route can lead to a director`,
      "write an address outside every range of the VPC, such as 10.255.0.100",
    );
  }
  const open = publicRange(aws);
  if (aws.exposure !== "internet" || open === undefined) return;
  if (!contains(open.range, address)) {
    report(
      ["vip"],
      `lies outside the public subnet, ${open.text}: with aws.exposure: internet the VIP is an address of that subnet, which moves between the directors`,
      `write a free one, such as ${formatIPv4(open.range.first + 15)}`,
    );
    return;
  }
  const owner = machinesOf(aws)?.find((machine) => machine.address === vip);
  if (owner !== undefined)
    report(
      ["vip"],
      `is the address of ${owner.name}`,
      `write a free one, such as ${formatIPv4(open.range.first + 15)}`,
    );
  else if (address < open.range.first + 4 || address === open.range.last) {
    report(
      ["vip"],
      "is one of the five addresses that AWS reserves in every subnet",
      `write a free one, such as ${formatIPv4(open.range.first + 15)}`,
    );
  }
}

// --- who may come ------------------------------------------------------------------------------------------------------

function checkPeople(aws: RawAws, report: Report): void {
  if (aws.clients?.length === 0) {
    report(["aws", "clients"], "is empty: nobody could use the service", "list the ranges of those who may");
  }
  aws.clients?.forEach((text, index) => {
    const range = parseCidr(text ?? "");
    if (range !== undefined && range.prefix === 0 && aws.exposure === "vpc") {
      report(
        ["aws", "clients", index],
        "is everybody, but with aws.exposure: vpc only the VPC and the networks connected to it can reach the VIP",
        `write their ranges, such as ${aws.network?.cidr ?? "10.20.0.0/16"}`,
      );
    }
  });
  if (aws.admins?.length === 0) {
    report(
      ["aws", "admins"],
      "is empty: this computer could not log in",
      "list its address, such as 203.0.113.7/32",
    );
  }
  const kinds = (aws.admins ?? []).map((text, index) => {
    const range = parseCidr(text ?? "");
    if (range === undefined) return undefined;
    if (range.prefix < 8) {
      report(
        ["aws", "admins", index],
        range.prefix === 0 ? "opens SSH to everybody" : "opens SSH to a large part of the internet",
        "write the addresses that you come from, such as 203.0.113.7/32",
      );
      return undefined;
    }
    return isPrivate(range) ? "private" : "public";
  });
  if (kinds.includes("private") && kinds.includes("public")) {
    report(
      ["aws", "admins"],
      "has public and private ranges, but a director can reply only one way",
      "write only public ones, or only private ones",
    );
  }
  if (kinds.includes("public") && aws.network?.vpcId !== undefined) {
    report(
      ["aws", "admins"],
      "has public ranges, but this program adds no route to the internet to an existing VPC",
      "come by VPN or peering and write private ranges, or remove aws.network.vpcId",
    );
  }
}

// --- machines ----------------------------------------------------------------------------------------------------------

/** Graviton: the letter g after the generation, as in t4g, c7gn, g5g. */
const arm = /^[a-z]+\d+g[a-z]*\./;

function checkMachines(draft: Draft, aws: RawAws, report: Report): void {
  const types: [Path, string | undefined][] = [
    [["aws", "realServers", "instanceType"], aws.realServers?.instanceType],
    [["aws", "directors", "instanceType"], aws.directors?.instanceType],
    [["aws", "verifier", "instanceType"], aws.verifier?.instanceType],
    [["aws", "monitor", "instanceType"], aws.monitor?.instanceType],
  ];
  for (const [path, type] of types) {
    if (type !== undefined && arm.test(type)) {
      report(
        path,
        "has an ARM processor, but the images are for x86-64",
        "write a type without the g, such as c6i.large",
      );
    }
  }
  const count = aws.realServers?.count;
  const scheduler = draft.loadBalancer?.scheduler;
  const heard = Math.floor(maxExpandedAddresses / 10);
  if (
    aws.verifier !== undefined &&
    count !== undefined &&
    count > heard &&
    (scheduler === "mh" || scheduler === "sh")
  ) {
    report(
      ["aws", "verifier"],
      `asks from at most ${maxExpandedAddresses} addresses, with which ${scheduler} may not reach each of ${count} real servers`,
      `remove it (scripts/cluster prove asks without it), or have at most ${heard} real servers`,
    );
  }
}
