/**
 * What a stack may configure: the shape, the bounds, the defaults, and for every key what it does, its unit and why it is
 * as it is. docs/configuration.md is generated from this file (`scripts/config-reference`), so the words here are the manual.
 *
 * What concerns more than one key lives in validate.ts.
 */
import * as z from "zod";
import { parseIPv4 } from "./addresses";
import { type AwsConfig, awsSchema } from "./aws";
import {
  type About,
  about,
  address,
  choice,
  flag,
  hostKey,
  hundredths,
  isDnsName,
  isHostAddress,
  isNetwork,
  isPlainPath,
  list,
  localFile,
  machineName,
  networkInterface,
  port,
  printable,
  seconds,
  section,
  text,
  userName,
  whole,
} from "./leaves";
import { programsSchema } from "./programs";

// --- machines ------------------------------------------------------------------------------------------------------

const machineSshSchema = section(
  {
    user: userName({
      text: "User to log in as on this machine.",
      derived: "`ssh.user`",
    }).optional(),
    port: port({ text: "Port of this machine's SSH server.", derived: "`ssh.port`" }).optional(),
  },
  { text: "How this machine is reached, where it differs from the top-level `ssh`." },
);

function machineShape(what: string) {
  return {
    name: machineName({
      text: `Name of the ${what}. It is the machine's identity in the state, in logs and in \`scripts/cluster\`.`,
      why: "A machine that keeps its name is changed in place; a new name is a new machine to the program.",
    }),
    address: address({
      text: `Address of the ${what}: where it is configured over SSH and where the cluster's traffic goes.`,
    }),
    hostKey: hostKey(`the ${what}`).optional(),
    ssh: machineSshSchema.optional(),
  };
}

const machineInterface = networkInterface({
  text: "Network interface that holds `address`, where it differs from the top-level `interface`.",
  derived: "`interface`",
}).optional();

export const directorSchema = section(
  {
    ...machineShape("director"),
    interface: machineInterface,
    priority: whole(1, 254, {
      text: "VRRP priority. The higher one takes the VIP when both start at the same moment.",
      why: "255 is kept for the owner of an address, which a VIP has not.",
      derived: "100 for the first director in the list, 90 for the second",
    }).optional(),
  },
  { text: "A director: runs IPVS and keepalived, holds the VIP or stands by." },
);

export const realServerSchema = section(
  {
    ...machineShape("real server"),
    weight: whole(1, 1000, {
      text: "Share of the traffic, relative to the other real servers.",
      why: "A node with two GPUs of a kind where the others have one gets 2.",
    }).default(1),
  },
  { text: "A real server: runs the speech service and answers clients itself." },
);

const defaultMountOptions = "nfsvers=4.2,proto=tcp,softerr,timeo=50,retrans=3,noatime,nosuid,nodev,noexec";

export const storageSchema = section(
  {
    name: machineName({
      text: "Name of the machine that is made the NFS server. With it come `address` and the machine's other keys.",
      required: "unless `export` is given",
    }).optional(),
    address: address({
      text: "Address of the storage machine, for SSH and for NFS.",
      required: "with `name`",
    }).optional(),
    hostKey: hostKey("the storage machine").optional(),
    ssh: machineSshSchema.optional(),
    path: text(
      (value) => isPlainPath(value) && value.split("/").length > 2,
      "an absolute path at least two levels deep, such as /srv/cosyvoice/outputs, made of letters, digits and . _ - + = , @",
      {
        text: "Directory on the storage machine that is exported. Its content is kept when the stack is destroyed.",
        derived: "/srv/cosyvoice/outputs",
      },
    ).optional(),
    export: text(
      (value) => {
        const colon = value.indexOf(":");
        return (
          colon > 0 &&
          /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(value.slice(0, colon)) &&
          (value.slice(colon + 1) === "/" || isPlainPath(value.slice(colon + 1)))
        );
      },
      'an NFS export as "host:/path"',
      {
        text: "An NFS export that is there already, for example of a storage appliance. It must admit every real server and let `service.uid` write.",
        required: "unless `name` and `address` are given",
      },
    ).optional(),
    mountOptions: text(
      (value) => /^[A-Za-z0-9_.:=,-]+$/.test(value),
      "mount options joined by commas, without spaces",
      {
        text: "NFS options of the mount on the real servers.",
        why: "`softerr` makes a request fail with an error after about `timeo` (tenths of a second) x `retrans` when the storage is away: the service says so and goes on, instead of hanging in the kernel. `noexec,nosuid,nodev`: the share carries sound, not programs.",
      },
    ).default(defaultMountOptions),
  },
  {
    text: "The share that is mounted on every real server at /root/CosyVoice/outputs: either a machine that is made an NFS server (`name`, `address`) or an export that is there (`export`).",
    required: "with platform hosts",
  },
);

// --- ssh -----------------------------------------------------------------------------------------------------------

const jumpHostSchema = section(
  {
    address: text(
      (value) =>
        parseIPv4(value) !== undefined ||
        /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(value),
      "an IPv4 address or a host name",
      { text: "Address or name of the jump host, as seen from this computer." },
    ),
    port: port({ text: "Port of its SSH server." }).default(22),
    user: userName({
      text: "User to log in as on the jump host. It needs no rights there beyond forwarding TCP.",
    }).default("root"),
    hostKey: hostKey("the jump host").optional(),
  },
  { text: "A machine through which all others are reached, where this computer has no route to them." },
);

export const sshSchema = section(
  {
    user: userName({
      text: "User to log in as on every machine: root, or one that may run everything by sudo without a password.",
    }).default("root"),
    port: port({ text: "Port of the machines' SSH server." }).default(22),
    privateKeyFile: localFile({
      text: "Private key to log in with.",
      derived: "the secret `sshPrivateKey` when that is set, else the keys of your SSH agent",
    }).optional(),
    knownHostsFile: localFile({
      text: "An OpenSSH known_hosts file in which machines without `hostKey` are looked up.",
      derived: "none: every machine needs its `hostKey`",
    }).optional(),
    connectTimeout: seconds(1, 30, {
      text: "How long a machine may take to answer before it is reported as unreachable.",
      why: "An unreachable machine is named within 30 s, before any other is touched.",
    }).default(10),
    jumpHost: jumpHostSchema.optional(),
  },
  { text: "How machines are reached. Single machines may differ by an `ssh` of their own." },
);

