import assert from "node:assert/strict";
import fc from "fast-check";
import { formatProblems, type Problem, parseConfig, rawFromStack } from "../../config/load";
import { awsSection, rawAws } from "../aws/fixture";
import {
  classicArticle,
  cluster,
  madeUpHostKey,
  madeUpPeerKey,
  problemsOf,
  type RawOverrides,
  rawCluster,
  stackFile,
} from "./config-fixture";

/** One mistake, and what must be said of it. The value found is asserted too; the fix must at least contain a phrase. */
interface BadInput {
  readonly mistake: string;
  readonly raw: RawOverrides;
  readonly path: string;
  readonly value: unknown;
  readonly message: RegExp;
  readonly fix: RegExp;
}

function withDirector(index: number, values: RawOverrides): RawOverrides {
  const raw = rawCluster();
  Object.assign(raw.directors[index] ?? {}, values);
  return raw;
}

function withRealServer(index: number, values: RawOverrides): RawOverrides {
  const raw = rawCluster();
  Object.assign(raw.realServers[index] ?? {}, values);
  return raw;
}

function plus(values: RawOverrides): RawOverrides {
  return { ...rawCluster(), ...values };
}

function without(...keys: readonly string[]): RawOverrides {
  return Object.fromEntries(Object.entries(rawCluster()).filter(([key]) => !keys.includes(key)));
}

const noSecrets = {
  vrrpPassword: false,
  peerKey: false,
  tlsCertificate: false,
  tlsKey: false,
  apiKeys: false,
  httpUsers: false,
  receiverSecrets: false,
  monitoringPassword: false,
  sshPrivateKey: false,
};

const client = { name: "client", address: "192.168.1.50", hostKey: madeUpHostKey("client") };

