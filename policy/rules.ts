/**
 * The rules of the policy pack, as functions of plain data. Each says of a resource what is wrong with it, with the value and what
 * to do; never a value that may be secret.
 */
import { isPrivate, parseCidr } from "../config/addresses";
import { paths } from "../render/paths";
import { layerOf } from "../scripts/lib/manifests";
import { at, type Declared, listAt, manifestOf, type Placed, UNKNOWN } from "./declared";

/** A rule that a resource keeps or breaks by itself. */
export interface Rule {
  readonly name: string;
  readonly description: string;
  /** Types of the resources that it is about. */
  readonly types: readonly string[];
  /** What is wrong with one of them. */
  readonly broken: (resource: Declared) => readonly string[];
}

/** A rule about resources together. */
export interface StackRule {
  readonly name: string;
  readonly description: string;
  readonly broken: (
    resources: readonly Placed[],
  ) => readonly { readonly urn: string; readonly message: string }[];
}

const COMMAND = "command:remote:Command";
const COMMANDS = [COMMAND, "command:local:Command", "command:remote:CopyToRemote", "command:remote:CopyFile"];
const INSTANCE = "aws:ec2/instance:Instance";

/** A range that is wider is not somebody's network, but most of the internet. */
const WIDEST = 8;

/** The packet filter's line that lets ports in from wherever. */
const OPEN_LINE = /^\s*tcp dport (?:\{ )?([\d, -]+?)(?: \})? accept$/gm;

export const rules: readonly Rule[] = [
  {
    name: "no-ssh-from-everywhere",
    description:
      "SSH is let in from the networks of those who administer the cluster, and from nowhere else.",
    types: [
      "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
      "aws:ec2/securityGroup:SecurityGroup",
      "aws:ec2/securityGroupRule:SecurityGroupRule",
      COMMAND,
    ],
    broken: (resource) =>
      resource.type === COMMAND
        ? openFirewall(resource)
        : openRules(resource).map(
            (range) =>
              `${resource.name} lets SSH in from ${range}. List the networks of aws.admins, such as 203.0.113.7/32.`,
          ),
  },
  {
    name: "metadata-service-v2",
    description:
      "The credentials of a machine are handed out to its own programs only, and only by version 2 of the metadata service.",
    types: [INSTANCE, "aws:ec2/launchTemplate:LaunchTemplate"],
    broken: ({ name, inputs }) => {
      const tokens = at(inputs, "metadataOptions", "httpTokens");
      const hops = at(inputs, "metadataOptions", "httpPutResponseHopLimit");
      return [
        ...(tokens === "required" || tokens === UNKNOWN
          ? []
          : [`metadataOptions.httpTokens of ${name} is ${show(tokens)}. Say "required".`]),
        ...(hops === 1 || hops === UNKNOWN
          ? []
          : [
              `metadataOptions.httpPutResponseHopLimit of ${name} is ${show(hops)}: what is forwarded would get an answer. Say 1.`,
            ]),
      ];
    },
  },
  {
    name: "encrypted-at-rest",
    description: "Disks and the share are encrypted.",
    types: [INSTANCE, "aws:ebs/volume:Volume", "aws:efs/fileSystem:FileSystem"],
    broken: ({ type, name, inputs }) => {
      const where: readonly (readonly [string, unknown])[] =
        type === INSTANCE
          ? [
              ["rootBlockDevice.encrypted", at(inputs, "rootBlockDevice", "encrypted")],
              ...listAt(inputs, "ebsBlockDevices").map(
                (device, index) => [`ebsBlockDevices[${index}].encrypted`, at(device, "encrypted")] as const,
              ),
            ]
          : [["encrypted", at(inputs, "encrypted")]];
      return where
        .filter(([, value]) => value !== true && value !== UNKNOWN)
        .map(([path, value]) => `${path} of ${name} is ${show(value)}. Say true.`);
    },
  },
  {
    name: "host-keys-pinned",
    description: "Every connection to a machine knows the key that the machine must show.",
    types: COMMANDS,
    broken: ({ type, name, inputs }) =>
      (type === "command:local:Command" ? [] : [["connection"], ["connection", "proxy"]])
        // Not every machine is behind another one.
        .filter((path) => path.length === 1 || at(inputs, ...path) !== undefined)
        .filter((path) => !isSet(at(inputs, ...path, "hostKey")))
        .map(
          (path) =>
            `${[...path, "hostKey"].join(".")} of ${name} is not set: whoever answers would be handed root's commands. Set it.`,
        ),
  },
  {
    name: "secrets-not-plain",
    description:
      "Secrets travel in layers that are kept secret as a whole, never in commands or beside what everybody may read.",
    types: COMMANDS,
    broken: (resource) => [...inCommands(resource), ...inManifest(resource)],
  },
  {
    name: "tagged",
    description: "What the program makes on AWS says to which stack it belongs, and by which name.",
    types: [
      INSTANCE,
      "aws:ec2/networkInterface:NetworkInterface",
      "aws:ec2/securityGroup:SecurityGroup",
      "aws:ec2/eip:Eip",
      "aws:ec2/vpc:Vpc",
      "aws:ec2/subnet:Subnet",
      "aws:efs/fileSystem:FileSystem",
    ],
    broken: ({ name, inputs, provider }) => {
      const stack =
        isSet(at(inputs, "tags", STACK_TAG)) || isSet(at(defaultTags(provider), "tags", STACK_TAG));
      return [
        ...(stack
          ? []
          : [
              `${name} has no tag ${STACK_TAG}. The provider of components/platform/aws/index.ts sets it: use that one.`,
            ]),
        ...(isSet(at(inputs, "tags", "Name"))
          ? []
          : [`${name} has no tag Name. Give it one, or nobody finds it in AWS's console.`]),
      ];
    },
  },
];