// --- load balancer -------------------------------------------------------------------------------------------------

const delayLoop = seconds(1, 3600, {
  text: "Time between two rounds of checks of a real server.",
  why: "keepalived's own default of 60 s would leave a dead server in the pool for more than a minute.",
}).default(6);

const retry = whole(0, 100, {
  text: "How many more attempts a failed check gets before the real server is taken out.",
}).default(3);

const delayBeforeRetry = seconds(1, 3600, { text: "Pause before such an attempt." }).default(3);

const connectTimeout = seconds(1, 3600, {
  text: "How long a connection may take.",
  why: "keepalived's own default is 5 s.",
}).default(3);

const checkPath = (words: About) =>
  text(
    (value) => /^\/[A-Za-z0-9_./?=&%+-]*$/.test(value),
    "a path that starts with '/', such as /readyz",
    words,
  );

export const checkSchema = z
  .discriminatedUnion("kind", [
    section(
      {
        kind: z
          .literal("poller")
          .register(about, {
            text: "A small asynchronous program on each director asks every real server and tells keepalived through track files. The only kind that can tell *drain* (503: no new work, what runs finishes) from *dead*.",
          })
          .default("poller"),
        interval: seconds(0.1, 60, {
          text: "Time between two questions to one real server.",
          why: "A server that dies is out of the pool after about `interval` x `failures` + `timeout`.",
        }).default(0.5),
        timeout: seconds(0.1, 60, {
          text: "How long one answer may take, connection included.",
        }).default(0.8),
        failures: whole(1, 100, {
          text: "Failures in a row after which a real server is dead.",
          why: "One lost packet is not a dead server; a single 200 brings it back.",
        }).default(2),
        path: checkPath({
          text: "What is asked for. 200 = serve, 503 = drain, anything else or nothing = failure.",
        }).default("/readyz"),
      },
      { text: "`kind: poller` (the default)" },
    ),
    section(
      {
        kind: z.literal("tcp").register(about, {
          text: "keepalived opens a TCP connection. Does not notice a process that hangs with its socket open.",
        }),
        connectTimeout,
        retry,
        delayBeforeRetry,
        delayLoop,
      },
      { text: "`kind: tcp`: keepalived's TCP_CHECK" },
    ),
    section(
      {
        kind: z.literal("http").register(about, {
          text: "keepalived asks for a page. A draining node (503) is taken out like a dead one.",
        }),
        path: checkPath({ text: "What is asked for." }).default("/readyz"),
        status: whole(100, 599, { text: "Status code that means healthy." }).default(200),
        connectTimeout,
        retry,
        delayBeforeRetry,
        delayLoop,
      },
      { text: "`kind: http`: keepalived's HTTP_GET" },
    ),
    section(
      {
        kind: z.literal("misc").register(about, {
          text: "keepalived runs a program of yours. It forks once per server and round: not for hundreds of servers.",
        }),
        script: text(isPlainPath, "the absolute path of a program on the directors, without arguments", {
          text: "The program, already on both directors, owned by root and writable by nobody else. Called with the address and the port of the real server; exit code 0 = healthy, 1 = not, 2 to 255 = healthy with a weight of that code less 2 (so 2 = drain).",
        }),
        timeout: seconds(1, 3600, { text: "How long the program may run." }).default(5),
        retry,
        delayBeforeRetry,
        delayLoop,
      },
      { text: "`kind: misc`: keepalived's MISC_CHECK" },
    ),
  ])
  .register(about, { text: "How a real server's health is found out. One of four kinds." });

const sorryServerSchema = section(
  {
    address: address({ text: "Address of the server that answers while no real server can." }),
    port: port({
      text: "Its port. With DR and TUN it has to be the service's `port`, since they cannot rewrite it.",
      derived: "`port`",
    }).optional(),
  },
  {
    text: "A server, outside the pool and not configured by this program, that gets the traffic while the pool is empty. With DR and TUN it must hold the VIP with ARP suppressed, as a real server does.",
  },
);

/** Every scheduler that can be chosen. */
export const schedulers = ["mh", "sh", "rr", "wrr", "lc", "wlc"] as const;

export const loadBalancerSchema = section(
  {
    forwarding: choice(["DR", "TUN", "NAT"], {
      text: "How a director passes a packet on. DR: by rewriting the destination MAC (directors and real servers on one layer-2 segment). TUN: in an IPIP tunnel (across subnets). NAT: by rewriting addresses; real servers then see the director as their client, and replies pass it.",
      why: "With DR and TUN the reply, which for speech is nearly all of the bytes, never passes the director.",
    }).default("DR"),
    scheduler: choice(schedulers, {
      text: "How IPVS picks a real server for a new connection. mh (Maglev) and sh hash the client's address; rr, wrr, lc and wlc do not and therefore need the secret `peerKey` or `persistence`.",
      why: "One visit to the page is several connections that must meet the same process, at once or passed on by another real server (`service.peers`). With mh both directors compute the same answer without telling each other anything, so nothing has to be passed on and a failover keeps connections; with persistence the other director starts without a table.",
    }).default("mh"),
    persistence: whole(0, 2_678_400, {
      text: "How long a client stays with its real server after its last connection closed. 0 = off.",
      unit: "s",
      why: "300 is a good value with rr, wrr, lc and wlc where the real servers do not pass sessions on to each other (`service.peers`). mh and sh need none.",
    }).default(0),
    connectionSync: flag({
      text: "Whether the director with the VIP tells the other one its connections (IPVS's sync daemon, by multicast on `interface`).",
      why: "rr, wrr, lc and wlc decide by what happened before, so the other director cannot work out where a connection goes; with this a failover keeps those that are open. mh and sh need none. Where multicast is filtered it does nothing.",
      derived: "true with rr, wrr, lc and wlc",
    }).optional(),
    dropUnderPressure: flag({
      text: "Whether a director that runs out of memory forgets connections that have hardly begun, drops some packets and keeps half-open ones for a shorter time (IPVS's drop_entry, drop_packet and secure_tcp, each 1: by itself, and only then).",
      why: "A flood of connections from made-up addresses fills the directors' tables; the real servers answer it with SYN cookies. It hits honest clients too, so it is a choice.",
    }).default(false),
    agentWeights: flag({
      text: "Whether a real server's weight follows its queue: the longer the queue, the smaller its share of new connections. Only with `wlc` or `wrr` and `check.kind: poller`.",
      why: "It lets a slow node take less. With mh and sh, which the weight does not steer from moment to moment, it would move clients away from their sessions.",
    }).default(false),
    rampUp: seconds(0, 3600, {
      text: "With `agentWeights`: how long a real server that came back takes to reach its full weight.",
      why: "wlc would send everything to a node that has no connections yet.",
    }).default(30),
    quorum: whole(1, 1000, {
      text: "How many real servers (weights summed) must be healthy for the pool to count as up. Below it the `sorryServer` gets the traffic.",
    }).default(1),
    sorryServer: sorryServerSchema.optional(),
    check: checkSchema.prefault({}),
  },
  { text: "IPVS: forwarding, scheduling and health checks." },
);

