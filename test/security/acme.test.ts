// scripts/certificate with what it is made for: the real lego, a real CA's test server, and a real nginx that shows the result.
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connect } from "node:tls";
import { fingerprintOf } from "../../config/certificate";
import { type CertificateStack, keepCertificate } from "../../scripts/certificate-cli/keep";
import { issueByLego } from "../../scripts/certificate-cli/lego";
import { type FrontDoor, startFrontDoor, stopFrontDoor } from "../unit/front-door-fixture";
import { CertificateAuthority } from "./certificateAuthority";

const NAME = "speech.example.org";
/** Days that the CA's certificates are valid. */
const VALID = 90;

let folder: string;
let authority: CertificateAuthority;
let door: FrontDoor | undefined;
let service: Server;
const streams: ServerResponse[] = [];
const environment = { ...process.env };

/** What a stack remembers; its deployment brings certificate and key to nginx, as the layer of secrets does. */
const config = new Map([
  ["https.enabled", "true"],
  ["https.serverName", NAME],
]);
let deployed: string | undefined;
let deployments = 0;
const stack: CertificateStack = {
  get: async (key) => config.get(key),
  setSecret: async (key, text) => {
    config.set(key, text);
  },
  deployed: async () => deployed,
  deploy: async () => {
    deployed = config.get("tlsCertificate") ?? "";
    deployments += 1;
    writeFileSync(join(folder, "certificate.pem"), deployed);
    writeFileSync(join(folder, "key.pem"), config.get("tlsKey") ?? "", { mode: 0o600 });
    if (door !== undefined) door.nginx.kill("SIGHUP");
    else {
      door = await startFrontDoor(folder, { serverName: NAME });
      service.listen(door.app, "127.0.0.1");
    }
  },
};

async function keep(days: number): Promise<void> {
  const said: string[] = [];
  await keepCertificate(stack, {
    days,
    issue: (serverName) =>
      issueByLego(serverName, days, {
        directory: join(folder, "acme"),
        email: "ops@example.org",
        dns: "exec",
        server: authority.directory,
        // The record is there at once, and there is no other server to have it.
        more: ["--dns.disable-cp", "--dns.resolvers", authority.resolver],
      }),
    now: () => new Date(),
    say: (text) => said.push(text),
  });
}

/** The certificate that a client is shown who trusts the CA and asks for the name. */
async function shown(): Promise<string> {
  const ca = await authority.root();
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port: door?.tls ?? 0, servername: NAME, ca }, () => {
      resolve(socket.getPeerCertificate().fingerprint256.replaceAll(":", "").toLowerCase());
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

function ask(path: string, ca: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request({ host: "127.0.0.1", port: door?.tls, path, servername: NAME, ca, agent: false }, resolve)
      .on("error", reject)
      .end();
  });
}

describe("a certificate by ACME", function () {
  this.timeout(120_000);

  before(async function () {
    // Pebble may have to be built.
    this.timeout(600_000);
    folder = mkdtempSync(join(tmpdir(), "acme-"));
    chmodSync(folder, 0o755);
    authority = await CertificateAuthority.start(folder);
    process.env.LEGO_CA_CERTIFICATES = authority.known;
    process.env.EXEC_PATH = authority.setRecord;
    service = createServer((asked, answer) => {
      if (asked.url !== "/stream") return void answer.end("ok");
      answer.writeHead(200, { "content-type": "text/event-stream" });
      answer.write("data: one\n\n");
      streams.push(answer);
    });
  });

  after(async () => {
    process.env = environment;
    if (door !== undefined) await stopFrontDoor(door);
    service.closeAllConnections();
    service.close();
    authority.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it("is issued for a name that a DNS record proves, without a port of the VIP, and shown", async () => {
    await keep(30);
    assert.equal(deployments, 1);
    assert.equal(await shown(), fingerprintOf(config.get("tlsCertificate") ?? ""));
  });

  it("is left alone until it is due", async () => {
    const { mtimeMs } = statSync(join(folder, "acme/certificates", `${NAME}.crt`));
    await keep(30);
    assert.equal(deployments, 1);
    assert.equal(statSync(join(folder, "acme/certificates", `${NAME}.crt`)).mtimeMs, mtimeMs);
  });

  it("is renewed with a new key, and no request is lost and no stream ended by it", async () => {
    const ca = await authority.root();
    const [old, oldKey] = [await shown(), config.get("tlsKey")];
    const stream = await ask("/stream", ca);
    await new Promise((resolve) => stream.once("data", resolve));
    let stop = false;
    let answered = 0;
    const lost: string[] = [];
    const load = (async () => {
      while (!stop)
        await ask("/", ca).then(
          (answer) => {
            answer.resume();
            if (answer.statusCode === 200) answered += 1;
            else lost.push(String(answer.statusCode));
          },
          ({ message }) => lost.push(message),
        );
    })();
    await keep(VALID + 1);
    const renewed = fingerprintOf(config.get("tlsCertificate") ?? "");
    assert.notEqual(renewed, old);
    assert.notEqual(config.get("tlsKey"), oldKey);
    for (const end = Date.now() + 10_000; (await shown()) !== renewed; await sleep(50))
      assert.ok(Date.now() < end, "the certificate of before is still shown");
    stop = true;
    await load;
    assert.deepEqual(lost, []);
    assert.ok(answered > 0);
    const rest: Buffer[] = [];
    stream.on("data", (chunk) => rest.push(chunk));
    for (const open of streams) open.end("data: two\n\n");
    await new Promise((resolve, reject) => stream.on("end", resolve).on("error", reject));
    assert.equal(Buffer.concat(rest).toString(), "data: two\n\n");
  });

  it("is not asked for a second time when a run ended before it was set", async () => {
    const had = readFileSync(join(folder, "acme/certificates", `${NAME}.crt`), "utf8");
    config.delete("tlsCertificate");
    config.delete("tlsKey");
    await keep(30);
    assert.equal(fingerprintOf(config.get("tlsCertificate") ?? ""), fingerprintOf(had));
    assert.equal(deployments, 2, "and it is the one that is deployed");
  });

  it("keeps the account and the keys to whoever runs it", () => {
    assert.equal(statSync(join(folder, "acme")).mode & 0o077, 0);
  });

  it("says why when the record cannot be set, and sets nothing", async () => {
    const had = config.get("tlsCertificate");
    process.env.EXEC_PATH = "/bin/false";
    try {
      await assert.rejects(keep(VALID + 1), /lego did not get a certificate: .*exit status 1/s);
    } finally {
      process.env.EXEC_PATH = authority.setRecord;
    }
    assert.equal(config.get("tlsCertificate"), had);
    assert.equal(deployments, 2);
  });
});
