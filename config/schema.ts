/**
 * What a stack may configure: the shape, the bounds, the defaults, and for every key what it does, its unit and why it is
 * as it is. docs/configuration.md is generated from this file (`scripts/config-reference`), so the words here are the manual.
 *
 * What concerns more than one key lives in validate.ts.
 */
import * as z from "zod";
import { isUsableHostAddress, parseIPv4 } from "./addresses";

/** What the reference and the error messages say about a key. */
export interface About {
  /** What the key does. */
  readonly text: string;
  /** Why one would change it, or why the default is what it is. */
  readonly why?: string;
  /** Unit of the value, where it has one. */
  readonly unit?: string;
  /** What the value must look like, completing "write ...". */
  readonly form?: string;
  /** How the default comes about, where it depends on something else. */
  readonly derived?: string;
  /** When the key must be given although the schema alone does not demand it. */
  readonly required?: string;
}

/** Where {@link About} is kept, by schema. */
export const about = z.registry<About>();

// The error text of a leaf is the form it must have; load.ts makes "is not FORM" and "write FORM" of it.

function whole(min: number, max: number, words: About) {
  const form = `a whole number from ${min} to ${max}`;
  return z
    .number(form)
    .int(form)
    .min(min, form)
    .max(max, form)
    .register(about, { form, ...words });
}

function seconds(min: number, max: number, words: About) {
  const form = `a number of seconds from ${min} to ${max}`;
  return z
    .number(form)
    .min(min, form)
    .max(max, form)
    .register(about, { form, unit: "s", ...words });
}

/** Seconds that are counted in hundredths on the wire. */
function hundredths(min: number, max: number, words: About) {
  const form = `a number of seconds from ${min} to ${max}, in hundredths`;
  return (
    z
      .number(form)
      .min(min, form)
      .max(max, form)
      // Not multipleOf: 0.07 is no multiple of 0.01 in binary.
      .refine((value) => Math.abs(value * 100 - Math.round(value * 100)) < 1e-6, form)
      .register(about, { form, unit: "s", ...words })
  );
}

function text(accepts: (value: string) => boolean, form: string, words: About) {
  return z
    .string(form)
    .refine(accepts, form)
    .register(about, { form, ...words });
}

function flag(words: About) {
  const form = "true or false (without quotes)";
  return z.boolean(form).register(about, { form, ...words });
}

function choice<const T extends readonly [string, ...string[]]>(values: T, words: About) {
  const form = `one of ${values.join(", ")}`;
  return z.enum(values, form).register(about, { form, ...words });
}

const addressForm = "an IPv4 address such as 192.168.1.101";

function address(words: About) {
  return text(
    (value) => {
      const parsed = parseIPv4(value);
      return parsed !== undefined && isUsableHostAddress(parsed);
    },
    addressForm,
    words,
  );
}

function machineName(words: About) {
  return text(
    (value) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value),
    "a DNS label: lower-case letters, digits and '-', at most 63, neither starting nor ending with '-'",
    words,
  );
}

function port(words: About) {
  return whole(1, 65535, words);
}

function networkInterface(words: About) {
  return text(
    (value) => /^[A-Za-z0-9_.-]{1,15}$/.test(value) && value !== "." && value !== "..",
    "the name of a network interface such as eth0, at most 15 characters",
    words,
  );
}

/** A path that needs no quoting in any of the texts it is written into, and that means one place only. */
export function isPlainPath(value: string): boolean {
  return (
    /^(\/[A-Za-z0-9_@+=,.-]+)+$/.test(value) &&
    !value.split("/").some((part) => part === "." || part === "..")
  );
}

// Not ssh-rsa: the command plugin offers a pinned RSA key with SHA-1 signatures only, which OpenSSH refuses since 8.8.
const hostKeyPattern =
  /^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{40,}={0,2}( [\x20-\x7e]*)?$/;

function hostKey(whose: string) {
  return text(
    (value) => hostKeyPattern.test(value),
    'a public key as in /etc/ssh/ssh_host_ed25519_key.pub, such as "ssh-ed25519 AAAAC3Nza..."',
    {
      text: `Public SSH host key of ${whose}. A connection to a machine that shows another key is refused.`,
      why: "Without it anybody on the path could pose as the machine and be handed root's commands.",
      derived: "looked up in `ssh.knownHostsFile`",
      required: "unless `ssh.knownHostsFile` is set",
    },
  );
}

function userName(words: About) {
  return text(
    (value) => /^[a-z_][a-z0-9_-]{0,30}$/.test(value),
    "the name of a Linux user: lower-case letters, digits, '_' and '-', at most 31",
    words,
  );
}