const badInputs: readonly BadInput[] = [
  // machines
  {
    mistake: "two machines with one address",
    raw: withRealServer(1, { address: "192.168.1.101" }),
    path: "realServers[1].address",
    value: "192.168.1.101",
    message: /^is the address of rs-1 \(realServers\[0\]\) as well$/,
    fix: /its own address/,
  },
  {
    mistake: "a director that is a real server too",
    raw: withRealServer(0, { address: "192.168.1.12" }),
    path: "realServers[0].address",
    value: "192.168.1.12",
    message: /^is the address of director-2/,
    fix: /one machine has one role/,
  },
  {
    mistake: "two machines with one name",
    raw: withRealServer(2, { name: "director-1" }),
    path: "realServers[2].name",
    value: "director-1",
    message: /^is the name of director-1 \(directors\[0\]\) as well$/,
    fix: /name of its own/,
  },
  {
    mistake: "a VIP that is a machine's address",
    raw: plus({ vip: "192.168.1.102" }),
    path: "realServers[1].address",
    value: "192.168.1.102",
    message: /^is the VIP/,
    fix: /own address/,
  },
  {
    mistake: "a storage machine with the VIP",
    raw: plus({ storage: { ...rawCluster().storage, address: "192.168.1.100" } }),
    path: "storage.address",
    value: "192.168.1.100",
    message: /^is the VIP/,
    fix: /own address/,
  },
  {
    mistake: "agent weights with a scheduler that hashes",
    raw: plus({ loadBalancer: { agentWeights: true } }),
    path: "loadBalancer.agentWeights",
    value: true,
    message: /scheduler mh/,
    fix: /wlc or wrr/,
  },
  {
    mistake: "agent weights without the poller",
    raw: plus({
      loadBalancer: { scheduler: "wlc", persistence: 300, agentWeights: true, check: { kind: "tcp" } },
    }),
    path: "loadBalancer.agentWeights",
    value: true,
    message: /check\.kind is tcp/,
    fix: /check\.kind: poller/,
  },
  {
    mistake: "agent weights with a quorum",
    raw: plus({ loadBalancer: { scheduler: "wlc", persistence: 300, agentWeights: true, quorum: 2 } }),
    path: "loadBalancer.agentWeights",
    value: true,
    message: /quorum: 2/,
    fix: /leave out quorum/,
  },
  {
    mistake: "a deployment that may take everything out",
    raw: plus({ service: { maxUnavailable: 99 } }),
    path: "service.maxUnavailable",
    value: 99,
    message: /all \d+ real servers out of the pool/,
    fix: /write at most/,
  },
  {
    mistake: "a VIP that is no address",
    raw: plus({ vip: "fe80::1" }),
    path: "vip",
    value: "fe80::1",
    message: /^is not an IPv4 address/,
    fix: /192\.168/,
  },
  {
    mistake: "a VIP with a prefix length",
    raw: plus({ vip: "192.168.1.100/32" }),
    path: "vip",
    value: "192.168.1.100/32",
    message: /^is not an IPv4 address/,
    fix: /^write an IPv4 address/,
  },
  {
    mistake: "a multicast VIP",
    raw: plus({ vip: "224.0.0.18" }),
    path: "vip",
    value: "224.0.0.18",
    message: /^is not an IPv4 address/,
    fix: /^write an IPv4 address/,
  },
  {
    mistake: "an octet with a leading zero",
    raw: withDirector(0, { address: "192.168.1.011" }),
    path: "directors[0].address",
    value: "192.168.1.011",
    message: /^is not an IPv4 address/,
    fix: /^write an IPv4 address/,
  },
  {
    mistake: "no VIP",
    raw: without("vip"),
    path: "vip",
    value: undefined,
    message: /^is missing$/,
    fix: /^write an IPv4/,
  },
  {
    mistake: "no real server",
    raw: plus({ realServers: [] }),
    path: "realServers",
    value: [],
    message: /^is empty/,
    fix: /at least one real server/,
  },
  {
    mistake: "no list of real servers",
    raw: without("realServers"),
    path: "realServers",
    value: undefined,
    message: /^is missing$/,
    fix: /list the real servers/,
  },
  {
    mistake: "one director",
    raw: plus({ directors: rawCluster().directors.slice(0, 1) }),
    path: "directors",
    value: rawCluster().directors.slice(0, 1),
    message: /^has 1 entry/,
    fix: /exactly two/,
  },
  {
    mistake: "three directors",
    raw: plus({
      directors: [
        ...rawCluster().directors,
        { name: "director-3", address: "192.168.1.13", hostKey: madeUpHostKey("d3") },
      ],
    }),
    path: "directors",
    value: [
      ...rawCluster().directors,
      { name: "director-3", address: "192.168.1.13", hostKey: madeUpHostKey("d3") },
    ],
    message: /^has 3 entries/,
    fix: /exactly two/,
  },
  {
    mistake: "directors as a section",
    raw: plus({ directors: { name: "director-1" } }),
    path: "directors",
    value: { name: "director-1" },
    message: /^is not a list of exactly 2 directors$/,
    fix: /^write a list/,
  },
  {
    mistake: "a real server that is only an address",
    raw: plus({ realServers: ["192.168.1.101"] }),
    path: "realServers[0]",
    value: "192.168.1.101",
    message: /^is not a section/,
    fix: /name, address/,
  },
  {
    mistake: "a name that is no DNS label",
    raw: withRealServer(0, { name: "RS_1" }),
    path: "realServers[0].name",
    value: "RS_1",
    message: /^is not a DNS label/,
    fix: /lower-case/,
  },
  {
    mistake: "a name of 64 characters",
    raw: withRealServer(0, { name: "x".repeat(64) }),
    path: "realServers[0].name",
    value: "x".repeat(64),
    message: /^is not a DNS label/,
    fix: /at most 63/,
  },
  {
    mistake: "a weight of 0",
    raw: withRealServer(0, { weight: 0 }),
    path: "realServers[0].weight",
    value: 0,
    message: /^is not a whole number from 1 to 1000$/,
    fix: /^write a whole number/,
  },
  {
    mistake: "an interface name with a blank",
    raw: plus({ interface: "eth 0" }),
    path: "interface",
    value: "eth 0",
    message: /^is not the name of a network interface/,
    fix: /eth0/,
  },
  // host identity
  {
    mistake: "a machine whose identity nobody pins",
    raw: withDirector(0, { hostKey: undefined }),
    path: "directors[0].hostKey",
    value: undefined,
    message: /^is missing: nothing would tell director-1 \(directors\[0\]\) from an impostor$/,
    fix: /ssh_host_ed25519_key\.pub.*knownHostsFile/,
  },
  {
    mistake: "a fingerprint instead of a key",
    raw: withDirector(0, { hostKey: "SHA256:made-up" }),
    path: "directors[0].hostKey",
    value: "SHA256:made-up",
    message: /^is not a public key/,
    fix: /ssh-ed25519/,
  },
  {
    mistake: "an RSA host key, which the provider could only check with SHA-1",
    raw: withDirector(0, { hostKey: `ssh-rsa ${"A".repeat(372)}` }),
    path: "directors[0].hostKey",
    value: `ssh-rsa ${"A".repeat(372)}`,
    message: /^is not a public key/,
    fix: /ssh-ed25519/,
  },
  {
    mistake: "a jump host whose identity nobody pins",
    raw: plus({ ssh: { jumpHost: { address: "10.0.0.1" } } }),
    path: "ssh.jumpHost.hostKey",
    value: undefined,
    message: /^is missing/,
    fix: /knownHostsFile/,
  },
  {
    mistake: "a jump host that is a machine of the cluster",
    raw: plus({ ssh: { jumpHost: { address: "192.168.1.11", hostKey: madeUpHostKey("jump") } } }),
    path: "ssh.jumpHost.address",
    value: "192.168.1.11",
    message: /^is director-1/,
    fix: /not part of the cluster/,
  },
  {
    mistake: "a jump host that is the VIP",
    raw: plus({ ssh: { jumpHost: { address: "192.168.1.100", hostKey: madeUpHostKey("jump") } } }),
    path: "ssh.jumpHost.address",
    value: "192.168.1.100",
    message: /^is the VIP/,
    fix: /not part of the cluster/,
  },
  {
    mistake: "a login key twice",
    raw: plus({ sshPrivateKey: true, ssh: { privateKeyFile: "~/.ssh/id_ed25519" } }),
    path: "ssh.privateKeyFile",
    value: "~/.ssh/id_ed25519",
    message: /sshPrivateKey is set too/,
    fix: /keep only one/,
  },
  {
    mistake: "a connect timeout above what is promised",
    raw: plus({ ssh: { connectTimeout: 31 } }),
    path: "ssh.connectTimeout",
    value: 31,
    message: /from 1 to 30$/,
    fix: /^write a number of seconds/,
  },
  // ports
  {
    mistake: "the service on SSH's port",
    raw: plus({ port: 22 }),
    path: "port",
    value: 22,
    message: /^is the port of SSH on director-1/,
    fix: /7860/,
  },
  {
    mistake: "the service on one machine's own SSH port",
    raw: withRealServer(2, { ssh: { port: 7860 } }),
    path: "port",
    value: undefined,
    message: /^is the port of SSH on rs-3/,
    fix: /port of its own/,
  },
  {
    mistake: "the service on NFS's port",
    raw: plus({ port: 2049 }),
    path: "port",
    value: 2049,
    message: /^is the port of NFS$/,
    fix: /7860/,
  },
  {
    mistake: "SSH on NFS's port",
    raw: plus({ storage: { ...rawCluster().storage, ssh: { port: 2049 } } }),
    path: "storage.ssh.port",
    value: 2049,
    message: /^is the port of NFS/,
    fix: /another port/,
  },
  {
    mistake: "port 0",
    raw: plus({ port: 0 }),
    path: "port",
    value: 0,
    message: /from 1 to 65535$/,
    fix: /^write a whole/,
  },
  {
    mistake: "a port in quotes",
    raw: plus({ port: "7860" }),
    path: "port",
    value: "7860",
    message: /^is not a whole number/,
    fix: /^write a whole number/,
  },
  // VRRP
  {
    mistake: "vrid 0",
    raw: plus({ vrrp: { virtualRouterId: 0 } }),
    path: "vrrp.virtualRouterId",
    value: 0,
    message: /^is not a whole number from 1 to 255$/,
    fix: /1 to 255/,
  },
  {
    mistake: "vrid 256",
    raw: plus({ vrrp: { virtualRouterId: 256 } }),
    path: "vrrp.virtualRouterId",
    value: 256,
    message: /^is not a whole number from 1 to 255$/,
    fix: /1 to 255/,
  },
  {
    mistake: "equal priorities",
    raw: {
      ...rawCluster(),
      directors: rawCluster().directors.map((director) => ({ ...director, priority: 100 })),
    },
    path: "directors[1].priority",
    value: 100,
    message: /^comes to 100, the same as the other director's$/,
    fix: /100 and 90/,
  },
  {
    mistake: "a priority that equals the other's default",
    raw: withDirector(0, { priority: 90 }),
    path: "directors[1].priority",
    value: undefined,
    message: /^comes to 90/,
    fix: /different priorities/,
  },
  {
    mistake: "priority 255",
    raw: withDirector(0, { priority: 255 }),
    path: "directors[0].priority",
    value: 255,
    message: /from 1 to 254$/,
    fix: /^write a whole/,
  },
  {
    mistake: "a password in version 3",
    raw: plus({ vrrpPassword: "made-up1", vrrp: { authentication: "PASS" } }),
    path: "vrrp.authentication",
    value: "PASS",
    message: /version 3 does not have/,
    fix: /version to 2/,
  },
  {
    mistake: "PASS without a password",
    raw: plus({ vrrp: { version: 2, advertInterval: 1, authentication: "PASS" } }),
    path: "vrrpPassword",
    value: undefined,
    message: /^is not set/,
    fix: /pulumi config set --secret vrrpPassword/,
  },
  {
    mistake: "a password for nothing",
    raw: plus({ vrrpPassword: true }),
    path: "vrrpPassword",
    value: "(a secret)",
    message: /authentication is none$/,
    fix: /pulumi config rm/,
  },
  {
    mistake: "a password of 9 characters",
    raw: plus({ ...classicArticle, vrrpPassword: "made-up-9" }),
    path: "vrrpPassword",
    value: "(a secret)",
    message: /^has 9 characters/,
    fix: /1 to 8/,
  },
  {
    mistake: "a password that keepalived would read as a comment",
    raw: plus({ ...classicArticle, vrrpPassword: "made#up" }),
    path: "vrrpPassword",
    value: "(a secret)",
    message: /a special meaning in keepalived\.conf$/,
    fix: /letters, digits/,
  },
  {
    mistake: "fast adverts in version 2",
    raw: plus({ vrrp: { version: 2, advertInterval: 0.5 } }),
    path: "vrrp.advertInterval",
    value: 0.5,
    message: /whole second/,
    fix: /write 1, or use version 3/,
  },
  {
    mistake: "the default adverts in version 2",
    raw: plus({ vrrp: { version: 2 } }),
    path: "vrrp.advertInterval",
    value: undefined,
    message: /whole second/,
    fix: /write 1/,
  },
  {
    mistake: "slow adverts in version 3",
    raw: plus({ vrrp: { advertInterval: 41 } }),
    path: "vrrp.advertInterval",
    value: 41,
    message: /more than VRRP version 3 allows/,
    fix: /40 or less/,
  },
  {
    mistake: "adverts finer than the wire can say",
    raw: plus({ vrrp: { advertInterval: 0.125 } }),
    path: "vrrp.advertInterval",
    value: 0.125,
    message: /in hundredths$/,
    fix: /hundredths/,
  },
  {
    mistake: "version 1",
    raw: plus({ vrrp: { version: 1 } }),
    path: "vrrp.version",
    value: 1,
    message: /^is not 2 or 3$/,
    fix: /^write 2 or 3$/,
  },
  {
    mistake: "a label longer than the kernel's",
    raw: plus({ interface: "enp175s0f1np1", vrrp: { label: "voice" } }),
    path: "vrrp.label",
    value: "voice",
    message: /"enp175s0f1np1:voice" on director-1, longer than the kernel's 15 characters$/,
    fix: /at most 1 characters/,
  },
  // load balancer
  ...(["rr", "wrr", "lc", "wlc"] as const).map((scheduler) => ({
    mistake: `${scheduler} without persistence`,
    raw: plus({ loadBalancer: { scheduler } }),
    path: "loadBalancer.scheduler",
    value: scheduler,
    message: /session/,
    fix: /peerKey\), set loadBalancer.persistence to 300, or use the scheduler mh/,
  })),
  {
    mistake: "rr without persistence, where sessions are not passed on",
    raw: plus({ peerKey: madeUpPeerKey, loadBalancer: { scheduler: "rr" }, service: { peers: false } }),
    path: "loadBalancer.scheduler",
    value: "rr",
    message: /session/,
    fix: /service.peers/,
  },
  {
    mistake: "rr without persistence, where a drained server is taken out at once",
    raw: plus({ peerKey: madeUpPeerKey, loadBalancer: { scheduler: "rr", check: { kind: "http" } } }),
    path: "loadBalancer.scheduler",
    value: "rr",
    message: /session/,
    fix: /check.kind: poller/,
  },
  ...[
    "too-short",
    `${madeUpPeerKey},`,
    `${madeUpPeerKey},${madeUpPeerKey},${madeUpPeerKey}`,
    "x y".repeat(20),
  ].map((peerKey) => ({
    mistake: `a peer key such as ${peerKey.slice(0, 9)}`,
    raw: plus({ peerKey }),
    path: "peerKey",
    value: "(a secret)",
    message: /^is neither one key of 32 to 128 letters/,
    fix: /openssl rand -hex 32 \| pulumi config set --secret peerKey/,
  })),
  {
    mistake: "an unknown scheduler",
    raw: plus({ loadBalancer: { scheduler: "maglev" } }),
    path: "loadBalancer.scheduler",
    value: "maglev",
    message: /^is not one of mh, sh, rr, wrr, lc, wlc$/,
    fix: /^write one of/,
  },
  {
    mistake: "forwarding in lower case",
    raw: plus({ loadBalancer: { forwarding: "dr" } }),
    path: "loadBalancer.forwarding",
    value: "dr",
    message: /^is not one of DR, TUN, NAT$/,
    fix: /^write one of DR/,
  },
  {
    mistake: "a sorry server on another port, with DR",
    raw: plus({ loadBalancer: { sorryServer: { address: "192.168.1.30", port: 80 } } }),
    path: "loadBalancer.sorryServer.port",
    value: 80,
    message: /DR cannot rewrite ports/,
    fix: /NAT/,
  },
  {
    mistake: "a sorry server that is the VIP",
    raw: plus({ loadBalancer: { sorryServer: { address: "192.168.1.100" } } }),
    path: "loadBalancer.sorryServer.address",
    value: "192.168.1.100",
    message: /circle/,
    fix: /own address/,
  },
  {
    mistake: "a sorry server out of the pool",
    raw: plus({ loadBalancer: { sorryServer: { address: "192.168.1.103" } } }),
    path: "loadBalancer.sorryServer.address",
    value: "192.168.1.103",
    message: /^is rs-3 .*in the pool already$/,
    fix: /not in the pool/,
  },
  {
    mistake: "a quorum that no pool can reach",
    raw: plus({ loadBalancer: { quorum: 4 } }),
    path: "loadBalancer.quorum",
    value: 4,
    message: /add up to 3$/,
    fix: /from 1 to 3/,
  },
  {
    mistake: "a poll that may take longer than finding a dead server",
    raw: plus({ loadBalancer: { check: { interval: 0.5, failures: 2, timeout: 1.5 } } }),
    path: "loadBalancer.check.timeout",
    value: 1.5,
    message: /longer than 2 x 0\.5 s/,
    fix: /at most 1,/,
  },
  {
    mistake: "a connection that may take longer than a round",
    raw: plus({ loadBalancer: { check: { kind: "tcp", connectTimeout: 7 } } }),
    path: "loadBalancer.check.connectTimeout",
    value: 7,
    message: /longer than delayLoop \(6 s\)$/,
    fix: /write at most 6/,
  },
  {
    mistake: "a script that may take longer than a round",
    raw: plus({ loadBalancer: { check: { kind: "misc", script: "/usr/local/bin/check", timeout: 7 } } }),
    path: "loadBalancer.check.timeout",
    value: 7,
    message: /longer than delayLoop/,
    fix: /write at most 6/,
  },
  {
    mistake: "a script with arguments",
    raw: plus({ loadBalancer: { check: { kind: "misc", script: '/bin/sh -c "true"' } } }),
    path: "loadBalancer.check.script",
    value: '/bin/sh -c "true"',
    message: /without arguments$/,
    fix: /absolute path/,
  },
  {
    mistake: "a misc check without a script",
    raw: plus({ loadBalancer: { check: { kind: "misc" } } }),
    path: "loadBalancer.check.script",
    value: undefined,
    message: /^is missing$/,
    fix: /absolute path/,
  },
  {
    mistake: "an unknown kind of check",
    raw: plus({ loadBalancer: { check: { kind: "ping" } } }),
    path: "loadBalancer.check.kind",
    value: "ping",
    message: /^is not one of poller, tcp, http, misc$/,
    fix: /^write one of/,
  },
  {
    mistake: "a key of another kind of check",
    raw: plus({ loadBalancer: { check: { kind: "tcp", path: "/" } } }),
    path: "loadBalancer.check.path",
    value: "/",
    message: /^is not a key of this kind of check$/,
    fix: /kind to one that has it: poller, http$/,
  },
  {
    mistake: "a check that is no section",
    raw: plus({ loadBalancer: { check: "tcp" } }),
    path: "loadBalancer.check",
    value: "tcp",
    message: /^is not a section/,
    fix: /kind/,
  },
  // storage
  {
    mistake: "a client that is only an address",
    raw: plus({ verification: { client: "192.168.1.50", sourceAddresses: ["192.168.1.200"] } }),
    path: "verification.client",
    value: "192.168.1.50",
    message: /^is not a section/,
    fix: /name, address/,
  },
  {
    mistake: "a known_hosts file that is none",
    raw: {
      ...rawCluster(),
      ssh: { knownHostsFile: 5 },
      directors: rawCluster().directors.map(({ name, address }) => ({ name, address })),
    },
    path: "ssh.knownHostsFile",
    value: 5,
    message: /^is not the path of a file/,
    fix: /^write the path/,
  },
  {
    mistake: "no storage",
    raw: without("storage"),
    path: "storage",
    value: undefined,
    message: /^is missing$/,
    fix: /storage machine/,
  },
  {
    mistake: "an export and a machine",
    raw: plus({ storage: { export: "nas:/cosyvoice", name: "nas" } }),
    path: "storage.name",
    value: "nas",
    message: /together with export/,
    fix: /keep either/,
  },
  {
    mistake: "a storage machine without an address",
    raw: plus({ storage: { name: "storage" } }),
    path: "storage.address",
    value: undefined,
    message: /^is missing$/,
    fix: /name and address/,
  },
  {
    mistake: "an export without a path",
    raw: plus({ storage: { export: "nas" } }),
    path: "storage.export",
    value: "nas",
    message: /^is not an NFS export/,
    fix: /host:\/path/,
  },
  {
    mistake: "the share in the system's own place",
    raw: plus({ storage: { ...rawCluster().storage, path: "/etc/cosyvoice" } }),
    path: "storage.path",
    value: "/etc/cosyvoice",
    message: /lies in \/etc/,
    fix: /\/srv\/cosyvoice\/outputs/,
  },
  {
    mistake: "a path that climbs",
    raw: plus({ storage: { ...rawCluster().storage, path: "/srv/../etc" } }),
    path: "storage.path",
    value: "/srv/../etc",
    message: /^is not an absolute path/,
    fix: /absolute path/,
  },
  {
    mistake: "mount options with a blank",
    raw: plus({ storage: { ...rawCluster().storage, mountOptions: "soft, rw" } }),
    path: "storage.mountOptions",
    value: "soft, rw",
    message: /without spaces$/,
    fix: /commas/,
  },
  // service
  {
    mistake: "the service as root",
    raw: plus({ service: { user: "root" } }),
    path: "service.user",
    value: "root",
    message: /^is root/,
    fix: /user that only the service uses/,
  },
  {
    mistake: "uid 0",
    raw: plus({ service: { uid: 0 } }),
    path: "service.uid",
    value: 0,
    message: /from 100 to 59999$/,
    fix: /^write a whole/,
  },
  // the engine
  {
    mistake: "a source with a password in it",
    raw: plus({ app: { source: "https://me:secret@example.org/x.git" } }),
    path: "app.source",
    value: "https://me:secret@example.org/x.git",
    message: /^is not a git URL/,
    fix: /without a password/,
  },
  {
    mistake: "a source that is a program for git",
    raw: plus({ app: { source: "ext::sh -c id" } }),
    path: "app.source",
    value: "ext::sh -c id",
    message: /^is not a git URL/,
    fix: /absolute path/,
  },
  {
    mistake: "a ref that is an option",
    raw: plus({ app: { ref: "--upload-pack=id" } }),
    path: "app.ref",
    value: "--upload-pack=id",
    message: /^is not a commit of 40 hexadecimal digits, a branch or a tag$/,
    fix: /^write a commit/,
  },
  {
    mistake: "a ref with two dots",
    raw: plus({ app: { ref: "a..b" } }),
    path: "app.ref",
    value: "a..b",
    message: /^is not a commit/,
    fix: /a branch or a tag/,
  },
  {
    mistake: "a branch of a checkout on the real servers",
    raw: plus({ app: { source: "/srv/CosyVoice", ref: "main" } }),
    path: "app.ref",
    value: "main",
    message: /^is a branch or a tag, but app\.source is a path/,
    fix: /git rev-parse HEAD/,
  },
  {
    mistake: "a Python that the committed lock file is not for",
    raw: plus({ app: { python: "3.10" } }),
    path: "app.python",
    value: "3.10",
    message: /^is not 3\.11, which app\/engine\/cosyvoice\.txt was made for$/,
    fix: /lock file for Python 3\.10 in app\.requirements/,
  },
  {
    mistake: "a Python that YAML has made a number",
    raw: plus({ app: { python: 3.11 } }),
    path: "app.python",
    value: 3.11,
    message: /^is not 3\.10, 3\.11, 3\.12 or 3\.13, in quotes$/,
    fix: /in quotes/,
  },
  {
    mistake: "an interpreter from elsewhere",
    raw: plus({ app: { environment: "poetry" } }),
    path: "app.environment",
    value: "poetry",
    message: /^is not one of auto, venv, conda, uv$/,
    fix: /auto/,
  },
  {
    mistake: "wheels on this computer",
    raw: plus({ app: { wheels: "./wheels" } }),
    path: "app.wheels",
    value: "./wheels",
    message: /^is not an absolute path on the real servers/,
    fix: /absolute/,
  },
  {
    mistake: "TensorRT without its packages",
    raw: plus({ app: { tensorrt: true } }),
    path: "app.tensorrt",
    value: true,
    message: /^is true, but app\/engine\/cosyvoice\.txt has no TensorRT/,
    fix: /app\.requirements .*docs\/engine\.md/,
  },
  {
    mistake: "vLLM without its packages",
    raw: plus({ app: { vllm: true } }),
    path: "app.vllm",
    value: true,
    message: /^is true, but app\/engine\/cosyvoice\.txt has no vLLM/,
    fix: /app\.requirements/,
  },
  {
    mistake: "no memory of the GPU",
    raw: plus({ app: { gpuMemory: 0 } }),
    path: "app.gpuMemory",
    value: 0,
    message: /^is not a whole number from 1 to 1024$/,
    fix: /whole number/,
  },
  {
    mistake: "another hub",
    raw: plus({ app: { model: { hub: "github" } } }),
    path: "app.model.hub",
    value: "github",
    message: /^is not one of huggingface, modelscope$/,
    fix: /huggingface/,
  },
  {
    mistake: "a model without an owner",
    raw: plus({ app: { model: { id: "Fun-CosyVoice3" } } }),
    path: "app.model.id",
    value: "Fun-CosyVoice3",
    message: /^is not the name of a model as OWNER\/NAME$/,
    fix: /OWNER/,
  },
  {
    mistake: "weights from a directory that nobody vouches for",
    raw: plus({ app: { model: { directory: "/srv/weights" } } }),
    path: "app.model.checksums",
    value: undefined,
    message: /^is missing, but the weights come from a directory/,
    fix: /sha256sum/,
  },
  {
    mistake: "a revision of a directory",
    raw: plus({ app: { model: { directory: "/srv/w", checksums: "w.sha256", revision: "v1" } } }),
    path: "app.model.revision",
    value: "v1",
    message: /^is given, but the weights come from app\.model\.directory/,
    fix: /^remove it/,
  },
  {
    mistake: "a mirror of a directory",
    raw: plus({
      app: { model: { directory: "/srv/w", checksums: "w.sha256", endpoint: "https://hub.example.org" } },
    }),
    path: "app.model.endpoint",
    value: "https://hub.example.org",
    message: /^is given, but the weights come from/,
    fix: /^remove it/,
  },
  {
    mistake: "an endpoint with a query",
    raw: plus({ app: { model: { endpoint: "https://hub.example.org/?token=x" } } }),
    path: "app.model.endpoint",
    value: "https://hub.example.org/?token=x",
    message: /^is not an address such as/,
    fix: /hub\.example\.org/,
  },
  {
    mistake: "a variable that app sets",
    raw: plus({ service: { environment: { COSYVOICE_TRT: "1" } } }),
    path: "service.environment.COSYVOICE_TRT",
    value: "1",
    message: /^is set by this program$/,
    fix: /set app\.tensorrt/,
  },
  {
    mistake: "a variable that this program sets",
    raw: plus({ service: { environment: { COSYVOICE_NODE: "other" } } }),
    path: "service.environment.COSYVOICE_NODE",
    value: "other",
    message: /^is set by this program$/,
    fix: /machine's name/,
  },
  {
    mistake: "a variable with two lines",
    raw: plus({ service: { environment: { GREETING: "a\nb" } } }),
    path: "service.environment.GREETING",
    value: "a\nb",
    message: /^is not a text on one line/,
    fix: /one line/,
  },
  {
    mistake: "a variable that is a number",
    raw: plus({ service: { environment: { THREADS: 4 } } }),
    path: "service.environment.THREADS",
    value: 4,
    message: /^is not a text/,
    fix: /in quotes/,
  },
  {
    mistake: "a variable with a blank in its name",
    raw: plus({ service: { environment: { "A B": "1" } } }),
    path: 'service.environment["A B"]',
    value: "A B",
    message: /^is not the name of an environment variable/,
    fix: /^rename it/,
  },
  // verification
  {
    mistake: "a range that ends before it starts",
    raw: plus({ verification: { client, sourceAddresses: ["192.168.1.249-192.168.1.200"] } }),
    path: "verification.sourceAddresses[0]",
    value: "192.168.1.249-192.168.1.200",
    message: /^ends before it starts$/,
    fix: /192\.168\.1\.200-192\.168\.1\.249/,
  },
  {
    mistake: "a short-hand range",
    raw: plus({ verification: { client, sourceAddresses: ["192.168.1.200-249"] } }),
    path: "verification.sourceAddresses[0]",
    value: "192.168.1.200-249",
    message: /^is not made of IPv4 addresses$/,
    fix: /192\.168\.1\.200-192\.168\.1\.249/,
  },
  {
    mistake: "a range as wide as the internet",
    raw: plus({ verification: { client, sourceAddresses: ["1.0.0.0-223.255.255.255"] } }),
    path: "verification.sourceAddresses[0]",
    value: "1.0.0.0-223.255.255.255",
    message: /more than 256$/,
    fix: /range such as/,
  },
  {
    mistake: "ranges that are too many together",
    raw: plus({
      verification: { client, sourceAddresses: ["192.168.2.0-192.168.2.200", "192.168.3.0-192.168.3.200"] },
    }),
    path: "verification.sourceAddresses",
    value: ["192.168.2.0-192.168.2.200", "192.168.3.0-192.168.3.200"],
    message: /^names 402 addresses/,
    fix: /ten per real server/,
  },
  {
    mistake: "a source address listed twice",
    raw: plus({
      verification: { client, sourceAddresses: ["192.168.1.200-192.168.1.210", "192.168.1.205"] },
    }),
    path: "verification.sourceAddresses[1]",
    value: "192.168.1.205",
    message: /listed already$/,
    fix: /each once/,
  },
  {
    mistake: "a source address that is a real server's",
    raw: plus({ verification: { client, sourceAddresses: ["192.168.1.99-192.168.1.101"] } }),
    path: "verification.sourceAddresses[0]",
    value: "192.168.1.99-192.168.1.101",
    message: /^contains 192\.168\.1\.100, which is the VIP$/,
    fix: /only the client holds/,
  },
  {
    mistake: "source addresses without a client",
    raw: plus({ verification: { sourceAddresses: ["192.168.1.200"] } }),
    path: "verification.sourceAddresses",
    value: ["192.168.1.200"],
    message: /no client/,
    fix: /verification\.client/,
  },
  {
    mistake: "nothing to say",
    raw: plus({ verification: { sentence: "  " } }),
    path: "verification.sentence",
    value: "  ",
    message: /^is not a text/,
    fix: /^write a text/,
  },
  // platform
  {
    mistake: "an unknown platform",
    raw: plus({ platform: "azure" }),
    path: "platform",
    value: "azure",
    message: /^is not one of hosts, aws$/,
    fix: /^write one of/,
  },
  {
    mistake: "aws without its section",
    raw: { platform: "aws", vip: "10.255.0.100" },
    path: "aws",
    value: undefined,
    message: /^is missing/,
    fix: /section aws/,
  },
  {
    mistake: "aws with a list of machines",
    raw: { ...rawAws(), realServers: [] },
    path: "realServers",
    value: [],
    message: /creates its machines itself$/,
    fix: /remove it/,
  },
  {
    mistake: "hosts with a section for aws",
    raw: plus({ aws: awsSection() }),
    path: "aws",
    value: awsSection(),
    message: /platform is hosts$/,
    fix: /remove it/,
  },
];

