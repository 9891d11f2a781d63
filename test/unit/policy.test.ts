import assert from "node:assert/strict";
import type { Inputs, Placed } from "../../policy/declared";
import { rules } from "../../policy/rules";
import { stackRules } from "../../policy/stackRules";

const COMMAND = "command:remote:Command";
const INSTANCE = "aws:ec2/instance:Instance";
const INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule";
const KEY = "ssh-ed25519 AAAA";

/** What one rule says of one resource. */
function said(rule: string, type: string, inputs: Inputs, provider?: Inputs): readonly string[] {
  const found = rules.find(({ name }) => name === rule);
  assert.ok(found, `there is no rule ${rule}`);
  assert.ok(found.types.includes(type), `${rule} does not look at ${type}`);
  return found.broken({ type, name: "made-up", inputs, provider });
}

/** As the engine hands over what is only known later: reading it fails. */
function unknownAt(key: string): Inputs {
  return Object.defineProperty({}, key, {
    enumerable: true,
    get: () => {
      throw new Error("not known during preview");
    },
  });
}

function manifest(files: Record<string, { content: string; mode?: string }>, rest = {}) {
  const full = Object.entries(files).map(([path, file]) => [
    path,
    { mode: "0644", owner: "root:root", ...file },
  ]);
  return JSON.stringify({ layer: "made-up", owner: "test/m-1", ...rest, files: Object.fromEntries(full) });
}

/** Each rule: what keeps it, and what breaks it with the words that must be said. */
const cases: Record<
  string,
  readonly (readonly [
    what: string,
    type: string,
    inputs: Inputs,
    complaint?: RegExp | undefined,
    provider?: Inputs,
  ])[]
