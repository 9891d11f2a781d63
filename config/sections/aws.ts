/** What the platform aws can be told: the section `aws` of a stack file, and what the program gets of it. */
import type * as z from "zod";
import { parseCidr } from "../addresses";
import { type About, choice, flag, list, section, text, whole } from "../leaves";

function cidr(words: About) {
  return text(
    (value) => parseCidr(value) !== undefined,
    "a range of addresses such as 10.20.0.0/16, written with its first address",
    words,
  );
}

function instanceType(words: About) {
  return text(
    (value) => /^[a-z][a-z0-9-]*\.[a-z0-9-]+$/.test(value),
    "an EC2 instance type such as g5.xlarge",
    words,
  );
}

function image(fallback: string) {
  return text(
    (value) => /^ami-[0-9a-f]{8,17}$/.test(value) || /^(\/[A-Za-z0-9_.-]+){2,15}$/.test(value),
    "an image (ami-...) or the name of an SSM parameter that holds one (/aws/service/...)",
    {
      text: "Image that new machines start from: an AMI, or an SSM parameter that names one. Debian 12 or Ubuntu 24.04.",
      why: "A parameter is resolved once and the result kept, so that a machine added in a year is like its neighbours. A machine that exists keeps its image, whatever you set here: docs/aws.md says how to renew one.",
    },
  ).default(fallback);
}

function disk(fallback: number, why: string) {
  return whole(8, 16_384, { text: "Size of the root disk (gp3, encrypted).", unit: "GiB", why }).default(
    fallback,
  );
}

/** As AWS names its resources: `vpc-0123456789abcdef0`. */
function resourceId(kind: string, words: About) {
  return text(
    (value) => new RegExp(`^${kind}-[0-9a-f]{8,17}$`).test(value),
    `an id such as ${kind}-0123456789abcdef0`,
    words,
  );
}

const zoneSchema = section(
  {
    name: text(
      (value) => /^[a-z]{2}(-[a-z]+)+-\d[a-z]$/.test(value),
      "the name of an availability zone such as eu-central-1a",
      { text: "Availability zone." },
    ),
    cidr: cidr({
      text: "Range of the cluster's subnet in that zone. The directors get its 11th and 12th address (such as 10.20.0.10 and 10.20.0.11), real servers those from the 33rd (10.20.0.32) on.",
      why: "Machines have fixed addresses, so that a preview shows every file as it will be and a new machine does not change the others.",
    }),
    subnetId: resourceId("subnet", {
      text: "The existing subnet in that zone.",
      required: "with `aws.network.vpcId`",
    }).optional(),
  },
  { text: "An availability zone with a subnet of the cluster." },
);

const networkSchema = section(
  {
    cidr: cidr({
      text: "Range of the VPC, whether the program creates it or `vpcId` names it.",
      why: "It must contain the zones' ranges, and must not overlap with any network that you will peer it with.",
    }).default("10.20.0.0/16"),
    vpcId: resourceId("vpc", {
      text: "An existing VPC. The program then creates no subnets and no NAT gateway: the subnets of its zones must already have a route to the internet.",
      derived: "the program creates a VPC",
    }).optional(),
    publicCidr: cidr({
      text: "Range of the public subnet, in the first zone. It holds the NAT gateway and the verifier and, with `aws.exposure: internet`, the directors and the VIP.",
      derived: "the last 256 addresses of `aws.network.cidr`",
    }).optional(),
    zones: list(zoneSchema, {
      form: "a list of one or two zones",
      text: "Availability zones of the machines. One zone for DR (which needs all machines in one subnet) and NAT, one or two for TUN: with two, each director has its own, and the real servers alternate between them.",
    }),
    clientRouteTables: list(resourceId("rtb", { text: "Id of a route table of the VPC." }), {
      text: "Other route tables of the cluster's VPC whose subnets have clients: each gets a route to the VIP. The program's own have one already.",
    }).default([]),
    flowLogs: flag({
      text: "Whether the VPC's rejected connections are logged (in CloudWatch, for 30 days). Only in a VPC that the program creates.",
    }).default(true),
  },
  { text: "The network." },
);

const realServersSchema = section(
  {
    count: whole(1, 1000, {
      text: "Number of real servers: rs-1, rs-2 and so on.",
      unit: "machines",
      why: "Adding one changes nothing on other machines but their lists of real servers. Removing one drains the last real server, then deletes it.",
    }).default(3),
    instanceType: instanceType({
      text: "Instance type of the real servers.",
      why: "g4dn.xlarge (a T4 with 16 GB) is the smallest that fits the model.",
    }).default("g5.xlarge"),
    image: image(
      "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
    ),
    disk: disk(
      100,
      "The image with its drivers takes most of 75 GiB, weights and two releases about 15 GiB.",
    ),
    spot: flag({
      text: "Whether the real servers are spot instances. AWS takes them back with two minutes' notice and starts them again when it has capacity.",
      why: "A spot instance costs about a third. When AWS takes a real server back, it leaves the pool like one that died.",
    }).default(false),
  },
  { text: "The GPU machines." },
);