/** A key that does not exist, and the one that was meant. */
const misspelt: readonly (readonly [RawOverrides, string, string])[] = [
  [{ vips: "192.168.1.100" }, "vips", "vip"],
  [{ realServer: [] }, "realServer", "realServers"],
  [{ real_servers: [] }, "real_servers", "realServers"],
  [{ scheduler: "mh" }, "scheduler", "loadBalancer.scheduler"],
  [{ vrid: 51 }, "vrid", "vrrp.virtualRouterId"],
  [{ vrrp: { advert_int: 1 } }, "vrrp.advert_int", "vrrp.advertInterval"],
  [{ vrrp: { advertInterva: 1 } }, "vrrp.advertInterva", "vrrp.advertInterval"],
  [{ vrrp: { adevrtInterval: 1 } }, "vrrp.adevrtInterval", "vrrp.advertInterval"],
  [{ vrrp: { auth_pass: 1 } }, "vrrp.auth_pass", "vrrpPassword"],
  [{ loadBalancer: { lb_algo: "mh" } }, "loadBalancer.lb_algo", "loadBalancer.scheduler"],
  [
    { loadBalancer: { persistence_timeout: 300 } },
    "loadBalancer.persistence_timeout",
    "loadBalancer.persistence",
  ],
  [
    { loadBalancer: { check: { kind: "tcp", delay_loop: 6 } } },
    "loadBalancer.check.delay_loop",
    "loadBalancer.check.delayLoop",
  ],
  [{ service: { enable_queue: true } }, "service.enable_queue", "service.enableQueue"],
  [{ ssh: { jumphost: {} } }, "ssh.jumphost", "ssh.jumpHost"],
];

