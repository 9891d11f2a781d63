import assert from "node:assert/strict";
import fc from "fast-check";
import { contains, parseCidr, parseIPv4 } from "../../config/addresses";
import { placedMachines } from "../../config/awsLayout";
import { parseConfig } from "../../config/load";
import { problemsOf } from "../unit/config-fixture";
import { awsSection, parsedAws, rawAws, rawGivenVpc, rawInternet, rawTwoZones } from "./fixture";

type Raw = Record<string, unknown>;

const zoneA = { name: "eu-central-1a", cidr: "10.20.0.0/20" };
const network = (values: Raw) => ({ network: { cidr: "10.20.0.0/16", zones: [zoneA], ...values } });
const given = (values: Raw) => {
  const raw = rawGivenVpc();
  return { ...raw, aws: { ...raw.aws, network: { ...raw.aws.network, ...values } } };
};

/** One mistake; what is said of it, and what is to be done. */
const badInputs: readonly (readonly [
  mistake: string,
  raw: Raw,
  path: string,
  message: RegExp,
  fix: RegExp,
])[] = [
  // the VIP
  [
    "a VIP in the VPC's range",
    { ...rawAws(), vip: "10.20.9.9" },
    "vip",
    /^lies in the VPC's range, 10\.20\.0\.0\/16/,
    /10\.255\.0\.100/,
  ],
  [
    "a VIP among the verifier's addresses",
    { ...rawAws(), vip: "10.255.1.9" },
    "aws.verifier.sources",
    /contains the VIP/,
    /without it/,
  ],
  [
    "an internet VIP that is not in the public subnet",
    { ...rawInternet(), vip: "10.255.0.100" },
    "vip",
    /outside the public subnet, 10\.20\.255\.0\/24/,
    /10\.20\.255\.15/,
  ],
  [
    "an internet VIP that is a director's address",
    { ...rawInternet(), vip: "10.20.255.11" },
    "vip",
    /address of director-2/,
    /10\.20\.255\.15/,
  ],
  [
    "an internet VIP that AWS keeps",
    { ...rawInternet(), vip: "10.20.255.3" },
    "vip",
    /AWS reserves/,
    /10\.20\.255\.15/,
  ],
  // exposure and forwarding
  [
    "internet with DR",
    { ...rawInternet(), loadBalancer: { forwarding: "DR" } },
    "loadBalancer.forwarding",
    /internet gateway drops the replies/,
    /NAT/,
  ],
  [
    "internet with TUN",
    { ...rawInternet(), loadBalancer: { forwarding: "TUN" } },
    "loadBalancer.forwarding",
    /is TUN/,
    /NAT/,
  ],
  [
    "two zones with DR",
    { ...rawTwoZones(), loadBalancer: { forwarding: "DR" } },
    "aws.network.zones",
    /within one subnet only/,
    /TUN/,
  ],
  [
    "two zones with NAT",
    { ...rawTwoZones(), loadBalancer: { forwarding: "NAT" } },
    "aws.network.zones",
    /only TUN/,
    /one zone/,
  ],
  ["multicast VRRP", rawAws({}, { vrrp: { unicast: false } }), "vrrp.unicast", /no multicast/, /remove/],
  [
    "connection sync",
    rawAws({}, { loadBalancer: { connectionSync: true } }),
    "loadBalancer.connectionSync",
    /needs multicast/,
    /leave it out/,
  ],
  [
    "a scheduler without affinity",
    rawAws({}, { loadBalancer: { scheduler: "rr" } }),
    "loadBalancer.scheduler",
    /a session lives on one/,
    /mh/,
  ],
  // the network
  [
    "a zone outside the VPC",
    rawAws(network({ zones: [{ ...zoneA, cidr: "10.21.0.0/20" }] })),
    "aws.network.zones[0].cidr",
    /outside the VPC's range, 10\.20\.0\.0\/16/,
    /part of that range/,
  ],
  [
    "overlapping zones",
    { ...rawTwoZones(network({ zones: [zoneA, { name: "eu-central-1b", cidr: "10.20.8.0/21" }] })) },
    "aws.network.zones[1].cidr",
    /overlaps with aws\.network\.zones\[0\], 10\.20\.0\.0\/20/,
    /range of its own/,
  ],
  [
    "a zone over the public subnet",
    rawAws(network({ publicCidr: "10.20.1.0/24" })),
    "aws.network.zones[0].cidr",
    /overlaps with the public subnet, 10\.20\.1\.0\/24/,
    /range of its own/,
  ],
  [
    "a public subnet outside the VPC",
    rawAws(network({ publicCidr: "10.21.1.0/24" })),
    "aws.network.publicCidr",
    /outside the VPC/,
    /part of that range/,
  ],
  [
    "a range that starts in its middle",
    rawAws({ clients: ["10.20.0.1/16"] }),
    "aws.clients[0]",
    /^is not a range/,
    /^write a range/,
  ],
  [
    "a VPC that AWS would refuse",
    rawAws({ network: { cidr: "10.16.0.0/12", zones: [zoneA] } }),
    "aws.network.cidr",
    /is a \/12/,
    /10\.20\.0\.0\/16/,
  ],
  [
    "a zone of another region",
    rawAws(network({ zones: [{ ...zoneA, name: "eu-west-1a" }] })),
    "aws.network.zones[0].name",
    /not a zone of eu-central-1/,
    /eu-central-1a/,
  ],
  [
    "one zone twice",
    rawTwoZones(network({ zones: [zoneA, { ...zoneA, cidr: "10.20.16.0/20" }] })),
    "aws.network.zones[1].name",
    /listed already/,
    /different/,
  ],
  ["no zone", rawAws(network({ zones: [] })), "aws.network.zones", /0 entries/, /one zone/],
  [
    "sources in the VPC",
    rawAws({ verifier: { sources: "10.20.64.0/24" } }),
    "aws.verifier.sources",
    /overlaps with the VPC/,
    /10\.255\.1\.0\/24/,
  ],
  [
    "too many sources",
    rawAws({ verifier: { sources: "10.30.0.0/16" } }),
    "aws.verifier.sources",
    /more than 256/,
    /\/24/,
  ],
  // a given VPC
  [
    "a given VPC without a subnet",
    given({ zones: [zoneA] }),
    "aws.network.zones[0].subnetId",
    /is missing/,
    /subnet/,
  ],
  [
    "a subnet without its VPC",
    rawAws(network({ zones: [{ ...zoneA, subnetId: "subnet-0123456789abcdef0" }] })),
    "aws.network.zones[0].subnetId",
    /vpcId is not/,
    /remove/,
  ],
  [
    "a given VPC on the internet",
    { ...rawGivenVpc({ exposure: "internet" }), loadBalancer: { forwarding: "NAT" } },
    "aws.network.vpcId",
    /only in a VPC that the program creates/,
    /vpc/,
  ],
  [
    "a given VPC nobody has a route from",
    given({ clientRouteTables: [] }),
    "aws.network.clientRouteTables",
    /no client would find the VIP/,
    /route tables/,
  ],
  [
    "public administrators in a given VPC",
    rawGivenVpc({ admins: ["203.0.113.7/32"] }),
    "aws.admins",
    /no route to the internet/,
    /VPN/,
  ],
  [
    "a verifier in a given VPC",
    rawGivenVpc({ verifier: {} }),
    "aws.verifier",
    /does not create in an existing VPC/,
    /remove/,
  ],
  // who may come
  [
    "SSH for everybody",
    rawAws({ admins: ["0.0.0.0/0"] }),
    "aws.admins[0]",
    /opens SSH to everybody/,
    /203\.0\.113\.7\/32/,
  ],
  [
    "SSH for half the internet",
    rawAws({ admins: ["128.0.0.0/1"] }),
    "aws.admins[0]",
    /large part/,
    /203\.0\.113\.7\/32/,
  ],
  ["SSH for nobody", rawAws({ admins: [] }), "aws.admins", /empty/, /its address/],
  [
    "administrators from two sides",
    rawAws({ admins: ["203.0.113.7/32", "10.0.0.0/8"] }),
    "aws.admins",
    /public and private/,
    /only/,
  ],
  ["a service for nobody", rawAws({ clients: [] }), "aws.clients", /empty/, /list/],
  [
    "everybody in a VPC",
    rawAws({ clients: ["0.0.0.0/0"] }),
    "aws.clients[0]",
    /is everybody/,
    /10\.20\.0\.0\/16/,
  ],
  // machines
  [
    "no real server",
    rawAws({ realServers: { count: 0 } }),
    "aws.realServers.count",
    /^is not a whole number from 1 to 1000/,
    /^write/,
  ],
  [
    "more real servers than addresses",
    rawAws({
      realServers: { count: 300 },
      ...network({ zones: [{ ...zoneA, cidr: "10.20.0.0/24" }] }),
      verifier: undefined,
    }),
    "aws.realServers.count",
    /room for: 223/,
    /\/20/,
  ],
  [
    "more real servers than can be heard",
    rawAws({ realServers: { count: 26 } }),
    "aws.verifier",
    /may not reach each of 26/,
    /at most 25/,
  ],
  [
    "an ARM processor",
    rawAws({ directors: { instanceType: "c7gn.large" } }),
    "aws.directors.instanceType",
    /ARM/,
    /c6i\.large/,
  ],
  [
    "the GPU engine without a GPU",
    rawAws({ realServers: { instanceType: "c6i.large" } }, { service: { engine: "cosyvoice" } }),
    "aws.realServers.instanceType",
    /no NVIDIA GPU/,
    /g5\.xlarge/,
  ],
  [
    "an instance type that is none",
    rawAws({ realServers: { instanceType: "g5" } }),
    "aws.realServers.instanceType",
    /^is not an EC2 instance type/,
    /^write/,
  ],
  [
    "an image that is none",
    rawAws({ realServers: { image: "ubuntu" } }),
    "aws.realServers.image",
    /^is not an image/,
    /^write/,
  ],
  [
    "more out of the pool than there are",
    rawAws({}, { service: { maxUnavailable: 2 } }),
    "service.maxUnavailable",
    /all 2 real servers/,
    /at most 1/,
  ],
  [
    "a quorum that cannot be reached",
    rawAws({}, { loadBalancer: { quorum: 3 } }),
    "loadBalancer.quorum",
    /add up to 2/,
    /1 to 2/,
  ],
  [
    "a label that the interface is too long for",
    rawAws({}, { interface: "enp39s0", vrrp: { label: "voices-vip" } }),
    "vrrp.label",
    /15 characters/,
    /at most/,
  ],
  // the machine that watches
  [
    "a name for the machine that watches",
    rawAws({}, { monitoring: { name: "watcher" } }),
    "monitoring.name",
    /creates its machines itself/,
    /aws\.monitor/,
  ],
  [
    "public networks that could open Prometheus",
    rawAws({}, { monitoring: { adminNetworks: ["10.0.0.0/8", "203.0.113.7/32"] } }),
    "monitoring.adminNetworks[1]",
    /not a range of private addresses/,
    /scripts\/cluster ssh monitor/,
  ],
  [
    "measurements that its disk has no room for",
    rawAws({}, { monitoring: { metrics: { disk: 30 } } }),
    "aws.monitor.disk",
    /^is 30 GiB, but metrics may take 30 GB/,
    /^write 40 or more/,
  ],
  [
    "measurements that do not fit with so many real servers",
    rawAws({ realServers: { count: 25 } }, { monitoring: { metrics: { retention: 60 } } }),
    "monitoring.metrics.retention",
    /takes about \d+ GB with 25 real servers/,
    /metrics\.disk/,
  ],
  [
    "a receiver at a port that is closed",
    rawAws(
      {},
      {
        monitoring: { receivers: [{ name: "hook", kind: "webhook" }] },
        receiverSecrets: { hook: "https://example.org:8443/made-up1" },
      },
    ),
    "receiverSecrets.hook",
    /uses port 8443/,
    /opens its port/,
  ],
  [
    "an ARM processor that watches",
    rawAws({ monitor: { instanceType: "t4g.small" } }, { monitoring: {} }),
    "aws.monitor.instanceType",
    /ARM/,
    /without the g/,
  ],
  // the other platform's keys
  [
    "a jump host",
    rawAws({}, { ssh: { jumpHost: { address: "192.0.2.1" } } }),
    "ssh.jumpHost",
    /creates all keys/,
    /remove/,
  ],
  [
    "a private key",
    rawAws({}, { ssh: { privateKeyFile: "~/.ssh/id" } }),
    "ssh.privateKeyFile",
    /creates all keys/,
    /remove/,
  ],
  [
    "a private key as a secret",
    rawAws({}, { sshPrivateKey: true }),
    "sshPrivateKey",
    /creates the login key/,
    /config rm/,
  ],
  [
    "a client machine",
    rawAws({}, { verification: { client: { name: "c", address: "192.0.2.1" } } }),
    "verification.client",
    /creates its machines itself/,
    /aws\.verifier/,
  ],
  [
    "source addresses",
    rawAws({}, { verification: { sourceAddresses: ["192.0.2.1"] } }),
    "verification.sourceAddresses",
    /come from/,
    /remove/,
  ],
];

