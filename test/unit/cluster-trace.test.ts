import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { describeLinks, drawJourneys } from "../../scripts/cluster-cli/drawing";
import { type Cast, journeys, judge, ROUTER } from "../../scripts/cluster-cli/hops";
import { type Capture, parseCapture } from "../../scripts/cluster-cli/packets";
import { repository } from "../../scripts/lib/paths";

const head = (last: string) => JSON.stringify({ interface: "eth0", mac: `02:00:00:00:00:${last}` });

describe("what tcpdump says", () => {
  const line =
    "1700000000.123003 02:00:00:00:00:50 > 02:00:00:00:00:11, ethertype IPv4 (0x0800), length 88: ";
  it("is read packet by packet", () => {
    const text = `${line}192.168.1.50.23456 > 192.168.1.100.7860: Flags [P.], seq 1001:1035, ack 5001, win 64240, options [nop,nop,TS val 1 ecr 2], length 34`;
    assert.deepEqual(parseCapture("rs-1", `${head("01")}\n${text}\n\n12 packets captured\n`), {
      machine: "rs-1",
      mac: "02:00:00:00:00:01",
      packets: [
        {
          at: 1700000000.123003,
          fromMac: "02:00:00:00:00:50",
          toMac: "02:00:00:00:00:11",
          tunnel: null,
          from: { address: "192.168.1.50", port: 23456 },
          to: { address: "192.168.1.100", port: 7860 },
          flags: "P.",
          seq: "1001:1035",
          ack: "5001",
          length: 34,
        },
      ],
    });
  });
  it("is read within a tunnel", () => {
    const text = `${line}192.168.1.11 > 192.168.1.102: 192.168.1.50.23456 > 192.168.1.100.7860: Flags [S], seq 1000, win 64240, length 0`;
    const [packet] = parseCapture("rs-1", `${head("01")}\n${text}`).packets;
    assert.deepEqual(packet?.tunnel, { from: "192.168.1.11", to: "192.168.1.102" });
    assert.deepEqual(packet?.to, { address: "192.168.1.100", port: 7860 });
  });
});

const VIP = "192.168.1.100";
const MACS = { client: "50", "director-1": "11", "director-2": "12", "rs-1": "a1", "rs-2": "a2" } as const;
type Name = keyof typeof MACS;
const ADDRESSES: Record<Name, string> = {
  client: "192.168.1.50",
  "director-1": "192.168.1.11",
  "director-2": "192.168.1.12",
  "rs-1": "192.168.1.101",
  "rs-2": "192.168.1.102",
};
const cast: Cast = {
  vip: VIP,
  client: "client",
  directors: ["director-1", "director-2"],
  realServers: ["rs-1", "rs-2"],
};

/** A network of made-up frames, and what each machine's tcpdump makes of them; clocks are apart by seconds. */
class Network {
  private readonly seen = new Map<string, string[]>();
  private now = 0;

  /** @param from and `to` are machines, or the last byte of another MAC. */
  send(from: string, to: string, way: string, rest: string, { lost = false, around = "" } = {}): void {
    this.now += 0.0005;
    const mac = (name: string) => `02:00:00:00:00:${MACS[name as Name] ?? name}`;
    const text = `${mac(from)} > ${mac(to)}, ethertype IPv4 (0x0800), length 74: ${around}${way}: ${rest}`;
    for (const name of lost ? [from] : [from, to]) {
      const clock = 1_700_000_000 + 7 * Object.keys(MACS).indexOf(name) + this.now;
      this.seen.set(name, [...(this.seen.get(name) ?? []), `${clock.toFixed(6)} ${text}`]);
    }
  }

  captures(names: readonly Name[] = Object.keys(MACS) as Name[]): Capture[] {
    return names.map((name) =>
      parseCapture(name, [head(MACS[name]), ...(this.seen.get(name) ?? [])].join("\n")),
    );
  }
}

const PORT = 23456;
const THERE = `192.168.1.50.${PORT} > ${VIP}.7860`;
const BACK = `${VIP}.7860 > 192.168.1.50.${PORT}`;
const SYN = "Flags [S], seq 1000, win 64240, length 0";
const SYN_ACK = "Flags [S.], seq 5000, ack 1001, win 65160, length 0";
const GET = "Flags [P.], seq 1001:1080, ack 5001, win 502, length 79";
const ANSWER = "Flags [P.], seq 5001:5200, ack 1080, win 509, length 199";

/** A request by direct routing. */
function directRouting(): Network {
  const network = new Network();
  network.send("client", "director-1", THERE, SYN);
  network.send("director-1", "rs-2", THERE, SYN);
  network.send("rs-2", "client", BACK, SYN_ACK);
  network.send("client", "director-1", THERE, GET);
  network.send("director-1", "rs-2", THERE, GET);
  network.send("rs-2", "client", BACK, ANSWER);
  return network;
}

