import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import {
  createServer as createPlain,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Attempt } from "../../lab/load/summary";
import { describe as about, bench, renderBench, siblings, summarise } from "../../scripts/cluster-cli/bench";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import type { ProgressLine } from "../../scripts/cluster-cli/progress";
import { makeCertificate } from "../golden/nginx";

const attempt = (start: number, took: number, changes: Partial<Attempt> = {}): Attempt => ({
  kind: "synthesis",
  source: "192.168.1.200",
  start,
  end: start + took,
  result: "ok",
  node: "rs-1",
  ...changes,
});

// Without a client machine: the real load client, before a stand-in for the service.
describe("scripts/cluster bench asks", () => {
  let folder: string;
  let asked: IncomingMessage[];
  let server: Server;
  const wav = Buffer.concat([Buffer.from("RIFF\x2c\0\0\0WAVE"), Buffer.alloc(40_000)]);
  wav.writeUInt32LE(wav.length - 8, 4);
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    asked.push(request);
    response.setHeader("X-Served-By", "rs-1");
    request.resume().on("end", () => response.end(request.method === "POST" ? wav : "{}"));
  };
  const listening = async (made: Server) => {
    server = made.listen(0, "127.0.0.1");
    await once(server, "listening");
    return (server.address() as AddressInfo).port;
  };
  const run = (more: Partial<Inventory>) =>
    bench(
      {
        ...{ platform: "hosts", vip: "127.0.0.1", port: 1, ssh: { connectTimeout: 1 }, machines: [] },
        ...more,
      },
      undefined as unknown as OpenSsh,
      { sentences: 3, atOnce: 2, characters: 40, rate: 10, seconds: 20 },
      { show: () => undefined } as unknown as ProgressLine,
    );
  const made = () => {
    const { certificate, key } = makeCertificate(folder);
    return { cert: readFileSync(certificate, "utf8"), key: readFileSync(key, "utf8") };
  };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "bench-"));
    asked = [];
  });
  afterEach(() => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("at the plain port where that is open, whether or not there is HTTPS", async () => {
    const port = await listening(createPlain(answer));
    const https = { serverName: "speech.example.org", port: 1, certificate: made().cert };
    const [sentences, light] = (await run({ port, https })).kinds;
    assert.deepEqual([sentences?.requests, sentences?.errors, sentences?.nodes], [3, 0, { "rs-1": 3 }]);
    assert.ok((light?.requests ?? 0) > 0);
    assert.equal(light?.errors, 0);
  });

  it("by HTTPS where nothing else is open, by name and with a key, whoever vouches for the certificate", async () => {
    const tls = made();
    const port = await listening(createServer(tls, answer));
    const https = { serverName: "speech.example.org", port, certificate: tls.cert, apiKey: "made-up-key" };
    const { kinds } = await run({ port: 7860, servicePort: port, https });
    assert.deepEqual(
      kinds.map(({ kind, errors, reasons }) => [kind, errors, reasons]),
      [
        ["sentence", 0, {}],
        ["light", 0, {}],
      ],
    );
    assert.deepEqual(kinds[0]?.nodes, { "rs-1": 3 });
    for (const { headers } of asked)
      assert.deepEqual(
        [headers.host, headers.authorization],
        [`speech.example.org:${port}`, "Bearer made-up-key"],
      );
  });

  it("nothing of a machine that shows another certificate", async () => {
    const port = await listening(createServer(made(), answer));
    const https = { serverName: "speech.example.org", port, certificate: made().cert, apiKey: "made-up-key" };
    const { kinds } = await run({ port: 7860, servicePort: port, https });
    assert.ok(kinds.every(({ requests, errors }) => requests > 0 && errors === requests));
    assert.match(
      Object.keys(kinds[0]?.reasons ?? {}).join(),
      /^wrong: shows a certificate \(SHA-256 [0-9a-f]{16}\.\.\.\) that was not deployed$/,
    );
    assert.deepEqual(asked, []);
  });

  it("and says so where the other end speaks no TLS", async () => {
    const port = await listening(createPlain(answer));
    const https = { serverName: "speech.example.org", port, certificate: made().cert };
    const { kinds } = await run({ port: 7860, servicePort: port, https });
    assert.match(Object.keys(kinds[0]?.reasons ?? {}).join(), /^tls: WRONG_VERSION_NUMBER$/);
  });
});

describe("scripts/cluster bench", () => {
  const attempts = [
    ...Array.from({ length: 98 }, (_, i) => attempt(i, 1 + i / 100)),
    attempt(98, 9, { node: "rs-2", result: "slow" }),
    attempt(99, 1, { result: "lost", why: "status: 503 full", node: "rs-1" }),
    attempt(5, 0.02, { kind: "request", node: "rs-2" }),
    attempt(6, 2, { kind: "request", result: "cut" }),
  ];
  const result = summarise({ attempts, stalls: [], whole: true }, "client", 50);

  it("counts what ended well, how long that took, and who answered", () => {
    const [sentences, light] = result.kinds;
    assert.deepEqual([sentences?.requests, sentences?.errors], [100, 1]);
    assert.deepEqual(sentences?.nodes, { "rs-1": 98, "rs-2": 1 });
    assert.deepEqual(sentences?.reasons, { "status: 503 full": 1 });
    assert.ok(Math.abs((sentences?.p50 ?? 0) - 1.49) < 0.02, String(sentences?.p50));
    assert.ok(Math.abs((sentences?.p95 ?? 0) - 1.94) < 0.02, String(sentences?.p95));
    assert.equal(sentences?.p99, 9);
    assert.deepEqual(light?.reasons, { "not done when the time was over": 1 });
    assert.equal(result.took, 107);
  });

  it("shows it, with the reasons of what did not end well", () => {
    const text = stripVTControlCharacters(renderBench(result));
    assert.match(text, /^107\.0 s, asked from client, 50 addresses\.$/m);
    assert.match(text, /^sentences +100 +1 +1\.\d\d s +1\.\d\d s +9\.00 s$/m);
    assert.match(text, /^light +2 +1 +20 ms +20 ms +20 ms$/m);
    assert.match(text, /^rs-1 +98 \(99 %\) +0 \(0 %\)$/m);
    assert.match(text, /^! 1 x status: 503 full$/m);
  });

  it("of nothing shows nothing", () => {
    const nothing = summarise({ attempts: [], stalls: [], whole: true }, null, 1);
    assert.deepEqual(nothing.kinds, []);
    assert.match(renderBench(nothing), /^0\.0 s, asked from this computer, 1 address\./);
  });

  it("says what it may come to before it asks", () =>
    assert.equal(
      about({ sentences: 20, atOnce: 2, characters: 120, rate: 5, seconds: 60 }),
      "At most 20 sentences of 120 characters, 2 at a time, 5 light requests a second, for at most 60 s",
    ));

  it("asks from every address of the client's own interface", () => {
    const said = `1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0    inet 192.168.1.50/24 brd 192.168.1.255 scope global eth0\\       valid_lft forever
2: eth0    inet 192.168.1.200/24 scope global secondary eth0\\       valid_lft forever
3: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever`;
    assert.deepEqual(siblings(said, "192.168.1.50"), ["192.168.1.50", "192.168.1.200"]);
    assert.deepEqual(siblings(said, "10.0.0.1"), []);
  });
});