describe("bad configurations of aws", () => {
  for (const [mistake, raw, path, message, fix] of badInputs) {
    it(`refuses ${mistake}, and says nothing else`, () => {
      const problems = problemsOf(raw);
      assert.deepEqual(
        problems.map((problem) => problem.path),
        [path],
      );
      assert.match(problems[0]?.message ?? "", message);
      assert.match(problems[0]?.fix ?? "", fix);
    });
  }

  it("names all mistakes at once", () => {
    const raw = {
      ...rawAws({
        exposure: "internet",
        admins: ["0.0.0.0/0"],
        realServers: { count: 0 },
        network: { cidr: "10.20.0.0/16", zones: [{ name: "eu-west-1a", cidr: "10.20.255.0/24" }] },
      }),
      loadBalancer: { forwarding: "DR" },
    };
    assert.deepEqual(
      problemsOf(raw).map(({ path }) => path),
      [
        "vip",
        "loadBalancer.forwarding",
        "aws.realServers.count",
        "aws.network.zones[0].name",
        "aws.network.zones[0].cidr",
        "aws.admins[0]",
      ],
    );
  });

  it("never throws for a section with one value replaced by anything", () => {
    const section = awsSection();
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.keys(section), "exposure", "dns", "alarms", "monitor"),
        fc.jsonValue(),
        (key, value) => {
          const result = parseConfig(rawAws({ [key]: value }));
          assert.ok(result.ok || result.problems.length > 0);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("where machines stand", () => {
  it("knows every machine and its address before there is one", () => {
    const { directors, realServers, verification, storage, aws } = parsedAws();
    assert.deepEqual(
      [...directors, ...realServers, verification.client].map((machine) => [
        machine?.name,
        machine?.address,
        machine?.ssh.user,
      ]),
      [
        ["director-1", "10.20.0.10", "deploy"],
        ["director-2", "10.20.0.11", "deploy"],
        ["rs-1", "10.20.0.32", "deploy"],
        ["rs-2", "10.20.0.33", "deploy"],
        ["client", "10.20.255.20", "deploy"],
      ],
    );
    assert.deepEqual(
      directors.map((director) => director.interface),
      ["ens5", "ens5"],
    );
    assert.deepEqual(storage, { kind: "efs" });
    assert.deepEqual(
      [verification.sourceAddresses.length, verification.sourceAddresses[0]],
      [254, "10.255.1.1"],
    );
    assert.deepEqual(
      [aws.access, aws.network.publicCidr, aws.network.flowLogs],
      ["internet", "10.20.255.0/24", true],
    );
  });

  it("puts the directors into the public subnet for the internet, and takes turns between two zones", () => {
    assert.deepEqual(
      parsedAws(rawInternet()).directors.map(({ address }) => address),
      ["10.20.255.10", "10.20.255.11"],
    );
    const { directors, realServers } = parsedAws(rawTwoZones({ realServers: { count: 3 } }));
    assert.deepEqual(
      [...directors, ...realServers].map(({ address }) => address),
      ["10.20.0.10", "10.20.16.11", "10.20.0.32", "10.20.16.32", "10.20.0.33"],
    );
  });

  it("comes by private ways when administrators do", () => {
    assert.equal(parsedAws(rawGivenVpc()).aws.access, "private");
    assert.equal(parsedAws(rawGivenVpc()).aws.network.publicCidr, undefined);
  });

  it("moves nobody when another comes, and never gives one address twice", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.boolean(), (count, twoZones) => {
        const raw = (realServers: number) => {
          const section = { realServers: { count: realServers }, verifier: undefined };
          return parsedAws(twoZones ? rawTwoZones(section) : rawAws(section)).aws;
        };
        const before = placedMachines(raw(count));
        const after = placedMachines(raw(count + 1));
        assert.deepEqual(
          after.filter(({ name }) => name !== `rs-${count + 1}`),
          before,
        );
        assert.equal(new Set(after.map(({ address }) => address)).size, after.length);
        for (const { address, place } of after) {
          const range = parseCidr(raw(count).network.zones[Number(place)]?.cidr ?? "");
          assert.ok(range && contains(range, parseIPv4(address) ?? 0), address);
        }
      }),
      { numRuns: 10 },
    );
  });
});

describe("ranges of addresses", () => {
  it("reads what starts at its beginning, and nothing else", () => {
    assert.deepEqual(parseCidr("10.20.0.0/16"), { first: 169_082_880, last: 169_148_415, prefix: 16 });
    assert.deepEqual(parseCidr("0.0.0.0/0"), { first: 0, last: 2 ** 32 - 1, prefix: 0 });
    for (const text of [
      "10.20.0.1/16",
      "10.20.0.0",
      "10.20.0.0/33",
      "10.20.0.0/016",
      "10.20.0.0/16/1",
      "/16",
      "",
    ]) {
      assert.equal(parseCidr(text), undefined, text);
    }
  });
});
