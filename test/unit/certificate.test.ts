// When scripts/certificate asks for a certificate, sets it and deploys it. With real ones: test/security/acme.test.ts.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CertificateStack, type Issued, keepCertificate } from "../../scripts/certificate-cli/keep";
import { makeCertificate } from "../golden/nginx";

const NAME = "speech.example.org";
let folder: string;

function made(days: number, name = NAME): Issued {
  const { certificate, key } = makeCertificate(folder, name, days);
  return { certificate: readFileSync(certificate, "utf8"), key: readFileSync(key, "utf8") };
}

/** A stack whose configuration is a map; what was done to it. */
function stackWith(config: Record<string, string>, deployed?: Issued) {
  const kept = new Map([["https.enabled", "true"], ["https.serverName", NAME], ...Object.entries(config)]);
  const done: string[] = [];
  let running = deployed?.certificate;
  const stack: CertificateStack = {
    get: async (key) => kept.get(key),
    setSecret: async (key, text) => {
      kept.set(key, text);
      done.push(`set ${key}`);
    },
    deployed: async () => running,
    deploy: async () => {
      running = kept.get("tlsCertificate");
      done.push("deploy");
    },
  };
  return { stack, done, kept };
}

async function keep(stack: CertificateStack, issue: () => Issued | Promise<Issued>, days = 30) {
  const said: string[] = [];
  await keepCertificate(stack, {
    days,
    issue: async () => issue(),
    now: () => new Date(),
    say: (text) => said.push(text),
  });
  return said;
}

const nothing = () => assert.fail("nobody may ask for a certificate");
const secrets = ({ certificate, key }: Issued) => ({ tlsCertificate: certificate, tlsKey: key });
const all = ["set tlsKey", "set tlsCertificate", "deploy"];

describe("scripts/certificate", () => {
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "certificate-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("gets the first one, sets it and deploys it", async () => {
    const { stack, done, kept } = stackWith({});
    const issued = made(90);
    const [why] = await keep(stack, () => issued);
    assert.deepEqual(done, all);
    assert.equal(kept.get("tlsCertificate"), issued.certificate);
    assert.equal(kept.get("tlsKey"), issued.key);
    assert.match(why ?? "", /no certificate and key are set; a new certificate is asked for/);
  });

  it("can leave the deployment to others", async () => {
    const { stack, done } = stackWith({});
    const said: string[] = [];
    await keepCertificate(stack, {
      days: 30,
      issue: async () => made(90),
      now: () => new Date(),
      say: (text) => said.push(text),
      deploy: false,
    });
    assert.deepEqual(done, ["set tlsKey", "set tlsCertificate"]);
    assert.match(said.at(-1) ?? "", /is set, and not deployed/);
  });

  it("does nothing on most days", async () => {
    const good = made(90);
    const { stack, done } = stackWith(secrets(good), good);
    assert.match((await keep(stack, nothing)).join(), /is valid until .*, and deployed/);
    assert.deepEqual(done, []);
  });

  it("replaces one that ends soon, that is for another name, and a key that does not fit", async () => {
    const soon = made(20);
    const other = made(90, "other.example.org");
    const mixed = { certificate: made(90).certificate, key: made(90).key };
    for (const [old, reason] of [
      [soon, /ends on/],
      [other, /is for DNS:other\.example\.org/],
      [mixed, /is not the key of the first certificate/],
    ] as const) {
      const { stack, done } = stackWith(secrets(old), old);
      assert.match((await keep(stack, () => made(90)))[0] ?? "", reason);
      assert.deepEqual(done, all);
    }
    const { stack, done } = stackWith(secrets(soon), soon);
    await keep(stack, nothing, 10);
    assert.deepEqual(done, []);
  });

  it("finishes what an earlier run left undone", async () => {
    const good = made(90);
    const { stack, done } = stackWith(secrets(good), made(20));
    assert.match((await keep(stack, nothing)).join(), /is being deployed/);
    assert.deepEqual(done, ["deploy"]);
    const never = stackWith(secrets(good));
    await keep(never.stack, nothing);
    assert.deepEqual(never.done, ["deploy"]);
  });

  it("sets nothing that is of no use", async () => {
    const { stack, done } = stackWith({});
    await assert.rejects(
      keep(stack, () => made(90, "other.example.org")),
      /The certificate that was issued cannot be used: tlsCertificate is for/,
    );
    await assert.rejects(
      keep(stack, () => Promise.reject(new Error("made up"))),
      /made up/,
    );
    assert.deepEqual(done, []);
  });

  it("says when the stack has no use for one", async () => {
    for (const [config, reason] of [
      [{ "https.enabled": "false" }, /https\.enabled is not true/],
      [{ "https.certificate": "selfSigned" }, /https\.certificate is selfSigned: set it to config/],
      [{ "https.serverName": "192.168.1.100" }, /https\.serverName is 192\.168\.1\.100: a DNS record/],
    ] as const)
      await assert.rejects(keep(stackWith(config).stack, nothing), reason);
  });
});
