import type { Capture, Packet } from "./packets";

/** Who has a MAC that none of the captured machines has: something between two networks. */
export const ROUTER = "router";

/** One packet between two machines. */
export interface Hop {
  readonly from: string;
  readonly to: string;
  readonly packet: Packet;
  /** Whether it goes to the server rather than back. */
  readonly request: boolean;
  /** The captured machines that saw it: who sent it, who got it. */
  readonly seenBy: readonly string[];
}

/** A segment of the connection on its way: a hop for each network card that sends it. */
export interface Journey {
  /** Seconds since the first one, by the clock of the machine that saw the most; undefined when it did not see this one. */
  readonly after: number | undefined;
  readonly hops: readonly Hop[];
}

/** A packet that a machine saw, and what it is known by elsewhere. */
interface Sighting {
  readonly machine: string;
  readonly packet: Packet;
  readonly segment: string;
  /** Between which two network cards. */
  readonly link: string;
}

/**
 * Puts the captures of one connection together. A segment is known again by its flags and numbers, which nobody changes on the
 * way, and its hops are in order by who sends to whom: no two clocks have to agree. Pure.
 *
 * @param clientPort which tells the two directions apart
 */
export function journeys(captures: readonly Capture[], clientPort: number): Journey[] {
  const nameOf = new Map(captures.map(({ mac, machine }) => [mac, machine]));
  const sightings = captures.map((capture) => sightingsOf(capture, clientPort));
  const clocks = sightings.map(
    // The first sighting of each counts.
    (seen) => new Map([...seen].reverse().map(({ segment, packet }) => [segment, packet.at])),
  );
  const clock = clocks.reduce((best, other) => (other.size > best.size ? other : best), new Map());
  const start = Math.min(...clock.values());
  const segments = grouped(sightings.flat(), ({ segment }) => segment);
  return [...segments]
    .map(([segment, seen]) => {
      const at = clock.get(segment);
      const links = [...grouped(seen, ({ link }) => link).values()];
      const hops = links.map((same): Hop => {
        const { packet } = same[0] as Sighting;
        return {
          from: nameOf.get(packet.fromMac) ?? ROUTER,
          to: nameOf.get(packet.toMac) ?? ROUTER,
          packet,
          request: packet.from.port === clientPort,
          seenBy: same.map(({ machine }) => machine),
        };
      });
      return { after: at === undefined ? undefined : at - start, hops: inOrder(hops) };
    })
    .sort((a, b) => (a.after ?? Number.POSITIVE_INFINITY) - (b.after ?? Number.POSITIVE_INFINITY));
}

function sightingsOf({ machine, packets }: Capture, clientPort: number): Sighting[] {
  const seen = new Map<string, number>();
  return packets.map((packet) => {
    const { from, flags, seq, ack, length, fromMac, toMac } = packet;
    const link = `${fromMac} ${toMac}`;
    const content = [from.port === clientPort, flags, seq, ack, length].join(" ");
    // What is sent again is another one: the second of its kind on the same wire.
    const number = (seen.get(`${link} ${content}`) ?? 0) + 1;
    seen.set(`${link} ${content}`, number);
    return { machine, packet, segment: `${content} ${number}`, link };
  });
}

/** Items by what they have in common, in the order in which it came up. */
export function grouped<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const found = new Map<string, T[]>();
  for (const item of items) {
    const group = found.get(key(item));
    if (group) group.push(item);
    else found.set(key(item), [item]);
  }
  return found;
}

/** From the one that sends what nobody sent to it, along who got it. */
function inOrder(hops: readonly Hop[]): Hop[] {
  const left = [...hops];
  const found: Hop[] = [];
  while (left.length > 0) {
    const last = found.at(-1);
    const next =
      left.find(({ packet }) => packet.fromMac === last?.packet.toMac) ??
      left.find(
        ({ from, packet }) => from !== ROUTER && left.every((other) => other.packet.toMac !== packet.fromMac),
      ) ??
      left.find(({ packet }) => left.every((other) => other.packet.toMac !== packet.fromMac)) ??
      (left[0] as Hop);
    left.splice(left.indexOf(next), 1);
    found.push(next);
  }
  return found;
}

/** What the hops of a connection show of the cluster. */
export interface Verdict {
  /** How the director passed it on; null when it did not. */
  readonly forwarding: "DR" | "TUN" | "NAT" | null;
  readonly director: string | null;
  readonly realServer: string | null;
  /** What is not as it should be, each in a sentence. */
  readonly findings: readonly string[];
}

/** Who has which part, by name. */
export interface Cast {
  readonly vip: string;
  /** Null when it was asked from where nothing could be captured. */
  readonly client: string | null;
  readonly directors: readonly string[];
  readonly realServers: readonly string[];
}

/** Judges the way of a request. Pure. */
export function judge(
  journeysOfAll: readonly Journey[],
  { vip, client, directors, realServers }: Cast,
): Verdict {
  const hops = journeysOfAll.flatMap((journey) => journey.hops);
  const requests = hops.filter(({ request }) => request);
  const replies = hops.filter(({ request }) => !request);
  const entry = requests.find(({ to }) => directors.includes(to));
  const forward = requests.find(({ from, to }) => directors.includes(from) && !directors.includes(to));
  const direct = requests.find(({ from, to }) => !directors.includes(from) && realServers.includes(to));
  const reply = replies.find(({ from }) => realServers.includes(from));
  const forwarding =
    forward === undefined
      ? null
      : forward.packet.tunnel
        ? "TUN"
        : forward.packet.to.address === vip
          ? "DR"
          : "NAT";
  const past = replies.find(({ to }) => directors.includes(to));
  const findings = [
    ...(hops.length === 0
      ? [
          "No machine saw a packet: what was sent does not come to this network, or by another port (NAT on the way).",
        ]
      : []),
    ...(direct
      ? [
          `${direct.from} sends to ${direct.to} itself, past the directors: ${direct.to} claims the VIP on the wire (scripts/cluster doctor).`,
        ]
      : []),
    ...(entry && forward === undefined
      ? [`${entry.to} got it and sent it to nobody: see its table (scripts/cluster status).`]
      : []),
    ...(forward && reply === undefined
      ? [`${forward.to} got it and did not answer (scripts/cluster doctor).`]
      : []),
    ...(past && (forwarding === "DR" || forwarding === "TUN")
      ? [`Replies of ${past.from} pass ${past.to}; with ${forwarding} they go straight to the client.`]
      : []),
    ...lost(hops, [client, ...directors, ...realServers]),
  ];
  return {
    forwarding,
    director: entry?.to ?? null,
    realServer: forward?.to ?? reply?.from ?? null,
    findings,
  };
}

/** Packets that their sender saw and the machine that they were for did not. */
function lost(hops: readonly Hop[], captured: readonly (string | null)[]): string[] {
  const away = hops.filter(
    ({ from, to, seenBy }) => captured.includes(from) && captured.includes(to) && !seenBy.includes(to),
  );
  const links = grouped(away, ({ from, to }) => `${from} to ${to}`);
  return [...links].map(
    ([link, some]) => `${some.length} packet${some.length === 1 ? "" : "s"} from ${link} did not arrive.`,
  );
}
