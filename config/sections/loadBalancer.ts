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

const checkSchema = z
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

/** One of the four ways to check a real server. */
export type CheckConfig = z.output<typeof checkSchema>;

/** Options of IPVS. */
export interface LoadBalancerConfig
  extends Omit<z.output<typeof loadBalancerSchema>, "sorryServer" | "connectionSync"> {
  readonly connectionSync: boolean;
  readonly sorryServer: { readonly address: string; readonly port: number } | undefined;
}
