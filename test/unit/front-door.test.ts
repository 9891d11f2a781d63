// The front door as clients meet it: a real nginx with the rendered configuration, before a stand-in for the speech service.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import { fingerprintOf } from "../../config/certificate";
import { paths, renderProberConfig } from "../../render";
import { madeUpApiKeys, makeCertificate } from "../golden/nginx";
import type { RawOverrides } from "./config-fixture";
import { ask, type FrontDoor, freePorts, startFrontDoor, stopFrontDoor } from "./front-door-fixture";
import { monitor } from "./monitoring-fixture";

let folder: string;
let nginx: ChildProcess | undefined;
const servers: Server[] = [];

/** A stand-in for the speech service at an address; it tells what it was asked. */
async function service(address: string, port: number, more?: RequestListener): Promise<Server> {
  const server = createServer((asked, answer) => {
    if (more !== undefined && asked.url?.startsWith("/more")) return more(asked, answer);
    asked.resume().on("end", () => {
      answer.end(JSON.stringify({ address, url: asked.url, headers: asked.headers }));
    });
  });
  await new Promise<void>((done) => server.listen(port, address, done));
  servers.push(server);
  return server;
}

/** Starts nginx for the first real server; what it listens on. */
async function frontDoor(https: RawOverrides = {}, more: RawOverrides = {}): Promise<FrontDoor> {
  const door = await startFrontDoor(folder, https, more);
  nginx = door.nginx;
  return door;
}

/** The lines of so many requests; of the pollers' there are none. */
async function logged(door: FrontDoor, count: number): Promise<Record<string, unknown>[]> {
  for (const end = Date.now() + 10_000; door.logged.length < count; await sleep(20))
    assert.ok(Date.now() < end, `${door.logged.length} lines: ${door.logged.join("\n")}`);
  await sleep(100);
  assert.equal(door.logged.length, count);
  return door.logged.map((line) => {
    const [, text] = /^<190>\w{3} [ \d]\d [\d:]{8} requests: (\{.*\})$/.exec(line) ?? [];
    assert.ok(text, line);
    return JSON.parse(text);
  });
}

