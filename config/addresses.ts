/** IPv4 addresses as text and as numbers. IPv6 is not served: IPVS with ARP-suppressed VIPs is an IPv4 design here. */

/** The most addresses one list of ranges may name: enough to be hashed onto every server, few enough to ask through. */
export const maxExpandedAddresses = 256;

/** Turns `192.168.1.100` into a number, or gives `undefined` for anything that is not exactly four decimal octets. */
export function parseIPv4(text: string): number | undefined {
  const octets = text.split(".");
  if (octets.length !== 4) return undefined;
  let address = 0;
  for (const octet of octets) {
    // A leading zero is refused: some programs would read 010 as octal, so the same text would name two addresses.
    if (!/^(0|[1-9]\d{0,2})$/.test(octet)) return undefined;
    const number = Number(octet);
    if (number > 255) return undefined;
    address = address * 256 + number;
  }
  return address;
}

/** The inverse of {@link parseIPv4}. */
export function formatIPv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

/** Whether a machine or a VIP can have this address: not 0/8, loopback, multicast, reserved or broadcast. */
export function isUsableHostAddress(address: number): boolean {
  const first = Math.floor(address / 2 ** 24);
  return first !== 0 && first !== 127 && first < 224;
}

/** What became of one entry of an address list. */
export type Expansion =
  | { readonly ok: true; readonly addresses: readonly string[] }
  | { readonly ok: false; readonly reason: string };

/**
 * Expands one entry, `192.168.1.200-192.168.1.249` or a single address, ends included.
 * Never throws: a text that is neither comes back with the reason.
 */
export function expandAddressRange(entry: string): Expansion {
  const ends = entry.split("-").map((end) => end.trim());
  if (ends.length > 2) return { ok: false, reason: "has more than one '-'" };
  const first = parseIPv4(ends[0] ?? "");
  const last = ends.length === 2 ? parseIPv4(ends[1] ?? "") : first;
  if (first === undefined || last === undefined)
    return { ok: false, reason: "is not made of IPv4 addresses" };
  if (last < first) return { ok: false, reason: "ends before it starts" };
  if (last - first + 1 > maxExpandedAddresses) {
    return { ok: false, reason: `names ${last - first + 1} addresses, more than ${maxExpandedAddresses}` };
  }
  return {
    ok: true,
    addresses: Array.from({ length: last - first + 1 }, (_, index) => formatIPv4(first + index)),
  };
}

/**
 * Expands entries as {@link expandAddressRange} does, in the order given.
 *
 * @throws RangeError when an entry is not understood or the list has more than {@link maxExpandedAddresses}. A config that
 * passed validation never does.
 */
export function expandAddresses(entries: string | readonly string[]): string[] {
  const addresses: string[] = [];
  for (const entry of typeof entries === "string" ? [entries] : entries) {
    const expansion = expandAddressRange(entry);
    if (!expansion.ok) {
      throw new RangeError(
        `address range "${entry}" ${expansion.reason}: write "192.168.1.200-192.168.1.249"`,
      );
    }
    addresses.push(...expansion.addresses);
    if (addresses.length > maxExpandedAddresses) {
      throw new RangeError(`the address list names more than ${maxExpandedAddresses} addresses: shorten it`);
    }
  }
  return addresses;
}

/** A range of addresses: `10.20.0.0/16`. */
export interface Cidr {
  readonly first: number;
  readonly last: number;
  /** Bits that all its addresses share. */
  readonly prefix: number;
}

/** Reads `10.20.0.0/16`, or gives `undefined` for anything that is not the beginning of a range and its length. */
export function parseCidr(text: string): Cidr | undefined {
  const [start, length, ...more] = text.split("/");
  const first = parseIPv4(start ?? "");
  if (first === undefined || more.length > 0 || !/^(0|[1-9]\d?)$/.test(length ?? "")) return undefined;
  const prefix = Number(length);
  const size = 2 ** (32 - prefix);
  // 10.20.0.1/16 is somebody's slip: which of the two was meant, the address or the range?
  if (prefix > 32 || first % size !== 0) return undefined;
  return { first, last: first + size - 1, prefix };
}

/** Whether a range has an address, or the whole of another range. */
export function contains(range: Cidr, part: number | Cidr): boolean {
  const { first, last } = typeof part === "number" ? { first: part, last: part } : part;
  return range.first <= first && last <= range.last;
}

/** Whether two ranges have an address in common. */
export function overlap(one: Cidr, other: Cidr): boolean {
  return one.first <= other.last && other.first <= one.last;
}

/** What RFC 1918 and RFC 6598 keep for private networks. */
const privateRanges = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

/** Whether all addresses of a range are private ones. */
export function isPrivate(range: Cidr): boolean {
  return privateRanges.some((text) => contains(parseCidr(text) as Cidr, range));
}