function find(problems: readonly Problem[], path: string): Problem {
  const found = problems.filter((problem) => problem.path === path);
  assert.equal(found.length, 1, `one problem at ${path}, got: ${JSON.stringify(problems, null, 2)}`);
  return found[0] as Problem;
}

describe("bad configurations", () => {
  for (const { mistake, raw, path, value, message, fix } of badInputs) {
    it(`refuses ${mistake}`, () => {
      const problem = find(problemsOf(raw), path);
      assert.deepEqual(problem.value, value);
      assert.match(problem.message, message);
      assert.match(problem.fix, fix);
    });
  }

  it("says nothing beyond the one mistake", () => {
    for (const { mistake, raw, path } of badInputs) {
      const paths = problemsOf(raw).map((problem) => problem.path);
      assert.deepEqual(paths, [path], mistake);
    }
  });

  for (const [overrides, path, meant] of misspelt) {
    it(`suggests ${meant} for ${path}`, () => {
      const problem = find(problemsOf(plus(overrides)), path);
      assert.match(problem.message, /^is not a key/);
      assert.equal(problem.fix, `did you mean ${meant}?`);
    });
  }

  it("lists the keys there are when nothing is near", () => {
    const problem = find(problemsOf(plus({ vrrp: { frobnicate: 1 } })), "vrrp.frobnicate");
    assert.match(problem.fix, /^remove it; the keys known here are virtualRouterId, version, /);
  });

  it("names all mistakes at once, those of values and those between values", () => {
    const raw = plus({
      vip: "192.168.1.11",
      prot: 7860,
      realServers: [{ name: "rs-1", address: "nowhere" }],
      vrrp: { virtualRouterId: 0, authentication: "PASS" },
      loadBalancer: { scheduler: "rr" },
      verification: { timeout: "long" },
    });
    assert.deepEqual(
      problemsOf(raw).map((problem) => problem.path),
      [
        "directors[0].address",
        "realServers[0].address",
        "realServers[0].hostKey",
        "loadBalancer.scheduler",
        "vrrp.virtualRouterId",
        "vrrp.authentication",
        "verification.timeout",
        "vrrpPassword",
        "prot",
      ],
    );
  });

  it("never shows a password, nor what may be one", () => {
    const shown = formatProblems(
      problemsOf(
        plus({ vrrpPassword: "hunter2-hunter2", vrrp: { password: "hunter2" }, sshPrivateKye: "hunter2" }),
      ),
    );
    assert.doesNotMatch(shown, /hunter2/);
    assert.match(shown, /did you mean sshPrivateKey\?/);
  });
});