// --- vrrp ----------------------------------------------------------------------------------------------------------

const garpSchema = section(
  {
    delay: whole(0, 60, {
      text: "Time after taking the VIP until its address is announced a second time.",
      unit: "s",
      why: "The first announcement can be lost while a switch still learns. keepalived takes whole seconds here.",
    }).default(1),
    repeat: whole(1, 60, { text: "Gratuitous ARPs sent at each of these moments." }).default(3),
    refresh: whole(0, 86_400, {
      text: "How often the holder of the VIP announces it again. 0 = never.",
      unit: "s",
      why: "After a partition heals, both directors have announced the VIP and the last one to speak need not be the one that keeps it: whoever learned the wrong MAC is put right within this time.",
    }).default(10),
    refreshRepeat: whole(1, 60, { text: "Gratuitous ARPs sent at each refresh." }).default(1),
  },
  { text: "Gratuitous ARP: how the network learns which director holds the VIP." },
);

export const vrrpSchema = section(
  {
    virtualRouterId: whole(1, 255, {
      text: "VRRP virtual router id. Must be the same on both directors and differ from any other VRRP on the segment.",
    }).default(51),
    version: z
      .union([z.literal(2), z.literal(3)], "2 or 3")
      .register(about, {
        form: "2 or 3",
        text: "VRRP version.",
        why: "3 allows adverts faster than one a second. 2 has a password (plain text on the wire), 3 has none.",
      })
      .default(3),
    advertInterval: hundredths(0.01, 255, {
      text: "Time between two adverts of the director that holds the VIP.",
      why: "The other one takes over after about three of them: 0.1 gives an outage of 0.3 to 0.5 s, 1 gives 3 to 4 s. Version 2 takes whole seconds only, version 3 at most 40.",
    }).default(0.1),
    unicast: flag({
      text: "Adverts go straight to the other director instead of to the multicast group.",
      why: "Works where multicast is filtered or absent, and no third machine on the segment can join in.",
    }).default(true),
    label: text((value) => /^[A-Za-z0-9_-]{1,13}$/.test(value), "at most 13 letters, digits, '_' or '-'", {
      text: "The VIP shows up on the director as `<interface>:<label>`.",
      why: "Old tools (`ifconfig`) show labelled addresses only, and a label says at a glance whose address it is. The kernel allows 15 characters in all.",
    }).default("vip"),
    preempt: flag({
      text: "Whether the director with the higher priority takes the VIP back when it returns.",
      why: "Off: each move of the VIP is a short outage, and the director that serves is as good as the other.",
    }).default(false),
    authentication: choice(["none", "PASS"], {
      text: "PASS sends the secret `vrrpPassword` in every advert. Version 2 only.",
      why: "It keeps out misconfigured neighbours, not attackers: it travels in clear.",
    }).default("none"),
    garp: garpSchema.prefault({}),
  },
  { text: "VRRP: which director holds the VIP." },
);

// --- https ---------------------------------------------------------------------------------------------------------

/** Port of a real server on which nginx tells the directors that it lives. */
export const DOOR_HEALTH_PORT = 7862;

/** Port from which clients are sent to HTTPS. */
export const REDIRECT_PORT = 80;

/** Requests a second and connections at a time that one client address has on one real server, when nothing is said. */
export const defaultLimits = { requestsPerSecond: 200, connections: 500 } as const;

/** Seconds for which a browser remembers that the service speaks HTTPS, when nothing else than HTTPS is offered. */
export const defaultHsts = 63_072_000;

export const httpsSchema = section(
  {
    enabled: flag({
      text: "Whether nginx on every real server answers HTTPS, at a virtual service of its own.",
      why: "LVS passes packets on and ends no TLS. On the real servers it scales with them, and the client's address stays what it is.",
    }).default(false),
    serverName: text(
      (value) => isDnsName(value) || isHostAddress(value),
      "a DNS name in lower case such as speech.example.org, or an IPv4 address",
      {
        text: "What clients call the service. The certificate must be for it; the redirect leads to it.",
        required: "with `enabled`",
      },
    ).optional(),
    port: port({ text: "Port of HTTPS, on the VIP and on every real server." }).default(443),
    certificate: choice(["config", "selfSigned"], {
      text: "Where the certificate comes from. config: the secrets `tlsCertificate` and `tlsKey`. selfSigned: made by this program (Pulumi's provider `tls`); browsers warn of it.",
      why: "A certificate that is renewed elsewhere comes in by `pulumi config set` and `pulumi up`, which restarts nothing.",
    }).default("config"),
    redirect: flag({
      text: "Whether port 80 of the VIP sends clients to HTTPS.",
    }).default(true),
    plainPort: choice(["open", "closed"], {
      text: "Whether the VIP serves `port` without TLS too. closed: only the directors and the real servers reach that port of a real server.",
      why: "Close it in a second deployment: with the first one clients learn the new address.",
    }).default("open"),
    requestsPerSecond: whole(0, 100_000, {
      text: "Requests a second that one client address may send to one real server; ten times as many may come at once. More are answered with 429. 0 = any number.",
      unit: "requests/s",
      why: "A page takes some hundred requests at once, and a school may stand behind one address.",
      derived: "200; 0 with forwarding NAT, where every client has the director's address",
    }).optional(),
    connections: whole(0, 65_535, {
      text: "Connections (with HTTP/2: requests under way) that one client address may hold to one real server. 0 = any number.",
      unit: "connections",
      derived: "500; 0 with forwarding NAT",
    }).optional(),
    uploadLimit: whole(1, 1024, {
      text: "Largest request. A longer one is answered with 413 before it is read.",
      unit: "MiB",
      why: "A recording may have 10 MiB.",
    }).default(12),
    hsts: whole(0, 63_072_000, {
      text: "How long a browser that has been here refuses to use the name without HTTPS (HSTS). 0 = not at all.",
      unit: "s",
      why: "It holds for all ports of the name, and cannot be taken back from browsers that have heard it.",
      derived: "two years where `plainPort` is closed and the certificate is not self-signed, else 0",
    }).optional(),
  },
  { text: "HTTPS for clients: nginx on every real server, behind the directors." },
);