> = {
  "no-ssh-from-everywhere": [
    ["an administrator's address", INGRESS, ssh("203.0.113.7/32")],
    ["everybody, to another port", INGRESS, { ...ssh("0.0.0.0/0"), fromPort: 7860, toPort: 7860 }],
    [
      "everybody",
      INGRESS,
      ssh("0.0.0.0/0"),
      /^made-up lets SSH in from 0\.0\.0\.0\/0\. List your networks in aws\.admins/,
    ],
    ["half of everybody", INGRESS, ssh("128.0.0.0/1"), /128\.0\.0\.0\/1/],
    ["everybody by IPv6", INGRESS, { ...ssh(""), cidrIpv4: undefined, cidrIpv6: "::/0" }, /::\/0/],
    [
      "a range of ports with SSH's in it",
      INGRESS,
      { ...ssh("0.0.0.0/0"), fromPort: 1, toPort: 1024 },
      /SSH in from/,
    ],
    ["capital letters", INGRESS, { ...ssh("0.0.0.0/0"), ipProtocol: "TCP" }, /SSH in from/],
    ["every protocol", INGRESS, { ipProtocol: "-1", cidrIpv4: "0.0.0.0/0" }, /SSH in from/],
    [
      "a group with rules of its own",
      "aws:ec2/securityGroup:SecurityGroup",
      { ingress: [{ protocol: "tcp", fromPort: 22, toPort: 22, cidrBlocks: ["10.0.0.0/8", "0.0.0.0/0"] }] },
      /from 0\.0\.0\.0\/0/,
    ],
    [
      "what goes out",
      "aws:ec2/securityGroupRule:SecurityGroupRule",
      { type: "egress", protocol: "tcp", fromPort: 22, toPort: 22, cidrBlocks: ["0.0.0.0/0"] },
    ],
    ["a packet filter for administrators", COMMAND, firewall("10.0.0.0/8, 192.168.1.1")],
    [
      "a packet filter for everybody",
      COMMAND,
      firewall("0.0.0.0/0"),
      /List the networks .* in firewall\.admins/,
    ],
    [
      "SSH among the open ports",
      COMMAND,
      firewall("10.0.0.0/8", "\n        tcp dport { 22, 9100 } accept"),
      /opens port 22, the SSH port, to everybody\. Remove it from firewall\.openPorts/,
    ],
  ],
  "metadata-service-v2": [
    ["version 2", INSTANCE, { metadataOptions: { httpTokens: "required", httpPutResponseHopLimit: 1 } }],
    ["nothing said", INSTANCE, {}, /httpTokens of made-up is not set\. Set it to "required"/],
    [
      "version 1 as well",
      INSTANCE,
      { metadataOptions: { httpTokens: "optional", httpPutResponseHopLimit: 1 } },
      /is "optional"/,
    ],
    [
      "for what is forwarded",
      INSTANCE,
      { metadataOptions: { httpTokens: "required", httpPutResponseHopLimit: 2 } },
      /HopLimit of made-up is 2/,
    ],
  ],
  "encrypted-at-rest": [
    ["an encrypted disk", INSTANCE, { rootBlockDevice: { encrypted: true } }],
    [
      "a plain disk",
      INSTANCE,
      { rootBlockDevice: { volumeSize: 8 } },
      /rootBlockDevice\.encrypted of made-up is not set/,
    ],
    [
      "a second disk that is plain",
      INSTANCE,
      { rootBlockDevice: { encrypted: true }, ebsBlockDevices: [{ encrypted: false }] },
      /ebsBlockDevices\[0\]\.encrypted of made-up is false\. Set it to true/,
    ],
    ["an encrypted share", "aws:efs/fileSystem:FileSystem", { encrypted: true }],
    ["a plain share", "aws:efs/fileSystem:FileSystem", {}, /encrypted of made-up is not set/],
    ["a plain volume", "aws:ebs/volume:Volume", { encrypted: false }, /is false/],
  ],
  "host-keys-pinned": [
    ["a key", COMMAND, { connection: { host: "10.0.0.1", hostKey: KEY } }],
    ["a key that is being made", COMMAND, { connection: unknownAt("hostKey") }],
    ["no key", COMMAND, { connection: { host: "10.0.0.1" } }, /^connection\.hostKey of made-up is not set/],
    ["an empty key", COMMAND, { connection: { hostKey: " " } }, /is not set/],
    ["a jump host's key", COMMAND, { connection: { hostKey: KEY, proxy: { hostKey: KEY } } }],
    [
      "a jump host without one",
      COMMAND,
      { connection: { hostKey: KEY, proxy: {} } },
      /^connection\.proxy\.hostKey/,
    ],
    ["a copy", "command:remote:CopyToRemote", { connection: {} }, /is not set/],
    ["this computer", "command:local:Command", {}],
  ],
  "secrets-not-plain": [
    [
      "a secret layer",
      COMMAND,
      { stdin: manifest({ "/etc/cosyvoice/peers.key": { content: "x", mode: "0640" } }, { secret: true }) },
    ],
    [
      "a secret file in a layer that is shown",
      COMMAND,
      { stdin: manifest({ "/etc/cosyvoice/peers.key": { content: "hidden", mode: "0640" } }) },
      /installs \/etc\/cosyvoice\/peers\.key, which holds a secret, in a layer that is shown/,
    ],
    ...["watch/password", "watch/web.yml", "watch/curl", "front-door/asking-key", "receivers/hook"].map(
      (name) =>
        [
          `${name} in a layer that is shown`,
          COMMAND,
          { stdin: manifest({ [`/etc/cosyvoice-lvs/${name}`]: { content: "hidden", mode: "0640" } }) },
          /which holds a secret, in a layer that is shown/,
        ] as const,
    ),
    [
      "a private key where it is not expected",
      COMMAND,
      { stdin: manifest({ "/etc/other": { content: "-----BEGIN EC PRIVATE KEY-----\nhidden" } }) },
      /installs \/etc\/other/,
    ],
    [
      "a secret that everybody may read",
      COMMAND,
      { stdin: manifest({ "/etc/cosyvoice/peers.key": { content: "hidden" } }, { secret: true }) },
      /its mode 0644 lets everybody read it/,
    ],
    [
      "a certificate, which is none",
      COMMAND,
      { stdin: manifest({ "/c.pem": { content: "-----BEGIN CERTIFICATE-----" } }) },
    ],
    [
      "a key in a command",
      COMMAND,
      { create: "echo '-----BEGIN PRIVATE KEY-----'" },
      /^create of made-up contains a key/,
    ],
    [
      "a password in the environment",
      COMMAND,
      { environment: { DB_PASSWORD: "hidden" } },
      /gets DB_PASSWORD/,
    ],
    ["another variable", COMMAND, { environment: { LANG: "C" } }],
    ["a login by password", COMMAND, { connection: { password: "hidden" } }, /logs in with a password/],
    [
      "a password that is not known yet",
      COMMAND,
      { connection: unknownAt("password") },
      /logs in with a password/,
    ],
    ["what is not known yet", COMMAND, unknownAt("stdin")],
    ["a connection that is not known yet", COMMAND, unknownAt("connection")],
  ],
  tagged: [
    [
      "both tags",
      INSTANCE,
      { tags: { Name: "a" } },
      undefined,
      { defaultTags: '{"tags":{"cosyvoice-lvs:stack":"s"}}' },
    ],
    ["its own tag", INSTANCE, { tags: { Name: "a", "cosyvoice-lvs:stack": "s" } }],
    ["no stack", INSTANCE, { tags: { Name: "a" } }, /no tag cosyvoice-lvs:stack/, {}],
    ["no name", "aws:efs/fileSystem:FileSystem", { tags: { "cosyvoice-lvs:stack": "s" } }, /no tag Name/],
  ],
};

