/**
 * The rules of the policy pack, as functions of plain data. Each says of a resource what is wrong with it, with the value and what
 * to do; never a value that may be secret.
 */
import { at, type Declared, listAt, UNKNOWN } from "./declared";
import { inCommands, inManifest } from "./secrets";
import { openFirewall, openRules } from "./ssh";

/** A rule that a resource keeps or breaks by itself. */
export interface Rule {
  readonly name: string;
  readonly description: string;
  /** Types of the resources that it is about. */
  readonly types: readonly string[];
  /** What is wrong with one of them. */
  readonly broken: (resource: Declared) => readonly string[];
}

const COMMAND = "command:remote:Command";
const COMMANDS = [COMMAND, "command:local:Command", "command:remote:CopyToRemote", "command:remote:CopyFile"];
const INSTANCE = "aws:ec2/instance:Instance";

export const rules: readonly Rule[] = [
  {
    name: "no-ssh-from-everywhere",
    description: "SSH is accepted only from the networks of those who administer the cluster.",
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
              `${resource.name} lets SSH in from ${range}. List your networks in aws.admins, such as 203.0.113.7/32.`,
          ),
  },
  {
    name: "metadata-service-v2",
    description:
      "A machine's credentials are given only to its own programs, and only by version 2 of the metadata service.",
    types: [INSTANCE, "aws:ec2/launchTemplate:LaunchTemplate"],
    broken: ({ name, inputs }) => {
      const tokens = at(inputs, "metadataOptions", "httpTokens");
      const hops = at(inputs, "metadataOptions", "httpPutResponseHopLimit");
      return [
        ...(tokens === "required" || tokens === UNKNOWN
          ? []
          : [`metadataOptions.httpTokens of ${name} is ${show(tokens)}. Set it to "required".`]),
        ...(hops === 1 || hops === UNKNOWN
          ? []
          : [
              `metadataOptions.httpPutResponseHopLimit of ${name} is ${show(hops)}: forwarded packets would get an answer. Set it to 1.`,
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
        .map(([path, value]) => `${path} of ${name} is ${show(value)}. Set it to true.`);
    },
  },
  {
    name: "host-keys-pinned",
    description: "Every connection to a machine has the host key that the machine must show.",
    types: COMMANDS,
    broken: ({ type, name, inputs }) =>
      (type === "command:local:Command" ? [] : [["connection"], ["connection", "proxy"]])
        // Not every machine is behind another one.
        .filter((path) => path.length === 1 || at(inputs, ...path) !== undefined)
        .filter((path) => !isSet(at(inputs, ...path, "hostKey")))
        .map(
          (path) =>
            `${[...path, "hostKey"].join(".")} of ${name} is not set: whoever answers would receive root's commands. Set it.`,
        ),
  },
  {
    name: "secrets-not-plain",
    description:
      "Secrets travel only in layers that are secret, never in commands or in layers that are shown.",
    types: COMMANDS,
    broken: (resource) => [...inCommands(resource), ...inManifest(resource)],
  },
  {
    name: "tagged",
    description: "What the program creates on AWS is tagged with its stack and its name.",
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
              `${name} has no tag ${STACK_TAG}. The provider of components/platform/aws/index.ts sets it: use that provider.`,
            ]),
        ...(isSet(at(inputs, "tags", "Name"))
          ? []
          : [`${name} has no tag Name. Add one, so that it can be found in AWS's console.`]),
      ];
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