// --- firewall ------------------------------------------------------------------------------------------------------

export const firewallSchema = section(
  {
    enabled: flag({
      text: "Whether every machine (but the client of the verification) drops what its role does not need: clients reach the service's ports, the machines of the cluster each other's, `admins` SSH.",
      why: "Off, unless you say so: it would close ports of other programs on your machines as well.",
    }).default(false),
    admins: list(
      text(isNetwork, "an IPv4 network or address such as 10.0.0.0/8", {
        text: "A network in CIDR notation, or an address.",
      }),
      {
        text: "From where SSH is let in. A deployment that would shut out somebody who is connected by SSH at that moment, such as itself, fails on that machine and puts the old rules back.",
        form: "a list of networks",
        derived: "everywhere, and a preview warns of it",
      },
    ).default(["0.0.0.0/0"]),
    openPorts: list(port({ text: "A TCP port." }), {
      text: "TCP ports of other programs on these machines that stay open for everybody.",
      form: "a list of ports",
    }).default([]),
  },
  { text: "The packet filter of all machines (nftables)." },
);

// --- service -------------------------------------------------------------------------------------------------------

const outputsSchema = section(
  {
    days: whole(0, 36_500, {
      text: "Results that nobody asked for in so many days are removed from the share. 0 = never.",
      unit: "days",
    }).default(0),
    quota: whole(0, 1_000_000, {
      text: "Size of all results beyond which the least recently used are removed. 0 = any.",
      unit: "GiB",
      why: "Results that fill the share keep everybody from making new ones.",
    }).default(0),
    shared: flag({
      text: "Whether everybody is shown what everybody made, on the page and at `/v1/results`; otherwise each their own.",
    }).default(false),
  },
  { text: "What is kept at /root/CosyVoice/outputs, and who sees it." },
);

export const serviceSchema = section(
  {
    engine: choice(["cpu", "cosyvoice"], {
      text: "What speaks. cpu: espeak-ng, needs no GPU and no weights. cosyvoice: CosyVoice3, on a GPU; `app` says what is installed for it.",
    }).default("cpu"),
    user: userName({
      text: "Unprivileged user the service runs as. It is made on every real server, and on the storage machine.",
    }).default("cosyvoice"),
    uid: whole(100, 59_999, {
      text: "Its user id and group id, the same on every machine.",
      why: "NFS compares numbers: files that one node writes are the other nodes' own.",
    }).default(7860),
    enableQueue: flag({
      text: "Whether `run.sh` passes `--enable-queue`: requests wait their turn instead of being refused while one is spoken.",
    }).default(true),
    queueLength: whole(1, 10_000, {
      text: "Requests that may wait on one node. One more is answered with 503.",
      unit: "requests",
    }).default(20),
    peers: flag({
      text: "Whether the real servers work as one: any of them answers for any visitor's session, and what waits at one is spoken by the next that is free. Needs the secret `peerKey`, by which they know each other; without it each is alone, and a preview says so.",
      why: "A school behind one address is one client to mh and would wait at one GPU; and a drain or another scheduler would lose sessions. They talk to each other on `port`.",
    }).default(true),
    timeLimit: seconds(1, 3600, {
      text: "Longest time one synthesis may take before it is given up.",
      why: "An engine that hangs would otherwise hold the queue for ever. The longest text, 4096 characters, is ten minutes of audio and more: a slow GPU may need more for it.",
    }).default(60),
    outputs: outputsSchema.prefault({}),
    maxUnavailable: whole(1, 100, {
      text: "How many real servers a deployment may take out of the pool at the same time. Those that do not serve anyway are changed at once.",
      unit: "real servers",
      why: "1 keeps the most capacity; a large fleet is through sooner with more.",
    }).default(1),
    drainLimit: seconds(1, 86_400, {
      text: "How long a real server that is taken out of the pool may go on with what it has in its queue, before it is changed all the same.",
      why: "A full queue of long texts takes minutes, and cutting it off would fail every request in it.",
    }).default(300),
    release: text((value) => /^[0-9a-f]{16}$/.test(value), "the 16 hexadecimal digits of a release", {
      text: "A release to run that is already on the real servers, instead of the one in `app/`. `scripts/cluster rollback` sets it.",
      derived: "the release in `app/`",
    }).optional(),
    environment: z
      .record(
        z
          .string()
          .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of an environment variable: letters, digits and '_'"),
        z
          .string('a text on one line (numbers and true/false in quotes: "1")')
          .refine(
            (value) => value.length <= 4096 && !/\p{Cc}/u.test(value),
            'a text on one line (numbers and true/false in quotes: "1")',
          ),
        "names and values",
      )
      .register(about, {
        form: "names and values",
        text: "More environment variables for the service, name: value. Not for secrets: they are readable in the state and on the machine.",
      })
      .default({}),
  },
  { text: "The speech service on the real servers." },
);

// --- engine --------------------------------------------------------------------------------------------------------