function ssh(cidrIpv4: string) {
  return { ipProtocol: "tcp", fromPort: 22, toPort: 22, cidrIpv4 };
}

function firewall(admins: string, more = "") {
  const content = `set admins {\n        elements = { ${admins} }\n    }\n        policy drop;\n        ip saddr @admins tcp dport 22 accept${more}\n`;
  return { connection: { port: 22 }, stdin: manifest({ "/etc/cosyvoice-lvs/firewall.nft": { content } }) };
}

describe("the policy pack", () => {
  it("has a passing and a failing example of every rule", () => {
    assert.deepEqual(Object.keys(cases).sort(), rules.map(({ name }) => name).sort());
    for (const [name, examples] of Object.entries(cases)) {
      const kinds = new Set(examples.map(([, , , complaint]) => complaint === undefined));
      assert.equal(kinds.size, 2, name);
    }
  });

  for (const [rule, examples] of Object.entries(cases)) {
    describe(rule, () => {
      for (const [what, type, inputs, complaint, provider] of examples) {
        it(`${complaint === undefined ? "lets pass" : "refuses"} ${what}`, () => {
          const messages = said(rule, type, inputs, provider);
          if (complaint === undefined) return assert.deepEqual(messages, []);
          assert.match(messages.join("\n"), complaint);
          assert.doesNotMatch(messages.join("\n"), /hidden/);
        });
      }
    });
  }
});

describe("no-public-real-servers", () => {
  const placed = (
    type: string,
    name: string,
    inputs: Inputs = {},
    leadsTo: readonly string[] = [],
  ): Placed => ({
    type,
    name,
    urn: `urn:pulumi:test::cosyvoice-lvs::${type}::${name}`,
    inputs,
    leadsTo: leadsTo.map((one) => `urn:pulumi:test::cosyvoice-lvs::aws:ec2/made:Up::${one}`),
  });
  const realServer = placed("cosyvoice-lvs:index:RealServer", "cosyvoice-rs-1");
  const layer = (name: string, host: string, inputs: Inputs = {}) =>
    placed(COMMAND, `cosyvoice-rs-1-${name}`, {
      ...inputs,
      connection: { host },
      delete: `/usr/local/lib/cosyvoice-lvs/apply remove ${name} --owner test/rs-1`,
    });
  const complaints = (...resources: Placed[]) =>
    (stackRules[0]?.broken([realServer, ...resources]) ?? []).map(
      ({ urn, message }) => `${urn.split("::").at(-1)}: ${message}`,
    );

  it("lets directors have an Elastic IP, and refuses that of a real server", () => {
    assert.deepEqual(
      complaints(
        placed("aws:ec2/eip:Eip", "nat"),
        placed("aws:ec2/eip:Eip", "e", {}, ["cosyvoice-director-1-interface"]),
      ),
      [],
    );
    assert.deepEqual(complaints(placed("aws:ec2/eip:Eip", "e", {}, ["cosyvoice-rs-1-interface"])), [
      "e: e is an Elastic IP of the real server cosyvoice-rs-1. Remove it.",
    ]);
  });

  it("refuses addresses that AWS hands out by itself", () => {
    assert.deepEqual(
      complaints(
        placed(INSTANCE, "i", {}),
        placed("aws:ec2/subnet:Subnet", "s", { mapPublicIpOnLaunch: false }),
      ),
      [],
    );
    assert.match(
      complaints(placed(INSTANCE, "i", { associatePublicIpAddress: true }))[0] ?? "",
      /^i: i gets a public address/,
    );
    assert.match(
      complaints(placed("aws:ec2/subnet:Subnet", "s", { mapPublicIpOnLaunch: true }))[0] ?? "",
      /^s: /,
    );
  });

  it("wants a packet filter where a real server in a rack has a public address", () => {
    assert.deepEqual(complaints(layer("real-server", "192.168.1.101")), []);
    assert.match(
      complaints(layer("real-server", "203.0.113.5"))[0] ?? "",
      /is at 203\.0\.113\.5, a public address, without a packet filter/,
    );
    assert.deepEqual(
      complaints(
        layer("real-server", "203.0.113.5"),
        layer("firewall", "203.0.113.5", firewall("10.0.0.0/8")),
      ),
      [],
    );
  });
});
