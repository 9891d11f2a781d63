/** Packets of one TCP connection, as `host/capture.py` and with it tcpdump tell of them. */

/** An address and a port. */
export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

/** One packet as one machine saw it. */
export interface Packet {
  /** Seconds since 1970, by that machine's clock. */
  readonly at: number;
  readonly fromMac: string;
  readonly toMac: string;
  /** Of the outer header, when it is in a tunnel. */
  readonly tunnel: { readonly from: string; readonly to: string } | null;
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  /** tcpdump's letters: S, S., ., P., F., R ... */
  readonly flags: string;
  readonly seq: string;
  readonly ack: string;
  /** Bytes of content. */
  readonly length: number;
}

/** What one machine saw. */
export interface Capture {
  readonly machine: string;
  /** Of its interface in the cluster's network. */
  readonly mac: string;
  readonly packets: readonly Packet[];
}

const MAC = "((?:[0-9a-f]{2}:){5}[0-9a-f]{2})";
const IPV4 = "(\\d+\\.\\d+\\.\\d+\\.\\d+)";
const LINE = new RegExp(
  `^(\\d+\\.\\d+) ${MAC} > ${MAC}, ethertype IPv4 \\(0x0800\\), length \\d+: ` +
    `(?:${IPV4} > ${IPV4}: )?` +
    `${IPV4}\\.(\\d+) > ${IPV4}\\.(\\d+): Flags \\[([^\\]]*)\\]` +
    `(?:, seq ([\\d:]+))?(?:, ack (\\d+))?.*?, length (\\d+)`,
);

/** Reads the output of `host/capture.py`. Lines that are no TCP packets are left out. @throws without its head. */
export function parseCapture(machine: string, output: string): Capture {
  const [head = "", ...lines] = output.split("\n");
  const { mac } = JSON.parse(head) as { mac: string };
  return { machine, mac, packets: lines.flatMap((line) => parsePacket(line) ?? []) };
}

function parsePacket(line: string): Packet | undefined {
  const found = LINE.exec(line);
  if (found === null) return undefined;
  const [, at, fromMac = "", toMac = "", outerFrom, outerTo, from = "", fromPort, to = "", toPort] = found;
  const [flags = "", seq = "", ack = "", length] = found.slice(10);
  return {
    at: Number(at),
    fromMac,
    toMac,
    tunnel: outerFrom === undefined || outerTo === undefined ? null : { from: outerFrom, to: outerTo },
    from: { address: from, port: Number(fromPort) },
    to: { address: to, port: Number(toPort) },
    flags,
    seq,
    ack,
    length: Number(length),
  };
}