const way = (captures: readonly Capture[]) =>
  journeys(captures, PORT).map(({ hops }) => hops.map(({ from, to }) => `${from} ${to}`).join(", "));

describe("scripts/cluster trace", () => {
  it("puts together what the machines saw, whatever their clocks say", () => {
    assert.deepEqual(way(directRouting().captures()), [
      "client director-1, director-1 rs-2",
      "rs-2 client",
      "client director-1, director-1 rs-2",
      "rs-2 client",
    ]);
    const found = journeys(directRouting().captures(), PORT);
    assert.deepEqual(judge(found, cast), {
      forwarding: "DR",
      director: "director-1",
      realServer: "rs-2",
      findings: [],
    });
    assert.equal(found[0]?.after, 0);
    assert.ok(Math.abs((found[3]?.after ?? 0) - 0.0025) < 1e-4, `${found[3]?.after}`);
  });

  it("draws it hop by hop, in the columns of a terminal", () => {
    const lanes = ["client", ROUTER, "director-1", "director-2", "rs-1", "rs-2"];
    const text = drawJourneys(journeys(directRouting().captures(), PORT), lanes);
    assert.equal(
      text,
      `          client                       director-1                        rs-2
     0.0 ms  │───────────── SYN ───────────▶│                              │
             │                              │───────────── SYN ───────────▶│
     1.0 ms  │◀───────────────────────── SYN ACK ──────────────────────────│
     1.5 ms  │────────── 79 bytes ─────────▶│                              │
             │                              │────────── 79 bytes ─────────▶│
     2.5 ms  │◀──────────────────────── 199 bytes ─────────────────────────│`,
    );
  });

  it("shows that the MAC changes and the packet does not", () => {
    const text = stripVTControlCharacters(
      describeLinks(journeys(directRouting().captures(), PORT), { forwarding: "DR" }),
    );
    assert.equal(
      text,
      `client → director-1  (2 packets)
    MAC 02:00:00:00:00:50 → 02:00:00:00:00:11
    IP  192.168.1.50:23456 → 192.168.1.100:7860
director-1 → rs-2  (2 packets)
    MAC 02:00:00:00:00:11 → 02:00:00:00:00:a2
    IP  192.168.1.50:23456 → 192.168.1.100:7860  unchanged, another MAC
rs-2 → client  (2 packets)
    MAC 02:00:00:00:00:a2 → 02:00:00:00:00:50
    IP  192.168.1.100:7860 → 192.168.1.50:23456  from the VIP`,
    );
  });

  it("follows a tunnel", () => {
    const network = new Network();
    const around = "192.168.1.11 > 192.168.1.102: ";
    network.send("client", "director-1", THERE, SYN);
    network.send("director-1", "rs-2", THERE, SYN, { around });
    network.send("rs-2", "client", BACK, SYN_ACK);
    const found = journeys(network.captures(), PORT);
    assert.deepEqual(judge(found, cast).findings, []);
    assert.equal(judge(found, cast).forwarding, "TUN");
    assert.match(describeLinks(found, { forwarding: "TUN" }), /in {2}192\.168\.1\.11 → 192\.168\.1\.102/);
  });

  it("follows addresses that are rewritten", () => {
    const network = new Network();
    network.send("client", "director-1", THERE, SYN);
    network.send("director-1", "rs-2", `192.168.1.50.${PORT} > ${ADDRESSES["rs-2"]}.7860`, SYN);
    network.send("rs-2", "director-1", `${ADDRESSES["rs-2"]}.7860 > 192.168.1.50.${PORT}`, SYN_ACK);
    network.send("director-1", "client", BACK, SYN_ACK);
    const found = journeys(network.captures(), PORT);
    assert.deepEqual(way(network.captures()), [
      "client director-1, director-1 rs-2",
      "rs-2 director-1, director-1 client",
    ]);
    assert.deepEqual(judge(found, cast), {
      forwarding: "NAT",
      director: "director-1",
      realServer: "rs-2",
      findings: [],
    });
    assert.match(describeLinks(found, { forwarding: "NAT" }), /192\.168\.1\.102:7860 {2}rewritten/);
  });

  it("follows a way through a router, to where somebody can listen", () => {
    const network = new Network();
    network.send("client", "01", THERE, SYN);
    network.send("02", "director-1", THERE, SYN);
    network.send("director-1", "rs-2", THERE, SYN);
    network.send("rs-2", "02", BACK, SYN_ACK);
    network.send("01", "client", BACK, SYN_ACK);
    assert.deepEqual(way(network.captures()), [
      `client ${ROUTER}, ${ROUTER} director-1, director-1 rs-2`,
      `rs-2 ${ROUTER}, ${ROUTER} client`,
    ]);
    assert.deepEqual(judge(journeys(network.captures(), PORT), cast).findings, []);
  });

  it("counts what was sent twice as two", () => {
    const network = new Network();
    network.send("client", "director-1", THERE, SYN);
    network.send("client", "director-1", THERE, SYN);
    network.send("director-1", "rs-2", THERE, SYN);
    assert.deepEqual(way(network.captures()), ["client director-1, director-1 rs-2", "client director-1"]);
  });

  const faults: [string, (network: Network) => void, RegExp][] = [
    ["nothing", () => undefined, /No machine saw a packet/],
    [
      "a director that sends it to nobody",
      (network) => network.send("client", "director-1", THERE, SYN),
      /director-1 got it and sent it to nobody/,
    ],
    [
      "a real server that does not answer",
      (network) => {
        network.send("client", "director-1", THERE, SYN);
        network.send("director-1", "rs-2", THERE, SYN);
      },
      /rs-2 got it and did not answer/,
    ],
    [
      "a real server that claims the VIP",
      (network) => {
        network.send("client", "rs-1", THERE, SYN);
        network.send("rs-1", "client", BACK, SYN_ACK);
      },
      /client sends to rs-1 itself, past the directors: rs-1 claims the VIP on the wire/,
    ],
    [
      "replies that pass the director",
      (network) => {
        network.send("client", "director-1", THERE, SYN);
        network.send("director-1", "rs-2", THERE, SYN);
        network.send("rs-2", "director-1", BACK, SYN_ACK);
        network.send("director-1", "client", BACK, SYN_ACK);
      },
      /Replies of rs-2 pass director-1; with DR they go straight to the client/,
    ],
    [
      "what is lost on the way",
      (network) => {
        network.send("client", "director-1", THERE, SYN);
        network.send("director-1", "rs-2", THERE, SYN);
        network.send("rs-2", "client", BACK, SYN_ACK, { lost: true });
        network.send("rs-2", "client", BACK, SYN_ACK, { lost: true });
      },
      /^2 packets from rs-2 to client did not arrive\.$/,
    ],
  ];
  for (const [what, happen, expected] of faults) {
    it(`finds ${what}`, () => {
      const network = new Network();
      happen(network);
      const { findings } = judge(journeys(network.captures(), PORT), cast);
      assert.equal(findings.filter((finding) => expected.test(finding)).length, 1, findings.join("\n"));
      assert.equal(findings.length, 1, findings.join("\n"));
    });
  }

  it("misses nothing of a machine that could not be listened on", () => {
    const names: Name[] = ["director-1", "director-2", "rs-1", "rs-2"];
    const found = journeys(directRouting().captures(names), PORT);
    assert.deepEqual(judge(found, { ...cast, client: null }).findings, []);
  });
});