describe("the front door", () => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "front-door-"));
    // As root, nginx keeps what it buffers as another user.
    chmodSync(folder, 0o755);
  });

  afterEach(async () => {
    const running = nginx;
    nginx = undefined;
    if (running !== undefined) await stopFrontDoor({ nginx: running });
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
    rmSync(folder, { recursive: true, force: true });
  });

  it("tells the service who asks and how, whatever the client says of itself", async () => {
    const door = await frontDoor();
    await service("127.0.0.1", door.app);
    const said = {
      "X-Forwarded-For": "9.9.9.9",
      "X-Forwarded-Proto": "http",
      "X-Leaving": "1",
      Host: "speech.example.org:8443",
    };
    const { status, text } = await ask(door, "/v1/models?a=%2F", { headers: said });
    const { url, headers } = JSON.parse(text);
    assert.equal(status, 200);
    assert.equal(url, "/v1/models?a=%2F");
    assert.deepEqual(
      ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-leaving"].map(
        (key) => headers[key],
      ),
      ["speech.example.org:8443", "127.0.0.1", "https", "speech.example.org:8443", undefined],
    );
  });

  it("keeps what nodes ask each other from everybody, however it is spelt", async () => {
    const door = await frontDoor();
    let asked = 0;
    (await service("127.0.0.1", door.app)).on("request", () => {
      asked += 1;
    });
    for (const path of [
      "/metrics",
      "/readyz",
      "/readyz/",
      "/peer/turn",
      "//peer/has?key=a",
      "/%70eer/turn",
      "/x/../metrics",
    ])
      assert.equal((await ask(door, path)).status, 404, path);
    assert.equal(asked, 0);
    assert.equal((await ask(door, "/healthz")).status, 200);
    assert.equal((await ask(door, "/metrics-of-mine")).status, 200);
  });

  it("sends port 80 to the name, and a POST stays one", async () => {
    const door = await frontDoor();
    const { status, headers } = await fetch(`http://127.0.0.1:${door.plain}/v1/audio?a=1`, {
      redirect: "manual",
      headers: { host: "evil.example.org" },
    });
    assert.equal(status, 308);
    assert.equal(headers.get("location"), `https://speech.example.org:${door.tls}/v1/audio?a=1`);
  });

  it("speaks HTTP/2 and TLS 1.2 or newer", async () => {
    const door = await frontDoor();
    await service("127.0.0.1", door.app);
    const session = connectHttp2(`https://127.0.0.1:${door.tls}`, { ca: door.ca() });
    const status = await new Promise((resolve, reject) => {
      session.on("error", reject);
      const stream = session.request({ ":path": "/healthz" });
      stream.on("response", (headers) => resolve(headers[":status"]));
      stream.on("error", reject);
    });
    session.destroy();
    assert.equal(status, 200);
    const old = new Promise((resolve, reject) => {
      const socket = connectTls(
        { host: "127.0.0.1", port: door.tls, ca: door.ca(), maxVersion: "TLSv1.1", minVersion: "TLSv1" },
        () => resolve(undefined),
      );
      socket.on("error", reject);
    });
    await assert.rejects(old);
  });

  it("passes an event on before the next one is there, and reads a new certificate without ending the stream", async () => {
    const door = await frontDoor();
    let goOn: () => void = () => assert.fail("nobody asked for the stream");
    await service("127.0.0.1", door.app, (_, answer) => {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      answer.write("data: one\n\n");
      goOn = () => answer.end("data: two\n\n");
    });
    const stream = await new Promise<IncomingMessage>((resolve, reject) => {
      request({ host: "127.0.0.1", port: door.tls, path: "/more", ca: door.ca(), agent: false }, resolve)
        .on("error", reject)
        .end();
    });
    const first = await new Promise((resolve) => stream.once("data", resolve));
    assert.equal(String(first), "data: one\n\n");

    // Requests on and on, each a connection of its own, over the change.
    const before = fingerprintOf(door.ca().toString());
    let stop = false;
    const lost: string[] = [];
    let answered = 0;
    const load = (async () => {
      while (!stop) {
        await ask(door, "/healthz", { rejectUnauthorized: false }).then(
          ({ status }) => (status === 200 ? answered++ : lost.push(String(status))),
          (error) => lost.push(error.message),
        );
      }
    })();
    makeCertificate(folder);
    nginx?.kill("SIGHUP");
    const shown = () =>
      new Promise<string>((resolve, reject) => {
        const socket = connectTls({ host: "127.0.0.1", port: door.tls, rejectUnauthorized: false }, () => {
          resolve(socket.getPeerCertificate().fingerprint256.replaceAll(":", "").toLowerCase());
          socket.destroy();
        });
        socket.on("error", reject);
      });
    const after = fingerprintOf(door.ca().toString());
    assert.notEqual(after, before);
    // A worker of before may take a last connection.
    for (let inARow = 0, end = Date.now() + 10_000; inARow < 5; await sleep(20)) {
      inARow = (await shown()) === after ? inARow + 1 : 0;
      assert.ok(Date.now() < end, "the certificate of before is still shown");
    }
    stop = true;
    await load;
    assert.deepEqual(lost, []);
    assert.ok(answered > 0);

    const rest: Buffer[] = [];
    stream.on("data", (chunk) => rest.push(chunk));
    goOn();
    await new Promise((resolve, reject) => stream.on("end", resolve).on("error", reject));
    assert.equal(Buffer.concat(rest).toString(), "data: two\n\n");
  });

  it("has another node answer on a kept connection while the service beside it is being changed", async () => {
    const door = await frontDoor();
    const here = await service("127.0.0.1", door.app);
    await service("127.0.0.2", door.app);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const post = async () =>
      JSON.parse((await ask(door, "/v1/audio/speech", { agent, method: "POST", body: "{}" })).text).address;
    try {
      assert.equal(await post(), "127.0.0.1");
      here.closeAllConnections();
      await new Promise((done) => here.close(done));
      assert.equal(await post(), "127.0.0.2");
      await service("127.0.0.1", door.app);
      assert.equal(await post(), "127.0.0.1", "and the own service again as soon as it is there");
    } finally {
      agent.destroy();
    }
  });

  it("lets in who has a key or a login, and tells the service of keys only", async () => {
    const door = await frontDoor({ plainPort: "closed" }, { apiKeys: true, httpUsers: true });
    await service("127.0.0.1", door.app);
    const login = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
    const [key, other] = madeUpApiKeys;
    const passedOn = async (authorization?: string) => {
      const answer = await ask(door, "/", authorization === undefined ? {} : { headers: { authorization } });
      return answer.status === 200 ? JSON.parse(answer.text).headers.authorization : answer.status;
    };
    assert.equal(await passedOn(), 401);
    assert.equal(await passedOn(`Bearer ${key}`), `Bearer ${key}`);
    assert.equal(await passedOn(`bearer ${other}`), `bearer ${other}`);
    assert.equal(await passedOn(login("made-up:made-up-password")), undefined);
    for (const wrong of [
      `Bearer ${key.toUpperCase()}`,
      `Bearer ${key}x`,
      `Bearer x${key}`,
      `Bearer ${other.replace(".", "x")}`,
      "Bearer ",
      login("made-up:other"),
      login(`Bearer ${key}:`),
    ])
      assert.equal(await passedOn(wrong), 401, wrong);
  });

  it("answers the prober, which knows its certificate and has a key", async () => {
    const door = await frontDoor({ plainPort: "closed" }, { apiKeys: true, monitoring: monitor() });
    await service("127.0.0.1", door.app);
    const { monitoring } = door.config;
    assert.ok(monitoring);
    const [port = 0] = await freePorts(1);
    const text = renderProberConfig({ ...door.config, monitoring }).replaceAll(paths.frontDoor, folder);
    writeFileSync(join(folder, "prober.yml"), text);
    const key = join(folder, "asking-key");
    writeFileSync(key, madeUpApiKeys[0]);
    const prober = spawn(
      "prometheus-blackbox-exporter",
      [`--config.file=${join(folder, "prober.yml")}`, `--web.listen-address=127.0.0.1:${port}`],
      { stdio: "ignore" },
    );
    const ended = new Promise((done) => prober.once("exit", done));
    try {
      const target = `https://127.0.0.1:${door.tls}/healthz`;
      const ask = () => fetch(`http://127.0.0.1:${port}/probe?module=http&target=${target}`);
      const seen = async () => /^probe_success (\d)$/m.exec(await (await ask()).text())?.[1];
      for (const end = Date.now() + 10_000; !(await ask().catch(() => undefined)); await sleep(50))
        assert.ok(Date.now() < end, "the prober does not answer");
      assert.equal(await seen(), "1");
      writeFileSync(key, "another-key-of-nobody");
      assert.equal(await seen(), "0", "without its key");
      writeFileSync(key, madeUpApiKeys[0]);
      assert.equal(await seen(), "1", "and with it again");
      makeCertificate(folder);
      assert.equal(await seen(), "0", "when another certificate was deployed than is shown");
      makeCertificate(folder, "other.example.org");
      nginx?.kill("SIGHUP");
      await sleep(500);
      assert.equal(await seen(), "0", "when it is for another name");
    } finally {
      prober.kill();
      await ended;
    }
  });

  it("tells browsers to stay with HTTPS where nothing else is offered", async () => {
    const door = await frontDoor({ plainPort: "closed" });
    await service("127.0.0.1", door.app);
    for (const path of ["/", "/metrics"])
      assert.equal((await ask(door, path)).headers["strict-transport-security"], "max-age=63072000", path);
  });

  it("logs a request under the id that the service and the client are told, and nothing that is secret", async () => {
    const door = await frontDoor({ plainPort: "closed" }, { apiKeys: true });
    await service("127.0.0.1", door.app);
    const [key] = madeUpApiKeys;
    const headers = {
      authorization: `Bearer ${key}`,
      cookie: "made-up-cookie",
      referer: "https://x/?made-up-from",
    };
    const named = await ask(door, "/v1/audio/speech?made-up-query", {
      headers: { ...headers, "X-Request-Id": "made-up.id_1" },
      method: "POST",
      body: "made-up-body",
    });
    assert.equal(JSON.parse(named.text).headers["x-request-id"], "made-up.id_1");
    assert.equal(named.headers["x-request-id"], "made-up.id_1");
    const refused = await ask(door, "/v1/models", { headers: { authorization: "Bearer made-up-other" } });
    const unnamed = await ask(door, "/v1/models", { headers: { ...headers, "X-Request-Id": 'no "name"' } });
    const [id, given] = [refused, unnamed].map((answer) => String(answer.headers["x-request-id"]));
    assert.match(`${id} ${given}`, /^[0-9a-f]{32} [0-9a-f]{32}$/);
    assert.equal(JSON.parse(unnamed.text).headers["x-request-id"], given);
    // A key in the place of a name, and a request that nobody answers.
    const mistaken = Buffer.from(`${key}:`).toString("base64");
    assert.equal((await ask(door, "/", { headers: { authorization: `Basic ${mistaken}` } })).status, 401);
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
    assert.equal((await ask(door, "/v1/voices?made-up-query", { headers })).status, 502);
    const lines = await logged(door, 5);
    assert.deepEqual(
      lines.slice(0, 3).map(({ seconds: _, bytes_in: __, bytes_out: ___, asked_s: ____, ...line }) => line),
      [
        { request_id: "made-up.id_1", method: "POST", path: "/v1/audio/speech", status: "200" },
        { request_id: id, method: "GET", path: "/v1/models", status: "401", asked: "" },
        { request_id: given, method: "GET", path: "/v1/models", status: "200" },
      ].map((line) => ({
        log: "door",
        client: "127.0.0.0/24",
        protocol: "HTTP/1.1",
        asked: `127.0.0.1:${door.app}`,
        ...line,
      })),
    );
    const [first, ...others] = String(lines[4]?.asked).split(", ");
    assert.deepEqual([lines[4]?.status, first], ["502", `127.0.0.1:${door.app}`]);
    assert.equal(others.length, 2, "both others were asked in its place");
    const said = door.logged.join() + door.errors.join();
    assert.doesNotMatch(said, /made-up-(key|other|cookie|query|from|body)|a-made-up/);
  });

  it("logs what is sent in order to break a log as one line that can be read", async () => {
    const door = await frontDoor();
    await service("127.0.0.1", door.app);
    const hostile = [
      ['/a"%22\\%0a{}', '/a"%22\\%0a{}'],
      [`/${"b".repeat(5000)}`, `/${"b".repeat(199)}`],
      ["/c\x80\xff", "/c"],
      ["/d?e", "/d"],
    ] as const;
    for (const [path] of hostile) {
      // What no client of HTTP would send.
      const socket = connectTls({ host: "127.0.0.1", port: door.tls, ca: door.ca() });
      socket.end(Buffer.from(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, "latin1"));
      await new Promise((done) => socket.on("error", done).on("close", done).resume());
    }
    assert.equal((await fetch(`http://127.0.0.1:${door.health}`)).status, 200);
    const redirected = await fetch(`http://127.0.0.1:${door.plain}/f`, { redirect: "manual" });
    assert.equal(redirected.status, 308);
    const lines = await logged(door, hostile.length + 1);
    assert.deepEqual(
      lines.map(({ path }) => path),
      [...hostile.map(([, path]) => path), "/f"],
    );
  });

  it("limits each client's connections", async () => {
    const door = await frontDoor({ connections: 3 });
    const waiting: (() => void)[] = [];
    await service("127.0.0.1", door.app, (_, answer) => {
      waiting.push(() => answer.end());
    });
    const held = Array.from({ length: 3 }, () => ask(door, "/more"));
    for (const end = Date.now() + 10_000; waiting.length < 3; await sleep(20))
      assert.ok(Date.now() < end, "three are let in");
    assert.equal((await ask(door, "/")).status, 429);
    for (const goOn of waiting) goOn();
    assert.deepEqual(
      (await Promise.all(held)).map(({ status }) => status),
      [200, 200, 200],
    );
    assert.equal((await ask(door, "/")).status, 200);
  });

  it("limits each client, and what it uploads", async () => {
    const door = await frontDoor({ requestsPerSecond: 1, uploadLimit: 1 });
    await service("127.0.0.1", door.app);
    const body = Buffer.alloc(2 ** 20 - 1000);
    assert.equal((await ask(door, "/", { method: "POST", body })).status, 200);
    const large = await ask(door, "/", {
      method: "POST",
      headers: { "content-length": 2 ** 20 + 1, expect: "100-continue" },
    }).catch(({ message }) => message);
    assert.equal(typeof large === "string" ? large : large.status, 413);
    const answers = await Promise.all(Array.from({ length: 30 }, () => ask(door, "/")));
    const statuses = answers.map(({ status }) => status);
    assert.ok(statuses.includes(200) && statuses.includes(429), statuses.join(" "));
    assert.deepEqual([...new Set(statuses)].sort(), [200, 429]);
    // A flood fills no journal: of what is refused by a limit, one in a hundred is logged.
    await sleep(200);
    const refusals = door.logged.filter((line) => line.includes('"status":"429"')).length;
    assert.ok(refusals <= 2, `${refusals} lines of ${statuses.filter((status) => status === 429).length}`);
  });
});