describe("good configurations", () => {
  it("fills in what is left out", () => {
    const { directors, realServers, storage, loadBalancer, vrrp, ssh, service, secretsSet } = cluster();
    assert.deepEqual(directors, [
      {
        name: "director-1",
        role: "director",
        address: "192.168.1.11",
        hostKey: madeUpHostKey("director-1"),
        ssh: { user: "root", port: 22 },
        interface: "eth0",
        priority: 100,
      },
      {
        name: "director-2",
        role: "director",
        address: "192.168.1.12",
        hostKey: madeUpHostKey("director-2"),
        ssh: { user: "root", port: 22 },
        interface: "eth0",
        priority: 90,
      },
    ]);
    assert.deepEqual(
      realServers.map(({ name, weight }) => [name, weight]),
      [
        ["rs-1", 1],
        ["rs-2", 1],
        ["rs-3", 1],
      ],
    );
    assert.deepEqual(storage.kind === "machine" && storage.path, "/srv/cosyvoice/outputs");
    assert.deepEqual(loadBalancer, {
      forwarding: "DR",
      scheduler: "mh",
      persistence: 0,
      connectionSync: false,
      dropUnderPressure: false,
      agentWeights: false,
      rampUp: 30,
      quorum: 1,
      sorryServer: undefined,
      check: { kind: "poller", interval: 0.5, timeout: 0.8, failures: 2, path: "/readyz" },
    });
    assert.deepEqual(vrrp, {
      virtualRouterId: 51,
      version: 3,
      advertInterval: 0.1,
      unicast: true,
      label: "vip",
      preempt: false,
      authentication: "none",
      garp: { delay: 1, repeat: 3, refresh: 10, refreshRepeat: 1 },
    });
    assert.equal(ssh.connectTimeout, 10);
    assert.equal(service.uid, 7860);
    assert.equal(service.peers, true);
    assert.deepEqual(secretsSet, { ...noSecrets });
  });

  it("lets a machine differ from the rest", () => {
    const config = cluster({
      interface: "ens3",
      ssh: { user: "ops", port: 2222 },
      ...withDirector(1, {
        interface: "bond0",
        ssh: { port: 22 },
        hostKey: `${madeUpHostKey("d2")} root@d2`,
      }),
    });
    const [first, second] = config.directors;
    assert.deepEqual([first.interface, first.ssh], ["ens3", { user: "ops", port: 2222 }]);
    assert.deepEqual([second.interface, second.ssh], ["bond0", { user: "ops", port: 22 }]);
    assert.equal(second.hostKey, madeUpHostKey("d2"), "without its comment");
  });

  it("takes the classic article's configuration, without its password", () => {
    const config = cluster(classicArticle);
    assert.deepEqual(config.loadBalancer.check, {
      kind: "tcp",
      connectTimeout: 3,
      retry: 3,
      delayBeforeRetry: 3,
      delayLoop: 6,
    });
    assert.deepEqual(config.secretsSet, { ...noSecrets, vrrpPassword: true });
    assert.doesNotMatch(JSON.stringify(config), /made-up1/);
  });

  for (const scheduler of ["rr", "wrr", "lc", "wlc"]) {
    it(`takes ${scheduler} without persistence where real servers pass sessions on, without their key`, () => {
      const config = cluster({ peerKey: madeUpPeerKey, loadBalancer: { scheduler } });
      assert.equal(config.loadBalancer.persistence, 0);
      assert.deepEqual(config.secretsSet, { ...noSecrets, peerKey: true });
      assert.doesNotMatch(JSON.stringify(config), /made-up-peer-key/);
    });
  }

  it("needs no host keys with a known_hosts file", () => {
    const withoutKey = ({ name, address }: Record<string, unknown>) => ({ name, address });
    const raw = rawCluster();
    const config = cluster({
      ssh: { knownHostsFile: "~/.ssh/known_hosts" },
      directors: raw.directors.map(withoutKey),
      realServers: raw.realServers.map(withoutKey),
      storage: withoutKey(raw.storage),
    });
    assert.equal(config.directors[0].hostKey, undefined);
  });

  it("takes an export that is there, and expands source addresses", () => {
    const config = cluster({
      storage: { export: "nas.example.org:/volume1/cosyvoice" },
      verification: { client, sourceAddresses: ["192.168.1.200-192.168.1.202", "192.168.1.50"] },
    });
    assert.deepEqual(
      config.storage.kind === "export" && config.storage.export,
      "nas.example.org:/volume1/cosyvoice",
    );
    assert.deepEqual(config.verification.sourceAddresses, [
      "192.168.1.200",
      "192.168.1.201",
      "192.168.1.202",
      "192.168.1.50",
    ]);
  });

  it("gives a sorry server the service's port", () => {
    const { loadBalancer } = cluster({
      port: 8080,
      loadBalancer: { sorryServer: { address: "192.168.1.30" } },
    });
    assert.deepEqual(loadBalancer.sorryServer, { address: "192.168.1.30", port: 8080 });
  });
});