const directorsSchema = section(
  {
    instanceType: instanceType({
      text: "Instance type of the two directors.",
      why: "The directors see only what clients send, so packets per second are what counts: larger and network-optimised types (c6in) have more.",
    }).default("c6i.large"),
    image: image("/aws/service/debian/release/12/latest/amd64"),
    disk: disk(20, "Logs and packages."),
  },
  { text: "The two directors. They are always on-demand instances." },
);

const verifierSchema = section(
  {
    instanceType: instanceType({ text: "Its instance type." }).default("t3.micro"),
    sources: cidr({
      text: "Addresses that it asks from, at most 256. They must lie outside the VPC's range, since a route leads them back to it.",
      why: "mh and sh send one client address to one real server, so reaching every real server takes many addresses.",
    }).default("10.255.1.0/24"),
  },
  {
    text: "The client machine, in another subnet, from which every deployment is verified. Only in a VPC that the program creates.",
  },
);

const monitorSchema = section(
  {
    instanceType: instanceType({
      text: "Its instance type.",
      why: "Prometheus takes about 3 kB of memory per series, and a real server has about 700 series.",
    }).default("t3.small"),
    disk: disk(
      30,
      "`monitoring.metrics.disk` (and `monitoring.logs.disk`, where logs are collected) plus 12 GB for everything else.",
    ),
  },
  { text: "The monitoring machine. It is created only with a section `monitoring`." },
);

const dnsSchema = section(
  {
    zoneId: text(
      (value) => /^Z[A-Z0-9]{5,31}$/.test(value),
      "the id of a hosted zone such as Z0123456789ABC",
      {
        text: "Hosted zone of Route 53: a private one of the VPC for `exposure: vpc`, a public one for `internet`.",
      },
    ),
    name: text(
      (value) => /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$/.test(value),
      "a DNS name such as speech.example.org",
      { text: "Name of the service in that zone." },
    ),
  },
  { text: "A name for the service." },
);

const alarmsSchema = section(
  {
    emails: list(
      text((value) => /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(value), "an e-mail address", {
        text: "E-mail address. AWS sends it a request to confirm.",
      }),
      { form: "a list of e-mail addresses", text: "Who gets the alarms." },
    ),
  },
  {
    text: "CloudWatch alarms: for machines whose status checks fail, and for directors whose packets AWS queues or drops because the instance type allows no more. The cluster itself is watched by `monitoring`.",
  },
);

const ranges = (words: About) =>
  list(cidr({ text: "A range of addresses, `203.0.113.7/32` for a single one." }), {
    form: "a list of ranges of addresses",
    ...words,
  });

export const awsSchema = section(
  {
    region: text(
      (value) => /^[a-z]{2}(-[a-z]+)+-\d$/.test(value),
      "the name of an AWS region such as eu-central-1",
      { text: "Region of the machines." },
    ),
    exposure: choice(["vpc", "internet"], {
      text: "Who can reach the VIP. vpc: clients in the VPC and in networks connected to it. internet: everybody in `aws.clients`, through an Elastic IP; only with forwarding NAT.",
      why: "The internet gateway drops what a real server sends with the VIP as its source, so replies to the internet must go through the director. The director therefore replaces the clients' addresses with its own.",
    }).default("vpc"),
    network: networkSchema,
    clients: ranges({ text: "Addresses that may use the service." }),
    admins: ranges({
      text: "Addresses that may log in over SSH to the directors, which are the jump hosts to all other machines. This computer's must be among them. Either all public (the directors get Elastic IPs) or all private (you come by VPN or peering).",
    }),
    realServers: realServersSchema.prefault({}),
    directors: directorsSchema.prefault({}),
    verifier: verifierSchema.optional(),
    monitor: monitorSchema.prefault({}),
    dns: dnsSchema.optional(),
    alarms: alarmsSchema.optional(),
  },
  { text: "What the platform aws creates. docs/aws.md walks through it." },
);

/** A zone with its subnet. */
export interface AwsZone {
  readonly name: string;
  readonly cidr: string;
  /** Given with the VPC; `undefined`: made. */
  readonly subnetId: string | undefined;
}

/** The section `aws`, complete. */
export interface AwsConfig extends Omit<z.output<typeof awsSchema>, "network" | "verifier" | "monitor"> {
  readonly network: {
    readonly cidr: string;
    readonly vpcId: string | undefined;
    /** `undefined` in a given VPC. */
    readonly publicCidr: string | undefined;
    readonly zones: readonly AwsZone[];
    readonly clientRouteTables: readonly string[];
    readonly flowLogs: boolean;
  };
  /** How SSH comes in: by Elastic IPs from the internet, or on private ways. */
  readonly access: "internet" | "private";
  readonly verifier: { readonly instanceType: string; readonly sources: string } | undefined;
  /** `undefined` where nothing is watched. */
  readonly monitor: z.output<typeof monitorSchema> | undefined;
}

/** The login user that user data makes on every machine, whatever the image calls its own. */
export const awsUser = "deploy";