describe("scripts/cluster trace, of a request in the lab", () => {
  it("reads what tcpdump wrote on six machines", async () => {
    const text = await readFile(join(repository, "test/golden/captures/direct-routing.txt"), "utf8");
    const captures = text
      .split(/^== /m)
      .slice(1)
      .map((part) => {
        const end = part.indexOf("\n");
        return parseCapture(part.slice(0, end), part.slice(end + 1));
      });
    assert.deepEqual(
      captures.map(({ machine, packets }) => `${machine} ${packets.length}`),
      ["client 12", "director-1 14", "director-2 0", "rs-1 0", "rs-2 12", "rs-3 0"],
    );
    const found = journeys(captures, 24_001);
    assert.ok(found.every(({ after }) => after !== undefined));
    assert.deepEqual(judge(found, { ...cast, realServers: ["rs-1", "rs-2", "rs-3"] }), {
      forwarding: "DR",
      director: "director-1",
      realServer: "rs-2",
      findings: [],
    });
    const drawn = drawJourneys(found, ["client", "director-1", "director-2", "rs-1", "rs-2", "rs-3"]);
    assert.equal(drawn.match(/▶/g)?.length, 14);
    assert.equal(drawn.match(/◀/g)?.length, 5);
    assert.match(
      drawn,
      /^ +client +director-1 +rs-2\n +0\.0 ms {2}│─+ SYN ─+▶│ +│\n +│ +│─+ SYN ─+▶│\n.*◀─+ SYN ACK ─+│$/m,
    );
    assert.match(
      describeLinks(found, { forwarding: "DR" }),
      /192\.168\.1\.100:7860 {2}unchanged, another MAC/,
    );
  });
});