/** The commit of upstream that app/engine/cosyvoice.in and the app's adapter were made for. */
export const pinnedCommit = "ace7c47f41bbd303aa6bf1ea80e6f9fbd595cd40";

/** The version of Python that app/engine/cosyvoice.txt was made for. */
export const lockedPython = "3.11";

/** Whether a text is a commit and not the name of one, which may come to mean another. */
export function isCommit(ref: string): boolean {
  return /^[0-9a-f]{40}$/.test(ref);
}

const remoteDirectory = "an absolute path on the real servers, made of letters, digits and . _ - + = , @";

function directoryOnRealServers(words: About) {
  return text(isPlainPath, remoteDirectory, words);
}

/** A git URL without a password in it, or a path. scp's form (git@host:path) is left out: it looks like a path. */
function isSource(value: string): boolean {
  return (
    isPlainPath(value) ||
    /^(https|ssh):\/\/([a-z_][a-z0-9_-]*@)?[A-Za-z0-9.-]+(:[0-9]{1,5})?(\/[A-Za-z0-9_@+=,.~-]+)+\/?$/.test(
      value,
    )
  );
}

function isBranchOrTag(value: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_./-]{0,199}$/.test(value) && !/\.\.|\/\/|[./]$/.test(value);
}

const modelSchema = section(
  {
    hub: choice(["huggingface", "modelscope"], {
      text: "Where the weights are downloaded from, by every real server itself.",
    }).default("huggingface"),
    id: text(
      (value) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/.test(value),
      "the name of a model as OWNER/NAME",
      { text: "The model's name at the hub." },
    ).default("FunAudioLLM/Fun-CosyVoice3-0.5B-2512"),
    revision: text(isBranchOrTag, "a branch, a tag or a commit of the hub", {
      text: "Which state of the model is downloaded.",
      why: "A branch is read once: what is on a real server stays until another key of this section changes. With `checksums` it does not matter which one is named.",
      derived: "main at huggingface, master at modelscope",
    }).optional(),
    endpoint: text(
      (value) => /^https?:\/\/[A-Za-z0-9.-]+(:[0-9]{1,5})?(\/[A-Za-z0-9_.~-]+)*$/.test(value),
      "an address such as https://hub.example.org",
      {
        text: "A mirror that answers as the hub does. Without `checksums` its word is taken for the hashes.",
        derived: "the hub's own",
      },
    ).optional(),
    directory: directoryOnRealServers({
      text: "A directory with the weights, for real servers that reach no hub: `checksums` is needed with it. They are copied from there once, and the directory is not used after that.",
      derived: "none: they are downloaded",
    }).optional(),
    checksums: localFile({
      text: "A file with the SHA-256 of every file of the model, as sha256sum writes it. What it names is fetched and nothing else; what differs is refused.",
      why: "It pins the weights: without it the real servers take what the hub has and compare it with the hashes that the hub states. Every real server keeps such a list beside the weights: [engine.md](engine.md) says where.",
      derived: "none: a preview says that the weights are not pinned",
      required: "with `directory`",
    }).optional(),
  },
  { text: "The weights. They are checked by their hashes, always." },
);

export const appSchema = section(
  {
    source: text(isSource, "a git URL (https://... or ssh://..., without a password) or an absolute path", {
      text: "Where CosyVoice's source comes from: the URL of a git repository, or the path of a checkout with its submodules on every real server.",
    }).default("https://github.com/FunAudioLLM/CosyVoice.git"),
    ref: text(
      (value) => isCommit(value) || isBranchOrTag(value),
      "a commit of 40 hexadecimal digits, a branch or a tag",
      {
        text: "Which state of it runs. A branch or a tag is looked up once for each preview and deployment, by this computer, so that all real servers get the same commit and a preview shows it.",
        why: "The default is the commit that the service's adapter and the locked packages were tested with.",
      },
    ).default(pinnedCommit),
    requirements: localFile({
      text: "Another lock file for the engine's environment, with hashes, in the format of `app/engine/cosyvoice.txt`.",
      why: "TensorRT and vLLM need packages that the committed one does not have: see [engine.md](engine.md).",
      derived: "app/engine/cosyvoice.txt",
    }).optional(),
    python: text((value) => /^3\.1[0-3]$/.test(value), "3.10, 3.11, 3.12 or 3.13, in quotes", {
      text: "Version of Python that the lock file was made for.",
    }).default(lockedPython),
    environment: choice(["auto", "venv", "conda", "uv"], {
      text: "Where that Python comes from. venv: the machine's own. conda: made by the conda, mamba or micromamba that is there. uv: by the uv that is there. auto: the first of these that works. Packages are the lock file's with each of them.",
    }).default("auto"),
    wheels: directoryOnRealServers({
      text: "A directory with all packages of both environments, the service's and the engine's, for real servers that reach no package index. `scripts/wheelhouse` fills one.",
      derived: "none: from the package index that pip on the real servers is configured for",
    }).optional(),
    model: modelSchema.prefault({}),
    gpuMemory: whole(1, 1024, {
      text: "Memory that the GPU must have at the least, looked at before anything is touched.",
      unit: "GiB",
    }).default(8),
    fp16: flag({ text: "Half precision: less memory of the GPU." }).default(false),
    tensorrt: flag({
      text: "Part of the model as a TensorRT engine, built for its GPU by every real server when it first starts (minutes).",
    }).default(false),
    vllm: flag({ text: "The language model by vLLM." }).default(false),
  },
  {
    text: "The engine of `service.engine: cosyvoice`: CosyVoice's source, its Python environment and its weights. Of a cluster that speaks by the cpu only `wheels` is read. How it is installed: [engine.md](engine.md).",
  },
);

// --- verification --------------------------------------------------------------------------------------------------

const clientSchema = section(machineShape("client"), {
  text: "A machine from which the cluster is asked: on the directors' segment, and none of the others. It gets the verifier and nothing else.",
  derived:
    "the computer that deploys asks itself; it then needs a route to the VIP, and cannot see who answers ARP for it",
});

