/**
 * Which real server the scheduler mh gives a client, computed as the kernel does (net/netfilter/ipvs/ip_vs_mh.c of Linux 6.1):
 * a Maglev table of 4093 slots (Debian's CONFIG_IP_VS_MH_TAB_INDEX=12), filled by SipHash-1-3 with two fixed keys.
 */
import { parseIPv4 } from "../../config/addresses";

const SLOTS = 4093;
/** Above this many turns, weights are shifted to the right (half of the table's index). */
const WEIGHT_BITS = 6;
const FIRST = 2654435761n;
const SECOND = 2654446892n;

export interface Destination {
  readonly address: string;
  readonly port: number;
  /** 0 while it is drained: it keeps its slots, and a client that meets one goes on to the next hash. */
  readonly weight: number;
}

/**
 * @param destinations in the order of the kernel's table (`ipvsadm -Ln`), which is what it fills its slots by.
 * @param client IPv4 address
 * @returns the address of the real server; undefined when none has a weight.
 */
export function scheduledByMh(destinations: readonly Destination[], client: string): string | undefined {
  if (!destinations.some(({ weight }) => weight > 0)) return undefined;
  const table = fill(destinations);
  const address = number(client);
  const first = hash(address, FIRST);
  const at = (slot: number) => destinations[table[slot % SLOTS] ?? -1];
  const found = at(first);
  if (found && found.weight > 0) return found.address;
  // mh-fallback
  for (let offset = 0; offset < SLOTS; offset += 1) {
    const next = at(hash((((first % SLOTS) + offset) % SLOTS) + address, FIRST));
    if (next && next.weight > 0) return next.address;
  }
  return undefined;
}

/** The address in each slot of the table: of all client addresses, every slot has the same share. */
export function maglevTable(destinations: readonly Destination[]): string[] {
  if (destinations.length === 0) return [];
  return Array.from(fill(destinations), (index) => destinations[index]?.address ?? "");
}

/**
 * The share of client addresses that meet another real server once `before` is `after`.
 *
 * @param before as in {@link scheduledByMh}
 */
export function shareThatMoves(before: readonly Destination[], after: readonly Destination[]): number {
  const [was, is] = [maglevTable(before), maglevTable(after)];
  return is.filter((address, slot) => was[slot] !== address).length / is.length;
}

function fill(destinations: readonly Destination[]): Int32Array {
  // The kernel keeps the weight that a drained one had; from here it is not seen, and mostly is that of the others.
  const usual = Math.max(...destinations.map(({ weight }) => weight));
  const weights = destinations.map(({ weight }) => weight || usual);
  const divisor = weights.reduce(gcd);
  const shift = Math.max(0, 32 - Math.clz32(Math.max(...weights) / divisor) - WEIGHT_BITS);
  const servers = destinations.map(({ address, port }, index) => ({
    slot: hash(number(address) + port, FIRST) % SLOTS,
    skip: (hash(number(address) + port, SECOND) % (SLOTS - 1)) + 1,
    turns: Math.max(1, ((weights[index] as number) / divisor) >> shift),
  }));
  const table = new Int32Array(SLOTS).fill(-1);
  for (let filled = 0; ; ) {
    for (const [index, server] of servers.entries()) {
      for (let turn = 0; turn < server.turns; turn += 1) {
        while (table[server.slot] !== -1) server.slot = (server.slot + server.skip) % SLOTS;
        table[server.slot] = index;
        filled += 1;
        if (filled === SLOTS) return table;
      }
    }
  }
}

/** The kernel's hsiphash of 32 bits on a 64-bit machine. */
function hash(value: number, key: bigint): number {
  const mask = (1n << 64n) - 1n;
  const rotate = (word: bigint, bits: bigint) => ((word << bits) | (word >> (64n - bits))) & mask;
  let [v0, v1, v2, v3] = [0x736f6d6570736575n, 0x646f72616e646f6dn, 0x6c7967656e657261n, 0x7465646279746573n];
  v0 ^= key;
  v1 ^= key;
  v2 ^= key;
  v3 ^= key;
  const round = () => {
    v0 = (v0 + v1) & mask;
    v1 = rotate(v1, 13n) ^ v0;
    v0 = rotate(v0, 32n);
    v2 = (v2 + v3) & mask;
    v3 = rotate(v3, 16n) ^ v2;
    v0 = (v0 + v3) & mask;
    v3 = rotate(v3, 21n) ^ v0;
    v2 = (v2 + v1) & mask;
    v1 = rotate(v1, 17n) ^ v2;
    v2 = rotate(v2, 32n);
  };
  const block = (4n << 56n) | BigInt(value >>> 0);
  v3 ^= block;
  round();
  v0 ^= block;
  v2 ^= 0xffn;
  round();
  round();
  round();
  return Number((v0 ^ v1 ^ v2 ^ v3) & 0xffffffffn);
}

function number(address: string): number {
  const parsed = parseIPv4(address);
  if (parsed === undefined) throw new Error(`"${address}" is not an IPv4 address.`);
  return parsed;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