describe("stack files of this repository", () => {
  for (const [stack, platform] of [
    ["onprem", "hosts"],
    ["prod", "aws"],
  ] as const) {
    it(`Pulumi.${stack}.yaml is valid`, () => {
      const result = parseConfig(stackFile(stack));
      assert.deepEqual(result.ok ? [] : result.problems, []);
      assert.equal(result.ok && result.config.platform, platform);
    });
  }

  it("Pulumi.onprem.yaml is the example of the documents", () => {
    const result = parseConfig(stackFile("onprem"));
    assert.ok(result.ok && result.config.platform === "hosts");
    const { vip, port, realServers, vrrp, loadBalancer } = result.config;
    assert.deepEqual(
      [vip, port, vrrp.virtualRouterId, loadBalancer.forwarding, realServers.map(({ address }) => address)],
      ["192.168.1.100", 7860, 51, "DR", ["192.168.1.101", "192.168.1.102", "192.168.1.103"]],
    );
  });

  it("Pulumi.lab.yaml lacks the lab's facts and nothing else", () => {
    const raw = stackFile("lab");
    const missing = problemsOf(raw);
    assert.deepEqual(
      missing.map(({ path }) => path),
      [
        "directors[0].hostKey",
        "directors[1].hostKey",
        "realServers[0].hostKey",
        "realServers[1].hostKey",
        "realServers[2].hostKey",
        "storage.hostKey",
        "verification.client.hostKey",
        "monitoring.hostKey",
      ],
    );

    const pinned = <T extends { name: string }>(machine: T) => ({
      ...machine,
      hostKey: madeUpHostKey(machine.name),
    });
    type Machine = { name: string };
    const lab = raw as {
      directors: Machine[];
      realServers: Machine[];
      storage: Machine;
      verification: { client: Machine };
      monitoring: Machine;
    };
    const result = parseConfig({
      ...raw,
      ssh: {
        jumpHost: { address: "127.0.0.1", port: 2222, hostKey: madeUpHostKey("vm") },
        privateKeyFile: "/made/up",
      },
      directors: lab.directors.map(pinned),
      realServers: lab.realServers.map(pinned),
      storage: pinned(lab.storage),
      verification: { ...lab.verification, client: pinned(lab.verification.client) },
      monitoring: pinned(lab.monitoring),
    });
    assert.deepEqual(result.ok ? [] : result.problems, []);
    assert.equal(
      result.ok && result.config.platform === "hosts" && result.config.verification.sourceAddresses.length,
      50,
    );
  });
});