function localFile(words: About) {
  // The text ends up in an OpenSSH config, inside double quotes.
  return text(
    (value) => /^[^\0\r\n"\\]+$/.test(value),
    "the path of a file on this computer (~ is your home; no quotes or backslashes)",
    words,
  );
}

function printable(maxLength: number, words: About) {
  return text(
    (value) => value.trim() !== "" && value.length <= maxLength && !/\p{Cc}/u.test(value),
    `a text of 1 to ${maxLength} characters on one line`,
    words,
  );
}

function section<T extends z.core.$ZodLooseShape>(shape: T, words: About) {
  return z.strictObject(shape).register(about, words);
}

function list<T extends z.core.SomeType>(element: T, words: About) {
  return z.array(element).register(about, { form: "a list", ...words });
}

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

// --- service -------------------------------------------------------------------------------------------------------

export const serviceSchema = section(
  {
    engine: choice(["cpu", "cosyvoice"], {
      text: "What speaks. cpu: espeak-ng, needs no GPU and no weights. cosyvoice: CosyVoice3.",
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
      why: "An engine that hangs would otherwise hold the queue for ever.",
    }).default(120),
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
    (value) => {
      const [address = "", length = "", ...more] = value.split("/");
      return more.length === 0 && parseIPv4(address) !== undefined && /^([1-9]|[12]\d|3[0-2])$/.test(length);
    },
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
      required: "when `enabled`",
    }).optional(),
    address: address({
      text: "Its address. It must be able to reach the VIP as a client does.",
      required: "when `enabled`",
    }).optional(),
    hostKey: hostKey("the monitoring machine").optional(),
    ssh: machineSshSchema.optional(),
    adminNetworks: list(network({ text: "A network." }), {
      text: "Networks from which Prometheus and Alertmanager can be opened. Neither asks for a password.",
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
    ports: section(
      {
        prometheus: port({ text: "Prometheus, on the monitoring machine." }).default(9090),
        alertmanager: port({ text: "Alertmanager, on the monitoring machine." }).default(9093),
        nodeExporter: port({
          text: "What a machine tells of itself, on every machine; open to the monitoring machine only.",
        }).default(9100),
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

// --- aws -----------------------------------------------------------------------------------------------------------

export const awsSchema = section(
  {
    region: text(
      (value) => /^[a-z]{2}(-[a-z]+)+-\d$/.test(value),
      "the name of an AWS region such as eu-central-1",
      {
        text: "Region the machines are made in.",
      },
    ),
    realServers: whole(1, 200, { text: "Number of GPU machines.", unit: "machines" }).default(3),
    instanceType: text(
      (value) => /^[a-z0-9-]+\.[a-z0-9-]+$/.test(value),
      "an EC2 instance type such as g5.xlarge",
      {
        text: "Instance type of the real servers.",
        why: "g4dn.xlarge (16 GB of GPU memory) is the smallest that fits the model.",
      },
    ).default("g5.xlarge"),
  },
  { text: "What the platform aws needs. The platform itself is not there yet." },
);

// --- the whole -----------------------------------------------------------------------------------------------------

export const configSchema = section(
  {
    platform: choice(["hosts", "aws"], {
      text: "Where the machines come from. hosts: the list in this file, reached over SSH. aws: EC2 (not there yet).",
    }),
    vip: address({
      text: "The virtual address that clients use. It belongs to no machine; keepalived puts it on one director at a time.",
    }),
    port: port({ text: "Port of the service, on the VIP and on every real server." }).default(7860),
    interface: networkInterface({
      text: "Network interface that holds a machine's address and, on the directors, the VIP. A director may differ by an `interface` of its own.",
      why: "It is written into keepalived.conf, so it must be known before a machine is asked.",
    }).default("eth0"),
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
    service: serviceSchema.prefault({}),
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
  receiverSecrets: {
    text: "What must not be read by others about `monitoring.receivers`, by their names: `pulumi config set --secret --path receiverSecrets.NAME VALUE`. The URL of a webhook, of slack, dingtalk or wecom (with dingtalk, after a blank, the secret that the robot's calls are signed with); the SMTP password of email.",
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

/** Options of the speech service. */
export type ServiceConfig = z.output<typeof serviceSchema>;

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

/** Somebody who is told of alerts. What the keys mean depends on the kind, and the validator has seen to it. */
export type ReceiverConfig = z.output<typeof receiverSchema>;

/** How urgent an alert is. `watchdog` is the one that always comes. */
export type AlertSeverity = "critical" | "warning" | "watchdog";

/** The machine that watches, and what it does. */
export interface MonitoringConfig extends MachineConfig {
  readonly role: "monitor";
  readonly adminNetworks: readonly string[];
  readonly metrics: z.output<typeof monitoringSchema>["metrics"];
  readonly ports: z.output<typeof monitoringSchema>["ports"];
  readonly receivers: readonly ReceiverConfig[];
  /** Names of receivers, by what they are told of. */
  readonly routing: Readonly<Record<AlertSeverity, readonly string[]>>;
}

/** A cluster on the platform `hosts`: valid, complete, every default filled in, no secrets. */
export interface ClusterConfig {
  readonly platform: "hosts";
  readonly vip: string;
  readonly port: number;
  readonly ssh: SshConfig;
  readonly directors: readonly [DirectorConfig, DirectorConfig];
  readonly realServers: readonly RealServerConfig[];
  readonly storage: StorageMachineConfig | StorageExportConfig;
  readonly loadBalancer: LoadBalancerConfig;
  readonly vrrp: VrrpConfig;
  readonly service: ServiceConfig;
  readonly verification: VerificationConfig;
  /** `undefined`: nothing is watched. */
  readonly monitoring: MonitoringConfig | undefined;
  /** Which secrets are set. Their text stays with Pulumi. */
  readonly secretsSet: Readonly<Record<SecretKey, boolean>>;
}

/** A cluster on the platform `aws`. Valid, but nothing is built from it yet. */
export interface AwsConfig {
  readonly platform: "aws";
  readonly vip: string;
  readonly port: number;
  readonly aws: z.output<typeof awsSchema>;
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
