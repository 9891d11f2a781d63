import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { execa } from "execa";
import { type Attempt, homes, type Log, parseLog, summarise } from "../../lab/load/summary";
import { repository } from "../../scripts/lib/paths";
import { broken, strays } from "../faults/expectations";
import type { Measured } from "../faults/fault";

/** A WAV of so many bytes of sound. */
function wav(size: number): Buffer {
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + size, 4);
  head.write("WAVEfmt ", 8);
  return Buffer.concat([head, Buffer.alloc(size, 7)]);
}

const http = (status: string, body: Buffer | string, ...headers: string[]) =>
  Buffer.concat([
    Buffer.from(
      [`HTTP/1.1 ${status}`, `Content-Length: ${body.length}`, "X-Served-By: rs-9", ...headers, "", ""].join(
        "\r\n",
      ),
    ),
    Buffer.from(body),
  ]);

/** A server that answers each request as told. */
async function serve(answer: (socket: Socket, request: string, number: number) => void): Promise<Server> {
  let count = 0;
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      count += 1;
      answer(socket, data.toString(), count);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

/** The client's log of some time with that server. */
async function load(server: Server | number, ...args: string[]): Promise<Log> {
  const port = typeof server === "number" ? server : (server.address() as AddressInfo).port;
  const nothing = ["--kept", "0", "--streams", "0", "--syntheses", "0", "--rate", "0"];
  const { stdout } = await execa("python3", [
    ...["-IS", join(repository, "lab/load/load-client.py"), "--target", `127.0.0.1:${port}`],
    // Limits that a busy computer does not reach by itself; a test of a limit brings its own.
    ...["--duration", "0.6", "--finish", "5", "--timeout", "5", "--slow", "4", ...nothing, ...args],
  ]);
  if (typeof server !== "number") server.close();
  return parseLog(stdout.split("\n"));
}

describe("the load client", () => {
  const results = (log: Log) =>
    log.attempts.map(({ result, why }) => `${result} ${why?.split(":")[0] ?? ""}`.trim());
  const all = (log: Log, expected: string) => {
    assert.ok(log.whole, "it came to its own end");
    assert.ok(log.attempts.length >= 3, `${log.attempts.length} attempts`);
    assert.deepEqual([...new Set(results(log))], [expected]);
  };

  it("counts what was answered, by whom, from its addresses in turn", async () => {
    const server = await serve((socket) => socket.end(http("200 OK", "{}")));
    const log = await load(server, "--rate", "20", "--sources", "127.0.0.2-127.0.0.4");
    all(log, "ok");
    assert.ok(log.attempts.every(({ node }) => node === "rs-9"));
    assert.deepEqual([...new Set(log.attempts.map(({ source }) => source))].sort(), [
      "127.0.0.2",
      "127.0.0.3",
      "127.0.0.4",
    ]);
  });

  const lost: [string, string, (socket: Socket) => void, ...string[]][] = [
    ["a reset", "lost reset", (socket) => socket.resetAndDestroy()],
    ["no answer in time", "lost timeout", () => undefined, "--timeout", "0.4"],
    ["an end without a byte", "lost closed", (socket) => socket.destroy()],
    [
      "half an answer",
      "lost incomplete",
      (socket) => socket.end(http("200 OK", "0123456789").subarray(0, -4)),
    ],
    ["an error", "lost status", (socket) => socket.end(http("503 Service Unavailable", "no"))],
    ["something else than HTTP", "lost wrong", (socket) => socket.end("hello\r\n\r\n")],
    [
      "a late answer",
      "slow",
      (socket) => setTimeout(() => socket.end(http("200 OK", "{}")), 250),
      ...["--slow", "0.2"],
    ],
  ];
  for (const [what, expected, answer, ...limits] of lost) {
    it(`counts ${what} as "${expected}"`, async () =>
      all(await load(await serve(answer), "--rate", "20", ...limits), expected));
  }

  it('counts a port where nobody listens as "lost refused"', async () => {
    const server = await serve(() => undefined);
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    all(await load(port, "--rate", "20"), "lost refused");
  });

  it("goes on sending while answers are outstanding", async () => {
    const log = await load(await serve(() => undefined), "--rate", "20", "--timeout", "0.4");
    assert.ok(log.attempts.length >= 10, `${log.attempts.length} requests in 0.6 s`);
  });

  it("keeps a connection, and takes its end between two requests for no loss", async () => {
    let connections = 0;
    const server = await serve((socket, _, number) => {
      socket.write(http("200 OK", "{}"));
      if (number === 3) setTimeout(() => socket.destroy(), 20);
    });
    server.on("connection", () => {
      connections += 1;
    });
    all(await load(server, "--kept", "1", "--kept-interval", "0.25", "--duration", "1.6"), "ok");
    assert.equal(connections, 2);
  });

  it("holds event streams open and says when one breaks", async () => {
    const server = await serve((socket, request, number) => {
      assert.match(request, /^GET \/gradio_api\/heartbeat\//);
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\ndata: ALIVE\n\n\r\n");
      if (number === 1) setTimeout(() => socket.resetAndDestroy(), 100);
    });
    const log = await load(server, "--streams", "2");
    assert.deepEqual(results(log).sort(), ["lost reset", "ok"]);
    assert.ok(log.attempts.every(({ beats }) => beats === 1));
  });

  it("takes a synthesis only for a whole WAV, and keeps its digest", async () => {
    const answers = [
      http("200 OK", wav(1000), "X-Result-Name: a.wav"),
      http("200 OK", wav(1000).subarray(0, 500)),
      http("200 OK", "RIFF????WAVE"),
      http("507 Insufficient Storage", '{"error": {"message": "the disk is full"}}'),
    ];
    let body = "";
    const texts = new Set<string>();
    const server = await serve((socket, request, number) => {
      body = request;
      texts.add(request.slice(request.indexOf("{")));
      socket.end(answers[Math.min(number, answers.length) - 1] as Buffer);
    });
    const log = await load(server, "--syntheses", "1", "--pause", "0.01", "--duration", "3.5");
    assert.match(body, /Cache-Control: no-cache/);
    assert.equal(texts.size, log.attempts.length, "each text is another");
    assert.deepEqual(results(log).slice(0, 4), ["ok", "lost wrong", "lost wrong", "lost status"]);
    const [first, , , full] = log.attempts;
    assert.equal(first?.name, "a.wav");
    assert.equal(first?.bytes, 1044);
    assert.match(full?.why ?? "", /507 .*the disk is full/);
  });

  it("finishes on SIGTERM what is under way", async () => {
    const server = await serve((socket) => setTimeout(() => socket.end(http("200 OK", "{}")), 150));
    const { port } = server.address() as AddressInfo;
    const child = execa("python3", [
      ...["-IS", join(repository, "lab/load/load-client.py"), "--target", `127.0.0.1:${port}`],
      ...["--rate", "20", "--kept", "0", "--streams", "0", "--syntheses", "0"],
    ]);
    await once(server, "connection");
    setTimeout(() => child.kill("SIGTERM"), 300);
    const { stdout } = await child;
    server.close();
    all(parseLog(stdout.split("\n")), "ok");
  });
});

describe("the summary of a load", () => {
  const light = (start: number, result: Attempt["result"], more: Partial<Attempt> = {}): Attempt => ({
    kind: "request",
    source: "192.0.2.1",
    start,
    end: start + 0.01,
    result,
    ...more,
  });
  const log = (...attempts: Attempt[]): Log => ({ attempts, stalls: [], whole: true });

  it("measures a gap from the first request that failed or hung to the next good one", () => {
    const found = summarise(
      log(
        light(1, "ok"),
        light(1.1, "slow", { end: 2.2 }),
        light(1.2, "lost", { end: 6.2, why: "timeout: answer" }),
        light(1.5, "ok"),
        light(1.6, "lost", { why: "reset: connecting" }),
        light(1.7, "ok"),
      ),
    );
    assert.equal(found.gap.toFixed(3), "0.400");
    assert.deepEqual([found.requests, found.lost, found.slow, found.reset, found.timeout], [6, 2, 1, 1, 1]);
  });

  it("takes a gap that never ends for as long as was waited", () => {
    assert.equal(summarise(log(light(1, "ok"), light(2, "lost", { end: 7 }))).gap, 5);
  });

  it("sees the outage of one real server's share, which others hide", () => {
    const other = { source: "192.0.2.2", node: "rs-2" };
    const own = { source: "192.0.2.1", node: "rs-1" };
    const attempts = [light(0.1, "ok", own), light(0.2, "ok", other)];
    for (let t = 1; t < 3; t += 0.2) {
      attempts.push(
        light(t, "lost", { ...own, node: undefined as unknown as string, why: "timeout: answer" }),
      );
      attempts.push(light(t + 0.1, "ok", other));
    }
    attempts.push(light(3, "ok", { ...own, node: "rs-2" }));
    const found = summarise(log(...attempts), 0.5, 10, 1);
    assert.ok(found.gap < 0.15, `${found.gap}`);
    assert.equal(found.shareGap.toFixed(1), "2.0");
    assert.equal(found.shareNode, "rs-1");
    assert.deepEqual([found.moved, found.sources], [1, 2]);
    assert.deepEqual([...homes(attempts, 1).values()], ["rs-1", "rs-2"]);
  });

  it("tells broken streams and syntheses, and clear errors, apart", () => {
    const found = summarise(
      log(
        light(1, "lost", { kind: "stream", why: "reset: after 18 bytes" }),
        light(1, "ok", { kind: "stream" }),
        light(1, "lost", { kind: "synthesis", why: "status: 503 the share is away" }),
        light(1, "lost", { kind: "synthesis", why: "incomplete: 5 of 10 bytes" }),
        light(1, "cut", { kind: "synthesis" }),
      ),
    );
    assert.deepEqual([found.streams, found.streamsBroken], [2, 1]);
    assert.deepEqual([found.syntheses, found.synthesesLost, found.synthesesRefused], [2, 2, 1]);
  });

  it("refuses what is no log", () => {
    assert.throws(() => parseLog(["Traceback (most recent call last):"]), /not JSON: Traceback/);
    assert.equal(parseLog(['{"kind": "begin"}']).whole, false);
  });
});

describe("the expectations of a fault", () => {
  const quiet = summarise({ attempts: [], stalls: [], whole: true });
  const fine: Measured = {
    summary: quiet,
    out: 1,
    back: 2,
    oneHolder: [0, 0],
    strays: 0,
    holdings: [],
    shared: 0,
    moves: 0,
    fewest: 3,
    times: [0, 1, 2],
    notes: [],
  };
  const cases: [string, Parameters<typeof broken>[0], Partial<Measured>, RegExp][] = [
    [
      "a lost request, when none was allowed",
      {},
      { summary: { ...quiet, lost: 1 } },
      /requests lost: 1, at most 0/,
    ],
    ["a gap", { gap: 0.5 }, { summary: { ...quiet, gap: 0.6 } }, /nobody was served for: 0.6 s/],
    ["a dead server that stays", { out: 2 }, { out: null }, /out of the pool after: never/],
    ["two holders", { oneHolder: 1 }, { oneHolder: [0, null] }, /one holder after its end within: never/],
    ["a failback", { moves: 1 }, { moves: 2 }, /moves of the VIP: 2/],
    ["an empty pool", {}, { fewest: 0 }, /the pool was empty/],
    ["a smaller pool", { poolStays: true }, { fewest: 2 }, /2 of 3/],
    [
      "a broken synthesis",
      { synthesesLost: 9, clearErrors: true },
      { summary: { ...quiet, synthesesLost: 1 } },
      /without a clear/,
    ],
    ["a client that stood still", {}, { summary: { ...quiet, stall: 3 } }, /nothing is proved/],
  ];
  for (const [what, expect, found, message] of cases) {
    it(`are broken by ${what}`, () => {
      const problems = broken(expect, { ...fine, ...found }, true, true);
      assert.equal(problems.length, 1, problems.join("; "));
      assert.match(problems[0] as string, message);
    });
  }
  it("know which lost requests a dead server explains", () => {
    const of = (source: string, start: number, result: Attempt["result"], node?: string): Attempt => {
      return { kind: "request", source, start, end: start + 0.1, result, ...(node ? { node } : {}) };
    };
    const before = [of("192.0.2.1", 0, "ok", "rs-1"), of("192.0.2.2", 0, "ok", "rs-2")];
    const log = (...attempts: Attempt[]): Log => ({
      attempts: [...before, ...attempts],
      stalls: [],
      whole: true,
    });
    assert.equal(strays(log(of("192.0.2.1", 10.5, "lost")), "rs-1", 10, 1), 0);
    assert.equal(strays(log(of("192.0.2.1", 11.5, "lost")), "rs-1", 10, 1), 1, "sent when it was out");
    assert.equal(strays(log(of("192.0.2.2", 10.5, "lost")), "rs-1", 10, 1), 1, "another one's");
  });
  it("hold otherwise", () =>
    assert.deepEqual(broken({ gap: 0.5, out: 2, oneHolder: 1, moves: 0 }, fine, true, true), []));

  it("are not broken by times that nobody judges, only by what never happened", () => {
    const slow = { ...fine, out: 99 };
    assert.notDeepEqual(broken({ out: 2 }, slow, true, true), []);
    assert.deepEqual(broken({ out: 2 }, slow, true, false), []);
    assert.match(broken({ out: 2 }, { ...fine, out: null }, true, false).join(), /never/);
  });
});
