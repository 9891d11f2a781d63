/** What the platform aws can be told: the section `aws` of a stack file, and what the program gets of it. */
import type * as z from "zod";
import { parseCidr } from "../addresses";
import { type About, choice, flag, list, section, text, whole } from "../leaves";

function cidr(words: About) {
  return text(
    (value) => parseCidr(value) !== undefined,
    "a range of addresses such as 10.20.0.0/16, which starts at its first address",
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
    "an image (ami-...) or the name of an SSM parameter that has one (/aws/service/...)",
    {
      text: "Image that new machines start from: an AMI, or an SSM parameter that names one. Debian 12 or Ubuntu 24.04.",
      why: "A parameter is resolved once and then kept, so that a machine added in a year is like its neighbours. A machine that is there keeps its image, whatever this says: see docs/aws.md for how one is renewed.",
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
      text: "Range of the cluster's subnet there. Of it the directors get the 11th and 12th address, real servers those from the 33rd on.",
      why: "Machines have fixed addresses, so that a preview shows every file as it will be, and a new machine changes no other.",
    }),
    subnetId: resourceId("subnet", {
      text: "The subnet, where the VPC is a given one.",
      required: "with `aws.network.vpcId`",
    }).optional(),
  },
  { text: "An availability zone with a subnet of the cluster." },
);

const networkSchema = section(
  {
    cidr: cidr({
      text: "Range of the VPC: of the one that is made, or of the given one.",
      why: "It is made of zones' ranges and must not overlap with networks that it is to be peered with.",
    }).default("10.20.0.0/16"),
    vpcId: resourceId("vpc", {
      text: "A VPC that is there. The program then makes no subnets and no way out: its zones' subnets must lead to the internet (a NAT gateway) by themselves.",
      derived: "a VPC is made",
    }).optional(),
    publicCidr: cidr({
      text: "Range of the public subnet, in the first zone: the NAT gateway and the client that verifies, and with `aws.exposure: internet` the directors and the VIP.",
      derived: "the last 256 addresses of `aws.network.cidr`",
    }).optional(),
    zones: list(zoneSchema, {
      form: "a list of one or two zones",
      text: "Where the machines stand. One zone for DR and NAT, since DR needs all of them in one subnet; one or two for TUN: real servers take turns, each director has its own.",
    }),
    clientRouteTables: list(resourceId("rtb", { text: "Id of a route table of the VPC." }), {
      text: "Route tables, besides the program's own, whose subnets have clients: each gets a route to the VIP. Of the VPC of the cluster.",
    }).default([]),
    flowLogs: flag({
      text: "Whether the VPC's rejected connections are logged (CloudWatch, kept 30 days). Only for a VPC that is made.",
    }).default(true),
  },
  { text: "The network." },
);

const realServersSchema = section(
  {
    count: whole(1, 1000, {
      text: "Number of real servers: rs-1, rs-2 and so on.",
      unit: "machines",
      why: "One more changes nothing but the directors' lists; one less takes the last one away, drained first.",
    }).default(3),
    instanceType: instanceType({
      text: "Instance type of the real servers.",
      why: "g4dn.xlarge (a T4 with 16 GB) is the smallest that fits the model.",
    }).default("g5.xlarge"),
    image: image(
      "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
    ),
    disk: disk(100, "The image with its drivers takes most of 75, weights and two releases some 15."),
    spot: flag({
      text: "Whether they are spot instances. AWS takes them back with two minutes' notice, and starts them again when there are some.",
      why: "About a third of the price. A real server that goes is taken out of the pool like one that died.",
    }).default(false),
  },
  { text: "The GPU machines." },
);

const directorsSchema = section(
  {
    instanceType: instanceType({
      text: "Instance type of the two directors.",
      why: "They see only what clients send. What counts is packets a second: larger types and network-optimised ones (c6in) have more.",
    }).default("c6i.large"),
    image: image("/aws/service/debian/release/12/latest/amd64"),
    disk: disk(20, "Logs and packages."),
  },
  { text: "The two directors. They are on demand always." },
);

const verifierSchema = section(
  {
    instanceType: instanceType({ text: "Its instance type." }).default("t3.micro"),
    sources: cidr({
      text: "Addresses from which it asks, outside the VPC's range: a route leads back to it. At most 256.",
      why: "mh and sh send one address to one real server, and every one of them shall be heard.",
    }).default("10.255.1.0/24"),
  },
  {
    text: "The machine in another subnet from which every deployment is verified. Only in a VPC that is made.",
  },
);

const monitorSchema = section(
  {
    instanceType: instanceType({
      text: "Its instance type.",
      why: "Prometheus takes some 3 kB of memory for each series, of which a real server has about 700.",
    }).default("t3.small"),
    disk: disk(30, "`monitoring.metrics.disk`, and 12 for everything else."),
  },
  { text: "The machine that watches the others, with a section `monitoring`; without one it is not made." },
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
        text: "E-mail address. AWS asks it to confirm.",
      }),
      { form: "a list of e-mail addresses", text: "Who is told." },
    ),
  },
  {
    text: "CloudWatch alarms: for machines whose status checks fail, and for directors whose packets AWS holds back because the instance type allows no more. What the cluster itself does is watched by its own monitoring.",
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
      { text: "Region the machines are made in." },
    ),
    exposure: choice(["vpc", "internet"], {
      text: "Who reaches the VIP. vpc: clients in the VPC and what is connected to it. internet: everybody in `aws.clients`, by an Elastic IP; only with forwarding NAT.",
      why: "What a real server sends itself does not pass the internet gateway with the VIP's address, so replies to the internet must go through the director, which puts its own address before the clients'.",
    }).default("vpc"),
    network: networkSchema,
    clients: ranges({ text: "Who may use the service, by address." }),
    admins: ranges({
      text: "Who may log in to the directors over SSH, which are the jump hosts to all other machines: this computer's address among them. All public (the directors get an Elastic IP) or all private (you come by VPN or peering).",
    }),
    realServers: realServersSchema.prefault({}),
    directors: directorsSchema.prefault({}),
    verifier: verifierSchema.optional(),
    monitor: monitorSchema.prefault({}),
    dns: dnsSchema.optional(),
    alarms: alarmsSchema.optional(),
  },
  { text: "What the platform aws makes. docs/aws.md goes through it." },
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