export const verificationSchema = section(
  {
    sentence: printable(500, { text: "What the cluster is asked to say." }).default(
      "The cluster is up, and every voice has been heard.",
    ),
    client: clientSchema.optional(),
    sourceAddresses: list(
      printable(40, {
        form: 'an IPv4 address or a range such as "192.168.1.200-192.168.1.249"',
        text: "An IPv4 address, or a range with both ends included.",
      }),
      {
        text: "Addresses that the client machine holds and asks from, at most 256 in all.",
        why: "mh and sh send one client address to one real server: seeing the whole pool takes many addresses. Ten per real server are enough.",
      },
    ).default([]),
    timeout: seconds(5, 3600, {
      text: "How long the whole verification may take before `up` fails with what is still missing.",
    }).default(120),
  },
  { text: "The last step of a deployment: the cluster is asked through the VIP, and must answer." },
);

// --- monitoring ----------------------------------------------------------------------------------------------------

const network = (words: About) =>
  text(
    (value) => isNetwork(value) && /\/[1-9]/.test(value),
    "a network such as 192.168.1.0/24, or one address as 192.168.1.7/32",
    words,
  );

const receiverName = (words: About) =>
  text(
    (value) => /^[a-z0-9][a-z0-9-]{0,31}$/.test(value),
    "lower-case letters, digits and '-', at most 32",
    words,
  );