describe("the door", () => {
  it("reads what Pulumi hands over as text", () => {
    assert.deepEqual(
      rawFromStack({
        "cosyvoice-lvs:vip": "192.168.1.100",
        "cosyvoice-lvs:port": "7860",
        "cosyvoice-lvs:vrrp": '{"preempt":true}',
        "cosyvoice-lvs:interface": '"eth0"',
        "cosyvoice-lvs:vrrpPassword": "12345678",
        "cosyvoice-lvs:peerKey": "0123456789",
        "cosyvoice-lvs:sshPrivateKey": "made up",
        "cosyvoice-lvs:typo": "[",
        "aws:region": "eu-central-1",
      }),
      {
        vip: "192.168.1.100",
        port: 7860,
        vrrp: { preempt: true },
        interface: '"eth0"',
        vrrpPassword: "12345678",
        peerKey: "0123456789",
        sshPrivateKey: true,
        typo: "[",
      },
    );
  });

  it("never throws, whatever it is given", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (raw) => {
        const result = parseConfig(raw as Record<string, unknown>);
        assert.equal(typeof formatProblems(result.ok ? [] : result.problems), "string");
      }),
    );
  });

  it("never throws for a configuration with one value replaced by anything", () => {
    const full = {
      ...rawCluster(),
      ssh: { jumpHost: { address: "10.0.0.1", hostKey: madeUpHostKey("jump") } },
      loadBalancer: { check: { kind: "http" }, sorryServer: { address: "192.168.1.30" } },
      vrrp: { garp: { delay: 1 } },
      service: { environment: { A: "b" } },
      verification: { client, sourceAddresses: ["192.168.1.200"] },
    };
    fc.assert(
      fc.property(fc.constantFrom(...pathsIn(full)), fc.jsonValue(), (path, value) => {
        const result = parseConfig(replaced(full, path, value) as Record<string, unknown>);
        if (result.ok) return;
        assert.ok(result.problems.length > 0);
        for (const problem of result.problems) {
          assert.ok(
            problem.path !== "" && problem.message !== "" && problem.fix !== "",
            JSON.stringify(problem),
          );
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("never throws for a hostile key", () => {
    const raw = JSON.parse(
      '{"__proto__": {"vip": "1.1.1.1"}, "constructor": 1, "vrrp": {"__proto__": 1}}',
    ) as Record<string, unknown>;
    assert.equal(parseConfig({ ...rawCluster(), constructor: 1 }).ok, false);
    assert.equal(parseConfig(raw).ok, false);
    const environment = JSON.parse('{"constructor": "x", "toString": "y"}') as Record<string, unknown>;
    assert.deepEqual(cluster({ service: { environment } }).service.environment, environment);
  });
});

describe("problems for the terminal", () => {
  it("shows path, value and fix of each", () => {
    assert.equal(
      formatProblems(problemsOf(plus({ port: 2049, loadBalancer: { scheduler: "rr" } }))),
      [
        "The configuration has 2 mistakes; nothing was touched.",
        "",
        "  port is the port of NFS",
        "    found: 2049",
        "    fix:   give the service a port of its own, such as 7860",
        "",
        "  loadBalancer.scheduler spreads the connections of one visitor over all real servers, but a session lives on one of them: with several real servers the page fails (session not found)",
        '    found: "rr"',
        "    fix:   let the real servers pass sessions on (service.peers with check.kind: poller, and run: pulumi config set --secret peerKey), set loadBalancer.persistence to 300, or use the scheduler mh",
        "",
      ].join("\n"),
    );
  });

  it("is empty for none, and short for a long value", () => {
    assert.equal(formatProblems([]), "");
    const shown = formatProblems([
      { path: "a", value: "x".repeat(500), message: "is long", fix: "shorten it" },
    ]);
    assert.match(shown, /1 mistake;/);
    assert.ok(shown.split("\n").every((line) => line.length <= 100));
  });
});

type Step = string | number;

/** Every path in a value, the empty one left out. */
function pathsIn(value: unknown, at: readonly Step[] = []): (readonly Step[])[] {
  const here = at.length === 0 ? [] : [at];
  if (Array.isArray(value))
    return [...here, ...value.flatMap((part, index) => pathsIn(part, [...at, index]))];
  if (typeof value !== "object" || value === null) return here;
  return [...here, ...Object.entries(value).flatMap(([key, part]) => pathsIn(part, [...at, key]))];
}

/** A copy with the value at a path replaced. */
function replaced(value: unknown, path: readonly Step[], by: unknown): unknown {
  const [step, ...rest] = path;
  if (step === undefined) return by;
  if (Array.isArray(value))
    return value.map((part, index) => (index === step ? replaced(part, rest, by) : part));
  const section = value as Record<string, unknown>;
  return { ...section, [step]: replaced(section[step], rest, by) };
}
