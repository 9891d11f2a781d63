import { paths } from "../render/paths";
import { at, type Declared, listAt, manifestOf } from "./declared";

/** A range that is wider is not somebody's network, but most of the internet. */
const WIDEST = 8;

/** The packet filter's line that lets ports in from wherever. */
const OPEN_LINE = /^\s*tcp dport (?:\{ )?([\d, -]+?)(?: \})? accept$/gm;

function isWide(range: unknown): range is string {
  if (typeof range !== "string") return false;
  const prefix = Number(range.split("/")[1] ?? (range.includes(":") ? 128 : 32));
  return prefix < WIDEST;
}

/** The ranges from which a security group lets SSH in although they are the whole internet, or nearly. */
export function openRules({ type, inputs }: Declared): string[] {
  if (type === "aws:ec2/securityGroup:SecurityGroup") return listAt(inputs, "ingress").flatMap(wideRanges);
  if (at(inputs, "type") === "egress") return [];
  return wideRanges(inputs);
}

function wideRanges(rule: unknown): string[] {
  const [from, to] = [at(rule, "fromPort"), at(rule, "toPort")];
  const said = at(rule, "ipProtocol") ?? at(rule, "protocol");
  // AWS takes both cases.
  const protocol = typeof said === "string" ? said.toLowerCase() : said;
  const all = protocol === "-1" || protocol === "all";
  const within = typeof from === "number" && typeof to === "number" && from <= 22 && 22 <= to;
  if (!all && !(within && (protocol === "tcp" || protocol === "6"))) return [];
  const ranges = [
    at(rule, "cidrIpv4"),
    at(rule, "cidrIpv6"),
    ...listAt(rule, "cidrBlocks"),
    ...listAt(rule, "ipv6CidrBlocks"),
  ];
  return ranges.filter(isWide);
}

/** What is wrong with the packet filter that a layer brings, where it brings one that drops the rest. */
export function openFirewall(resource: Declared): string[] {
  if (!dropsTheRest(resource)) return [];
  const text = filterIn(resource) ?? "";
  const admins = /elements = \{ (.*) \}/.exec(text)?.[1]?.split(", ") ?? [];
  const sshPort = at(resource.inputs, "connection", "port") ?? 22;
  const open = [...text.matchAll(OPEN_LINE)].flatMap(([, ports = ""]) => ports.split(", "));
  return [
    ...admins
      .filter(isWide)
      .map(
        (range) =>
          `${resource.name} lets SSH in from ${range}. List the networks that you deploy and administer from in firewall.admins.`,
      ),
    ...(open.includes(String(sshPort))
      ? [
          `${resource.name} opens port ${sshPort}, the SSH port, to everybody. Remove it from firewall.openPorts.`,
        ]
      : []),
  ];
}

/** Whether a layer brings a packet filter that drops what it does not let in. */
export function dropsTheRest(resource: Declared): boolean {
  return filterIn(resource)?.includes("policy drop;") ?? false;
}

function filterIn(resource: Declared): string | undefined {
  return manifestOf(resource)?.files?.[paths.firewall]?.content;
}