const mailAddress = (words: About) =>
  text((value) => /^[^\s@<>,"]+@[A-Za-z0-9.-]+$/.test(value), "one e-mail address", words);

/** What an alert can be sent to. */
export const receiverKinds = ["webhook", "email", "slack", "dingtalk", "wecom"] as const;

const receiverSchema = section(
  {
    name: receiverName({ text: "Name of the receiver, for `monitoring.routing` and for its secret." }),
    kind: choice(receiverKinds, {
      text: "What it is. webhook: Alertmanager's JSON is posted to a URL. email: by an SMTP server. slack: an incoming webhook. dingtalk and wecom: a group robot's webhook.",
    }),
    url: printable(2000, {
      text: "URL of a webhook, where it is no secret. One with a token in it goes into the secret `receiverSecrets`.",
      required: "for kind webhook, unless the secret has it",
    }).optional(),
    to: mailAddress({ text: "Who gets the mail.", required: "for kind email" }).optional(),
    from: mailAddress({ text: "Its sender.", required: "for kind email" }).optional(),
    server: text((value) => /^[A-Za-z0-9.-]+:\d{1,5}$/.test(value), 'an SMTP server as "host:port"', {
      text: "SMTP server. It has to offer STARTTLS.",
      required: "for kind email",
    }).optional(),
    user: printable(200, {
      text: "User of the SMTP server; the password is the receiver's secret.",
      derived: "none: the server takes mail without a login",
    }).optional(),
  },
  { text: "Somebody who is told. Which other keys it takes depends on `kind`." },
);

const routes = (words: About) =>
  list(receiverName({ text: "Name of a receiver." }), { form: "a list of receivers' names", ...words });

export const monitoringSchema = section(
  {
    enabled: flag({
      text: "Whether the cluster is watched. Off, everything that watches is taken from the machines again.",
    }).default(true),
    name: machineName({
      text: "Name of the machine that watches: one of its own, for what watches must not fail with what it watches.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    address: address({
      text: "Its address. It must be able to reach the VIP as a client does.",
      required: "when `enabled`, with platform hosts",
    }).optional(),
    hostKey: hostKey("the monitoring machine").optional(),
    ssh: machineSshSchema.optional(),
    adminNetworks: list(network({ text: "A network." }), {
      text: "Networks from which Prometheus, Alertmanager and Grafana can be opened. The first two ask for a password only when the secret `monitoringPassword` is set.",
      why: "None: they listen on the machine itself only, and `ssh -L 9090:127.0.0.1:9090 MACHINE` leads there.",
    }).default([]),
    metrics: section(
      {
        interval: whole(5, 120, {
          text: "Time between two looks at every machine.",
          unit: "s",
          why: "What happens in between is seen late; half of it doubles the disk that is needed.",
        }).default(15),
        retention: whole(1, 3650, { text: "How long measurements are kept.", unit: "days" }).default(30),
        disk: whole(1, 100_000, {
          text: "Disk that they may take; when it is used up the oldest go first. It must be enough for `retention`, and the machine must have it.",
          unit: "GB",
        }).default(10),
      },
      { text: "Measurements." },
    ).prefault({}),
    logs: section(
      {
        enabled: flag({
          text: "Whether the machines' logs are brought together (docs/monitoring.md says which). It takes a collector on every machine, and Loki on the one that watches.",
        }).default(false),
        retention: whole(1, 3650, { text: "How long logs are kept.", unit: "days" }).default(14),
        disk: whole(1, 100_000, {
          text: "Disk that they may take. What comes faster for long than fits is not taken in, and an alert says so.",
          unit: "GB",
        }).default(10),
      },
      { text: "Logs." },
    ).prefault({}),
    grafana: section(
      {
        enabled: flag({
          text: "Whether the monitoring machine has Grafana, with the dashboards. Its user admin logs in with the secret `monitoringPassword`.",
        }).default(false),
      },
      { text: "Pictures." },
    ).prefault({}),
    programs: programsSchema,
    ports: section(
      {
        prometheus: port({ text: "Prometheus, on the monitoring machine." }).default(9090),
        alertmanager: port({ text: "Alertmanager, on the monitoring machine." }).default(9093),
        nodeExporter: port({
          text: "What a machine tells of itself, on every machine; open to the monitoring machine only.",
        }).default(9100),
        grafana: port({ text: "Grafana, on the monitoring machine." }).default(3000),
        loki: port({
          text: "Where logs go, on the monitoring machine; open to the cluster's machines only.",
        }).default(3100),
        collector: port({
          text: "What the collector of logs tells of itself, on every machine; open to the monitoring machine only.",
        }).default(8888),
      },
      { text: "TCP ports." },
    ).prefault({}),
    receivers: list(receiverSchema, {
      text: "Who is told of what is wrong.",
      why: "None: alerts are seen in Alertmanager only, and a preview says so.",
    }).default([]),
    routing: section(
      {
        critical: routes({
          text: "Who is told of what users notice, or will soon.",
          derived: "every receiver",
        }).optional(),
        warning: routes({ text: "Who is told of all else.", derived: "every receiver" }).optional(),
        watchdog: routes({
          text: "Who is told, every five minutes, that the way to here works: something that makes a noise when that stops coming.",
        }).default([]),
      },
      { text: "Which alert goes where." },
    ).prefault({}),
  },
  {
    text: "Measurements, alerts and who gets them.",
    derived: "nothing is watched, and a preview says so",
  },
);

// --- the whole -----------------------------------------------------------------------------------------------------

export const configSchema = section(
  {
    platform: choice(["hosts", "aws"], {
      text: "Where the machines come from. hosts: the list in this file, reached over SSH. aws: EC2, made by this program (docs/aws.md).",
    }),
    vip: address({
      text: "The virtual address that clients use. It belongs to no machine; keepalived puts it on one director at a time. On aws it lies outside the VPC's range, since a route leads to it; with `aws.exposure: internet` it is a free address of `aws.network.publicCidr`.",
    }),
    port: port({ text: "Port of the service, on the VIP and on every real server." }).default(7860),
    interface: networkInterface({
      text: "Network interface that holds a machine's address and, on the directors, the VIP. A director may differ by an `interface` of its own.",
      why: "It is written into keepalived.conf, so it must be known before a machine is asked.",
      derived: "eth0; on aws ens5, as the images of Debian and Ubuntu call it",
    }).optional(),
    ssh: sshSchema.prefault({}),
    directors: list(directorSchema, {
      text: "The pair of directors.",
      form: "a list of exactly 2 directors",
      required: "with platform hosts",
    }).optional(),
    realServers: list(realServerSchema, {
      text: "The pool, at least one. The order matters to mh: both directors get it as written here.",
      form: "a list of real servers",
      required: "with platform hosts",
    }).optional(),
    storage: storageSchema.optional(),
    loadBalancer: loadBalancerSchema.prefault({}),
    vrrp: vrrpSchema.prefault({}),
    https: httpsSchema.prefault({}),
    firewall: firewallSchema.prefault({}),
    service: serviceSchema.prefault({}),
    app: appSchema.prefault({}),
    verification: verificationSchema.prefault({}),
    monitoring: monitoringSchema.optional(),
    aws: awsSchema.optional(),
  },
  { text: "Keys of a stack file, each under `cosyvoice-lvs:`." },
);

/** Keys whose values are secrets: set with `pulumi config set --secret`, never part of a {@link ClusterConfig}. */
export const secrets = {
  vrrpPassword: {
    text: "The password of `vrrp.authentication: PASS`, 1 to 8 characters (keepalived ignores what is longer).",
  },
  peerKey: {
    text: "The key by which the real servers know each other (see `service.peers`), 32 to 128 letters, digits or . _ + / = -, such as `openssl rand -hex 32` prints. To change it without a gap: set `OLD,NEW`, deploy, set `NEW,OLD`, deploy, set `NEW`, deploy: the first is signed with, both are taken. A change restarts nothing.",
  },
  tlsCertificate: {
    text: "The certificate of `https.certificate: config` in PEM, followed by those of its issuers up to one that clients know: `pulumi config set --secret tlsCertificate < fullchain.pem`. A change is one deployment, which restarts nothing.",
  },
  tlsKey: {
    text: "Its private key in PEM, without a passphrase: `pulumi config set --secret tlsKey < privkey.pem`.",
  },
  apiKeys: {
    text: "Keys for programs, with commas between them, each of 20 to 128 letters, digits or . _ - as `openssl rand -hex 32` prints. With it, HTTPS answers only those who send `Authorization: Bearer KEY` or, with `httpUsers`, log in; the deployment itself asks with the first one. Needs `https.plainPort: closed`.",
  },
  httpUsers: {
    text: "People who may log in with a browser (HTTP basic authentication), a line each: `NAME:HASH`, with the hash that `openssl passwd -6` prints. Needs `apiKeys`.",
  },
  receiverSecrets: {
    text: "What must not be read by others about `monitoring.receivers`, by their names: `pulumi config set --secret --path receiverSecrets.NAME VALUE`. The URL of a webhook, of slack, dingtalk or wecom (with dingtalk, after a blank, the secret that the robot's calls are signed with); the SMTP password of email.",
  },
  monitoringPassword: {
    text: "The password by which Prometheus, Alertmanager and Grafana let `admin` in, 12 to 72 letters, digits or . _ + / = -, such as `openssl rand -hex 16` prints. Without it the first two ask for none.",
  },
  sshPrivateKey: {
    text: "Private key to log in with, as text. Instead of `ssh.privateKeyFile`, for pipelines that have no file.",
  },
} as const satisfies Record<string, About>;

/** A secret's key. */
export type SecretKey = keyof typeof secrets;

/** The secrets' keys. */
export const secretKeys = Object.keys(secrets) as readonly SecretKey[];

/** Every top-level key a stack may set, secrets included. */
export const configKeys: readonly string[] = [...Object.keys(configSchema.shape), ...secretKeys];

/** The stack file as it is after the schema, before {@link ClusterConfig} is made of it. */
export type ParsedConfig = z.output<typeof configSchema>;

// --- what the rest of the program gets -------------------------------------------------------------------------------

/** What a machine is there for. */
export type MachineRole = "director" | "realServer" | "storage" | "client" | "monitor";

/** A machine, with everything said that the stack file left to defaults. */
export interface MachineConfig {
  readonly name: string;
  readonly role: MachineRole;
  readonly address: string;
  /** Pinned host key, type and base64 without comment. `undefined`: to be looked up in `ssh.knownHostsFile`. */
  readonly hostKey: string | undefined;
  readonly ssh: { readonly user: string; readonly port: number };
}

/** A director. */
export interface DirectorConfig extends MachineConfig {
  readonly role: "director";
  /** Interface that holds `address` and, at times, the VIP. */
  readonly interface: string;
  readonly priority: number;
}

/** A real server. */
export interface RealServerConfig extends MachineConfig {
  readonly role: "realServer";
  readonly weight: number;
}

/** A machine that this program makes the NFS server. */
export interface StorageMachineConfig extends MachineConfig {
  readonly kind: "machine";
  readonly role: "storage";
  /** Exported directory. */
  readonly path: string;
  readonly mountOptions: string;
}

/** An NFS export that is there already. */
export interface StorageExportConfig {
  readonly kind: "export";
  /** `host:/path` */
  readonly export: string;
  readonly mountOptions: string;
}

/** The machine from which a deployment is verified. */
export interface ClientConfig extends MachineConfig {
  readonly role: "client";
}

/** One of the four ways to check a real server. */
export type CheckConfig = z.output<typeof checkSchema>;

/** Options of IPVS. */
export interface LoadBalancerConfig
  extends Omit<z.output<typeof loadBalancerSchema>, "sorryServer" | "connectionSync"> {
  readonly connectionSync: boolean;
  readonly sorryServer: { readonly address: string; readonly port: number } | undefined;
}

/** Options of VRRP. */
export type VrrpConfig = z.output<typeof vrrpSchema>;

/** HTTPS for clients, where it is on. */
export interface HttpsConfig {
  readonly serverName: string;
  readonly port: number;
  readonly certificate: "config" | "selfSigned";
  readonly redirect: boolean;
  readonly plainPort: "open" | "closed";
  /** 0: any number. */
  readonly requestsPerSecond: number;
  /** 0: any number. */
  readonly connections: number;
  /** MiB. */
  readonly uploadLimit: number;
  /** Seconds. 0: not said. */
  readonly hsts: number;
}

/** Options of the speech service. */
export type ServiceConfig = z.output<typeof serviceSchema>;

/** Options of the engine cosyvoice. */
export interface AppConfig extends Omit<z.output<typeof appSchema>, "model"> {
  readonly model: ModelConfig;
}

/** Where the weights come from: a hub, or a directory on the real servers. */
export type ModelConfig =
  | {
      readonly kind: "hub";
      readonly hub: "huggingface" | "modelscope";
      readonly id: string;
      readonly revision: string;
      /** `undefined`: the hub's own. */
      readonly endpoint: string | undefined;
      /** As written in the stack file, `~` not expanded. */
      readonly checksums: string | undefined;
    }
  | {
      readonly kind: "directory";
      readonly directory: string;
      readonly id: string;
      readonly checksums: string;
    };

/** How to reach machines. */
export interface SshConfig {
  readonly user: string;
  readonly port: number;
  /** As written in the stack file, `~` not expanded. */
  readonly privateKeyFile: string | undefined;
  /** As written in the stack file, `~` not expanded. */
  readonly knownHostsFile: string | undefined;
  /** Seconds. */
  readonly connectTimeout: number;
  readonly jumpHost:
    | {
        readonly address: string;
        readonly port: number;
        readonly user: string;
        readonly hostKey: string | undefined;
      }
    | undefined;
}

/** How a deployment is verified. */
export interface VerificationConfig {
  readonly sentence: string;
  readonly client: ClientConfig | undefined;
  /** Every address, ranges expanded. */
  readonly sourceAddresses: readonly string[];
  /** Seconds. */
  readonly timeout: number;
}

/** A share of Amazon EFS. What it is called is only known once it is there. */
export interface StorageEfsConfig {
  readonly kind: "efs";
}

/** Somebody who is told of alerts. What the keys mean depends on the kind, and the validator has seen to it. */
export type ReceiverConfig = z.output<typeof receiverSchema>;

/** How urgent an alert is. `watchdog` is the one that always comes. */
export type AlertSeverity = "critical" | "warning" | "watchdog";

/** The machine that watches, and what it does. */
export interface MonitoringConfig extends MachineConfig {
  readonly role: "monitor";
  readonly adminNetworks: readonly string[];
  readonly metrics: z.output<typeof monitoringSchema>["metrics"];
  readonly logs: z.output<typeof monitoringSchema>["logs"];
  readonly grafana: z.output<typeof monitoringSchema>["grafana"];
  readonly programs: z.output<typeof programsSchema>;
  readonly ports: z.output<typeof monitoringSchema>["ports"];
  readonly receivers: readonly ReceiverConfig[];
  /** Names of receivers, by what they are told of. */
  readonly routing: Readonly<Record<AlertSeverity, readonly string[]>>;
}

/** A cluster on either platform: valid, complete, every default filled in, no secrets. */
export interface ClusterConfig {
  readonly platform: "hosts" | "aws";
  readonly vip: string;
  readonly port: number;
  readonly ssh: SshConfig;
  readonly directors: readonly [DirectorConfig, DirectorConfig];
  readonly realServers: readonly RealServerConfig[];
  readonly storage: StorageMachineConfig | StorageExportConfig | StorageEfsConfig;
  readonly loadBalancer: LoadBalancerConfig;
  readonly vrrp: VrrpConfig;
  /** `undefined`: off. */
  readonly https: HttpsConfig | undefined;
  readonly firewall: z.output<typeof firewallSchema>;
  readonly service: ServiceConfig;
  readonly app: AppConfig;
  readonly verification: VerificationConfig;
  /** What is to be made; only on the platform `aws`. */
  readonly aws: AwsConfig | undefined;
  /** `undefined`: nothing is watched. */
  readonly monitoring: MonitoringConfig | undefined;
  /** Which secrets are set. Their text stays with Pulumi. */
  readonly secretsSet: Readonly<Record<SecretKey, boolean>>;
}

/** Whether the real servers pass sessions and jobs on to each other. */
export function peersOn({ service, secretsSet }: Pick<ClusterConfig, "service" | "secretsSet">): boolean {
  return service.peers && secretsSet.peerKey;
}

/** Every machine that is configured or used over SSH, directors first, in a stable order. */
export function machinesOf(config: ClusterConfig): readonly MachineConfig[] {
  const { directors, realServers, storage, verification, monitoring } = config;
  return [
    ...directors,
    ...realServers,
    ...(storage.kind === "machine" ? [storage] : []),
    ...(verification.client ? [verification.client] : []),
    ...(monitoring ? [monitoring] : []),
  ];
}

/** Those of them that are watched: all but the one that only asks. */
export function watchedMachines(config: ClusterConfig): readonly MachineConfig[] {
  return machinesOf(config).filter(({ role }) => role !== "client");
}
