// `scripts/cluster speak` without a client machine: the real curl, before a stand-in for the service.
import assert from "node:assert/strict";
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
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import { renderSpoken, reportOf, speak } from "../../scripts/cluster-cli/speak";
import { makeCertificate } from "../golden/nginx";

const ssh = undefined as unknown as OpenSsh;
const text = 'Quoted: "x" \\ $HOME `id`\nand 你好.';

let folder: string;
let server: Server | undefined;
let asked: { headers: IncomingMessage["headers"]; body: string }[] = [];

function answer(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    asked.push({ headers: request.headers, body: Buffer.concat(chunks).toString() });
    const headers = { "X-Served-By": "rs-1", "X-Request-Id": "made-up", "X-Cache": "miss" };
    response.writeHead(200, { ...headers, "X-Result-Seconds": "1.5" });
    response.end("sound");
  });
}

async function listening(made: Server): Promise<number> {
  server = made;
  await new Promise<void>((done) => made.listen(0, "127.0.0.1", done));
  return (made.address() as AddressInfo).port;
}

const inventory = (more: Partial<Inventory>): Inventory => ({
  platform: "hosts",
  vip: "127.0.0.1",
  port: 1,
  ssh: { connectTimeout: 1 },
  machines: [],
  ...more,
});

describe("speak", () => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "speak-"));
    asked = [];
  });
  afterEach(() => {
    server?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("asks at the plain port without HTTPS", async () => {
    const port = await listening(createPlain(answer));
    const spoken = await speak(inventory({ port }), ssh, text, { voice: "a", seed: 7 });
    assert.equal(spoken.audio.toString(), "sound");
    const { took, ...told } = reportOf("a.wav", spoken);
    assert.deepEqual(told, {
      ...{ file: "a.wav", bytes: 5, node: "rs-1", request: "made-up", cache: "miss", seconds: 1.5 },
    });
    assert.equal(
      renderSpoken("a.wav", { ...spoken, took: 2 }),
      "a.wav: 1.5 s of audio, made by rs-1 in 2.0 s. More: scripts/cluster logs --request made-up",
    );
    const [one] = asked;
    assert.deepEqual(JSON.parse(one?.body ?? ""), { model: "cosyvoice3", input: text, voice: "a", seed: 7 });
    assert.deepEqual(
      [one?.headers.authorization, one?.headers["cache-control"], one?.headers["content-type"]],
      [undefined, undefined, "application/json"],
    );
  });

  it("says in words why it was not said, and where more is", async () => {
    const port = await listening(
      createPlain((_, response) => {
        response.writeHead(503, { "X-Served-By": "rs-1", "X-Request-Id": "made-up" });
        response.end('{"error": {"message": "The queue is full.", "type": "made up", "code": "queue_full"}}');
      }),
    );
    await assert.rejects(speak(inventory({ port }), ssh, text), {
      message:
        "rs-1 answered 503: The queue is full (queue_full). More: scripts/cluster logs --request made-up",
    });
  });

  it("says what came where that is no error of the service", async () => {
    const port = await listening(
      createPlain((_, response) => response.writeHead(502).end("<html>made up</html>")),
    );
    await assert.rejects(speak(inventory({ port }), ssh, text), {
      message: "127.0.0.1 answered 502: <html>made up</html>.",
    });
  });

  it("asks by HTTPS where that is on, by name and with a key, whoever vouches for the certificate", async () => {
    const made = makeCertificate(folder);
    const [cert, key] = [readFileSync(made.certificate, "utf8"), readFileSync(made.key, "utf8")];
    const port = await listening(createServer({ cert, key }, answer));
    const https = { serverName: "speech.example.org", port, certificate: cert, apiKey: "made-up-key" };
    const { audio } = await speak(inventory({ https }), ssh, text, { cache: false });
    assert.equal(audio.toString(), "sound");
    assert.deepEqual(
      [asked[0]?.headers.authorization, asked[0]?.headers["cache-control"], asked[0]?.headers.host],
      ["Bearer made-up-key", "no-cache", `speech.example.org:${port}`],
    );
  });

  it("tells nothing to a machine that shows another key", async () => {
    const made = makeCertificate(folder);
    const [cert, key] = [readFileSync(made.certificate, "utf8"), readFileSync(made.key, "utf8")];
    const other = readFileSync(makeCertificate(folder).certificate, "utf8");
    const port = await listening(createServer({ cert, key }, answer));
    const https = { serverName: "speech.example.org", port, certificate: other };
    await assert.rejects(
      speak(inventory({ https }), ssh, text),
      /Nobody answers at 127\.0\.0\.1:\d+: .*pinned/,
    );
    assert.deepEqual(asked, []);
  });
});