export const stackRules: readonly StackRule[] = [
  {
    name: "no-public-real-servers",
    description:
      "Real servers are reached through the directors: none has an address of its own on the internet.",
    broken: (resources) => {
      const realServers = resources
        .filter(({ type }) => type === "cosyvoice-lvs:index:RealServer")
        .map(({ name }) => name);
      return resources.flatMap(({ type, name, urn, inputs, leadsTo }) => {
        const say = (message: string) => [{ urn, message }];
        if (type === INSTANCE && at(inputs, "associatePublicIpAddress") === true) {
          return say(
            `${name} gets a public address. Leave associatePublicIpAddress out: directors get an Elastic IP.`,
          );
        }
        if (type === "aws:ec2/subnet:Subnet" && at(inputs, "mapPublicIpOnLaunch") === true) {
          return say(`${name} gives every machine a public address. Say mapPublicIpOnLaunch: false.`);
        }
        if (type.startsWith("aws:ec2/eip")) {
          const whose = realServers.find((server) =>
            leadsTo.some((one) =>
              [`::${server}-interface`, `::${server}-instance`].some((end) => one.endsWith(end)),
            ),
          );
          return whose === undefined
            ? []
            : say(`${name} is an Elastic IP of the real server ${whose}. Take it away.`);
        }
        return layerOf(at(inputs, "delete"))?.layer === "real-server"
          ? exposedHost({ type, name, urn, inputs, leadsTo }, resources)
          : [];
      });
    },
  },
];

const STACK_TAG = "cosyvoice-lvs:stack";

/** A provider's inputs come as texts of JSON. */
function defaultTags(provider: unknown): unknown {
  const given = at(provider, "defaultTags");
  return typeof given === "string" ? JSON.parse(given) : given;
}

function isSet(value: unknown): boolean {
  return value === UNKNOWN || (typeof value === "string" && value.trim() !== "");
}

/** A value that is no secret, in a sentence. */
function show(value: unknown): string {
  return value === undefined ? "not set" : JSON.stringify(value);
}

function isWide(range: unknown): range is string {
  if (typeof range !== "string") return false;
  const prefix = Number(range.split("/")[1] ?? (range.includes(":") ? 128 : 32));
  return prefix < WIDEST;
}

