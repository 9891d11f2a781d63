/** The section `loadBalancer`: IPVS and its health checks. */
import * as z from "zod";
import {
  type About,
  about,
  address,
  choice,
  flag,
  isPlainPath,
  port,
  seconds,
  section,
  text,
  whole,
} from "../leaves";

const delayLoop = seconds(1, 3600, {
  text: "Time between two checks of a real server.",
  why: "keepalived's own default of 60 s would leave a dead server in the pool for more than a minute.",
}).default(6);

const retry = whole(0, 100, {
  text: "How often a failed check is repeated before the real server is taken out of the pool.",
}).default(3);

const delayBeforeRetry = seconds(1, 3600, { text: "Pause before each of these attempts." }).default(3);

const connectTimeout = seconds(1, 3600, {
  text: "How long opening a connection may take.",
  why: "keepalived's own default is 5 s.",
}).default(3);

const checkPath = (words: About) =>
  text(
    (value) => /^\/[A-Za-z0-9_./?=&%+-]*$/.test(value),
    "a path that starts with '/', such as /readyz",
    words,
  );

const checkSchema = z
  .discriminatedUnion("kind", [
    section(
      {
        kind: z
          .literal("poller")
          .register(about, {
            text: "A small asynchronous program on each director asks every real server and tells keepalived through track files. The only kind that can tell *drain* (503: no new connections, open ones go on) from *dead*.",
          })
          .default("poller"),
        interval: seconds(0.1, 60, {
          text: "Time between two polls of a real server.",
          why: "A real server that dies is out of the pool after about `interval` x `failures` + `timeout`.",
        }).default(0.5),
        timeout: seconds(0.1, 60, {
          text: "How long an answer may take, connecting included.",
        }).default(0.8),
        failures: whole(1, 100, {
          text: "Failures in a row after which a real server counts as dead.",
          why: "One lost packet does not make a real server dead; a single 200 brings it back.",
        }).default(2),
        path: checkPath({
          text: "Path to request. 200 = serve, 503 = drain, any other answer or none = failure.",
        }).default("/readyz"),
      },
      { text: "`kind: poller` (the default)" },
    ),
    section(
      {
        kind: z.literal("tcp").register(about, {
          text: "keepalived opens a TCP connection. This does not notice a process that hangs with its socket open.",
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
          text: "keepalived requests a page. A draining real server (503) is taken out of the pool like a dead one.",
        }),
        path: checkPath({ text: "Path to request." }).default("/readyz"),
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
          text: "keepalived runs a program of yours: one process per real server and check, so it is not for hundreds of real servers.",
        }),
        script: text(isPlainPath, "the absolute path of a program on the directors, without arguments", {
          text: "The program. It must already be on both directors, owned by root and writable by nobody else. It is called with the address and the port of the real server. Exit code 0 = healthy, 1 = not healthy, 2 to 255 = healthy with that code minus 2 as the weight (so 2 = drain).",
        }),
        timeout: seconds(1, 3600, { text: "How long the program may run." }).default(5),
        retry,
        delayBeforeRetry,
        delayLoop,
      },
      { text: "`kind: misc`: keepalived's MISC_CHECK" },
    ),
  ])
  .register(about, { text: "How real servers are checked: one of four kinds." });

const sorryServerSchema = section(
  {
    address: address({ text: "Address of the sorry server." }),
    port: port({
      text: "Its port. With DR and TUN it must be the service's `port`, since they cannot rewrite it.",
      derived: "`port`",
    }).optional(),
  },
  {
    text: "A server that gets the traffic while the pool is down (see `quorum`). It is outside the pool, and this program does not configure it. With DR and TUN it must hold the VIP with ARP suppressed, as a real server does.",
  },
);

/** Every scheduler that can be chosen. */
export const schedulers = ["mh", "sh", "rr", "wrr", "lc", "wlc"] as const;

export const loadBalancerSchema = section(
  {
    forwarding: choice(["DR", "TUN", "NAT"], {
      text: "How a director forwards packets. DR: by rewriting the destination MAC address (directors and real servers must be on one layer-2 segment). TUN: in an IPIP tunnel (works across subnets). NAT: by rewriting addresses; real servers then see the director as their client, and replies go back through it.",
      why: "With DR and TUN the replies, which are nearly all of the bytes, do not pass through the director.",
    }).default("DR"),
    scheduler: choice(schedulers, {
      text: "How IPVS picks a real server for a new connection. mh (Maglev) and sh hash the client's address; rr, wrr, lc and wlc do not, and therefore need the secret `peerKey` or `persistence`.",
      why: "One visit to the page makes several connections, and all of them must reach the same process: directly, or passed on by another real server (`service.peers`). With mh both directors choose the same real server without exchanging anything, so connections survive a failover and little is passed on. With persistence the other director starts with an empty table.",
    }).default("mh"),
    persistence: whole(0, 2_678_400, {
      text: "How long a client keeps its real server after its last connection closed. 0 = off.",
      unit: "s",
      why: "Use 300 with rr, wrr, lc or wlc when the real servers do not pass sessions on to each other (`service.peers`). mh and sh need no persistence.",
    }).default(0),
    connectionSync: flag({
      text: "Whether the director with the VIP sends its connection table to the other one (IPVS's sync daemon, by multicast on `interface`).",
      why: "rr, wrr, lc and wlc decide by what happened before, so the other director cannot compute where a connection belongs. With the sync, open connections survive a failover. mh and sh do not need it. Where multicast is filtered it has no effect.",
      derived: "true with rr, wrr, lc and wlc on platform hosts, else false",
    }).optional(),
    dropUnderPressure: flag({
      text: "Whether a director that runs out of memory drops connections that have hardly begun, drops some packets and keeps half-open connections for a shorter time (IPVS's drop_entry, drop_packet and secure_tcp, each set to 1: active only while memory is short).",
      why: "A flood of connections from forged addresses fills the directors' tables (the real servers answer it with SYN cookies). This defence also hits honest clients, so it is off by default.",
    }).default(false),
    agentWeights: flag({
      text: "Whether a real server's weight follows its queue: the longer the queue, the smaller its share of new connections. Only with `wlc` or `wrr` and `check.kind: poller`.",
      why: "It gives a slow real server less work. With mh and sh a change of weights would move clients away from their sessions.",
    }).default(false),
    rampUp: seconds(0, 3600, {
      text: "With `agentWeights`: how long a real server that comes back takes to reach its full weight.",
      why: "wlc would otherwise send every new connection to the real server that has none yet.",
    }).default(30),
    quorum: whole(1, 1000, {
      text: "Least sum of the weights of healthy real servers with which the pool counts as up. Below it the `sorryServer` gets the traffic.",
    }).default(1),
    sorryServer: sorryServerSchema.optional(),
    check: checkSchema.prefault({}),
  },
  { text: "IPVS: forwarding, scheduling and health checks." },
);

/** One of the four ways to check a real server. */
export type CheckConfig = z.output<typeof checkSchema>;

/** Options of IPVS. */
export interface LoadBalancerConfig
  extends Omit<z.output<typeof loadBalancerSchema>, "sorryServer" | "connectionSync"> {
  readonly connectionSync: boolean;
  readonly sorryServer: { readonly address: string; readonly port: number } | undefined;
}
