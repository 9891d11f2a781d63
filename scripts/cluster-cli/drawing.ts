import pc from "picocolors";
import { grouped, type Hop, type Journey, type Verdict } from "./hops";
import type { Packet, SocketAddress } from "./packets";

/** Columns of the terminal, and those that the time takes. */
const WIDTH = 80;
const MARGIN = 11;

/**
 * A connection, hop by hop: a column for each machine, a line for each packet between two of them. Pure.
 *
 * @param lanes names of the machines, from the left to the right; those that saw nothing are left out.
 */
export function drawJourneys(journeys: readonly Journey[], lanes: readonly string[]): string {
  const hops = journeys.flatMap((journey) => journey.hops);
  const shown = lanes.filter((name) => hops.some(({ from, to }) => from === name || to === name));
  const step = Math.floor((WIDTH - MARGIN - 6) / Math.max(1, shown.length - 1));
  const column = (name: string) => MARGIN + 2 + step * shown.indexOf(name);
  const poles = () => {
    const row = new Array<string>(WIDTH).fill(" ");
    for (const name of shown) row[column(name)] = "│";
    return row;
  };
  const head = new Array<string>(WIDTH).fill(" ");
  for (const name of shown) {
    // In the middle of its column, and within the line.
    const begin = Math.max(0, Math.min(WIDTH - name.length, column(name) - Math.floor(name.length / 2)));
    head.splice(begin, name.length, ...name);
  }
  const lines = [head.join("").trimEnd()];
  for (const { after, hops: some } of journeys) {
    some.forEach((hop, index) => {
      const row = poles();
      const time = index > 0 ? "" : after === undefined ? "?" : `${(after * 1000).toFixed(1)} ms`;
      row.splice(0, MARGIN, ...time.padStart(MARGIN));
      arrow(row, column(hop.from), column(hop.to), describe(hop.packet));
      lines.push(row.join("").trimEnd());
    });
  }
  return lines.join("\n");
}

function arrow(row: string[], from: number, to: number, label: string): void {
  const [left, right] = [Math.min(from, to), Math.max(from, to)];
  for (let at = left + 1; at < right; at += 1) row[at] = "─";
  if (to > from) row[right - 1] = "▶";
  else row[left + 1] = "◀";
  const text = ` ${label} `.slice(0, Math.max(0, right - left - 4));
  row.splice(left + Math.floor((right - left - text.length) / 2) + 1, text.length, ...text);
}

/** A segment in words: SYN, SYN ACK, 182 bytes, FIN ... */
export function describe({ flags, length }: Packet): string {
  const names: Readonly<Record<string, string>> = { S: "SYN", F: "FIN", R: "RST" };
  const words = [...flags].flatMap((letter) => names[letter] ?? []);
  const content = length > 0 ? [`${length} bytes`] : [];
  const acknowledged = flags.includes(".") && length === 0 ? ["ACK"] : [];
  return [...words, ...content, ...acknowledged].join(" ") || flags;
}

/** Each link of the way once: who sends to whom, by which MAC, with which addresses, and what that means. Pure. */
export function describeLinks(
  journeys: readonly Journey[],
  { forwarding }: Pick<Verdict, "forwarding">,
): string {
  const hops = journeys.flatMap((journey) => journey.hops);
  const links = grouped(hops, ({ from, to, request }) => `${from} → ${to} ${request}`);
  const entry = hops.find(({ request }) => request)?.packet;
  return [...links.values()]
    .flatMap((same) => {
      const { from, to, packet } = same[0] as Hop;
      const tunnel = packet.tunnel ? [`    in  ${packet.tunnel.from} → ${packet.tunnel.to}`] : [];
      return [
        `${pc.bold(`${from} → ${to}`)}  (${same.length} packet${same.length === 1 ? "" : "s"})`,
        `    MAC ${packet.fromMac} → ${packet.toMac}`,
        ...tunnel,
        `    IP  ${text(packet.from)} → ${text(packet.to)}${remark(same[0] as Hop, entry, forwarding)}`,
      ];
    })
    .join("\n");
}

function remark(
  { request, packet }: Hop,
  entry: Packet | undefined,
  forwarding: Verdict["forwarding"],
): string {
  if (entry === undefined || packet === entry) return "";
  if (request && packet.fromMac !== entry.fromMac)
    return text(packet.to) === text(entry.to) ? `  unchanged, another MAC` : `  rewritten`;
  if (!request && forwarding !== "NAT") return text(packet.from) === text(entry.to) ? "  from the VIP" : "";
  return "";
}

function text({ address, port }: SocketAddress): string {
  return `${address}:${port}`;
}