/** The ranges from which a security group lets SSH in although they are the whole internet, or nearly. */
function openRules({ type, inputs }: Declared): string[] {
  if (type === "aws:ec2/securityGroup:SecurityGroup") return listAt(inputs, "ingress").flatMap(wideRanges);
  if (at(inputs, "type") === "egress") return [];
  return wideRanges(inputs);
}

function wideRanges(rule: unknown): string[] {
  const [from, to] = [at(rule, "fromPort"), at(rule, "toPort")];
  const protocol = at(rule, "ipProtocol") ?? at(rule, "protocol");
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
function openFirewall(resource: Declared): string[] {
  const text = manifestOf(resource)?.files?.[paths.firewall]?.content;
  if (text === undefined || !text.includes("policy drop;")) return [];
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
          `${resource.name} opens port ${sshPort}, which is SSH's, to everybody. Take it out of firewall.openPorts.`,
        ]
      : []),
  ];
}

const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;
const PASSWORD = /\bauth_pass\s+\S/;

/** Files that hold secrets and nothing else. */
const SECRET_FILES: readonly string[] = [
  paths.keepalivedAuth,
  paths.peerKey,
  paths.frontDoorKey,
  paths.frontDoorApiKeys,
  paths.frontDoorUsers,
];

function holdsSecret(path: string, content: string): boolean {
  return (
    SECRET_FILES.includes(path) ||
    path.startsWith(`${paths.receiverSecrets}/`) ||
    PRIVATE_KEY.test(content) ||
    PASSWORD.test(content)
  );
}

/** A command's text is in the process list of its machine, and what is in its environment is one `ps e` away. */
function inCommands({ name, inputs }: Declared): string[] {
  const texts = ["create", "update", "delete"].filter((key) => {
    const text = at(inputs, key);
    return typeof text === "string" && (PRIVATE_KEY.test(text) || PASSWORD.test(text));
  });
  const environment = at(inputs, "environment");
  const variables =
    typeof environment === "object" && environment !== null
      ? Object.keys(environment).filter((key) => /pass|secret|token|private|api_?key/i.test(key))
      : [];
  return [
    ...texts.map((key) => `${key} of ${name} holds a key or a password. Send it in a layer that is secret.`),
    ...variables.map((key) => `${name} gets ${key} in its environment. Send it in a layer that is secret.`),
    ...(hasPassword(at(inputs, "connection"))
      ? [`${name} logs in with a password. Use a key: ssh.privateKeyFile, or the secret sshPrivateKey.`]
      : []),
  ];
}

function hasPassword(connection: unknown): boolean {
  return typeof connection === "object" && connection !== null && Object.hasOwn(connection, "password");
}

function inManifest(resource: Declared): string[] {
  const manifest = manifestOf(resource);
  return Object.entries(manifest?.files ?? {})
    .filter(([path, { content }]) => holdsSecret(path, content))
    .flatMap(([path, { mode }]) => {
      if (manifest?.secret !== true)
        return [
          `${resource.name} brings ${path}, which holds a secret, in a layer that is shown. Mark it secret: true.`,
        ];
      return mode.endsWith("0")
        ? []
        : [
            `${path} of ${resource.name} holds a secret, and its mode ${mode} lets everybody read it. Say 0640 or less.`,
          ];
    });
}

/** A real server in a rack that has an address on the internet needs a packet filter at least. */
function exposedHost({ urn, name, inputs }: Placed, resources: readonly Placed[]) {
  const host = at(inputs, "connection", "host");
  if (typeof host !== "string") return [];
  const range = parseCidr(`${host}/32`);
  const filtered = resources.some(
    (other) =>
      layerOf(at(other.inputs, "delete"))?.layer === "firewall" &&
      at(other.inputs, "connection", "host") === host,
  );
  if (range === undefined || isPrivate(range) || filtered) return [];
  return [
    {
      urn,
      message: `${name} is at ${host}, a public address, without a packet filter. Say firewall.enabled: true, or use its private address.`,
    },
  ];
}
