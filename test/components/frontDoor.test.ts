import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster } from "../../components/cluster";
import type { Manifest } from "../../components/remote/manifest";
import { fingerprintOf } from "../../config/certificate";
import { makeCertificate } from "../golden/nginx";
import { machinesFor, parsed, rawConfig, release } from "./fixture";
import { type Registered, settled, startMocks } from "./mocks";

let tlsCertificate = "";
let tlsKey = "";
const apiKeys = "planted-key-of-thirty-two-letters";
const httpUsers = "planted:$6$planted$plantedhash";

async function deploy(
  https: Record<string, unknown>,
  more: Record<string, unknown> = {},
): Promise<Registered[]> {
  const registered = await startMocks();
  const own = https.certificate === "selfSigned";
  const secrets = { ...(own ? {} : { tlsCertificate, tlsKey }), ...more };
  const config = parsed({
    ...rawConfig(),
    https: { enabled: true, serverName: "speech.example.org", ...https },
    ...secrets,
  });
  new Cluster("c", { config, machines: machinesFor(config), release, frontDoor: secrets });
  await settled();
  return registered;
}

const named = (registered: Registered[], name: string): Registered => {
  const found = registered.filter((resource) => resource.name === name);
  assert.equal(found.length, 1, `exactly one resource is called ${name}`);
  return found[0] as Registered;
};

const manifest = (registered: Registered[], name: string): Manifest =>
  JSON.parse(String(named(registered, name).inputs.stdin));

describe("FrontDoor", () => {
  before(() => {
    const folder = mkdtempSync(join(tmpdir(), "front-door-component-"));
    const made = makeCertificate(folder);
    tlsCertificate = readFileSync(made.certificate, "utf8");
    tlsKey = readFileSync(made.key, "utf8");
    rmSync(folder, { recursive: true });
  });

  it("has three layers on every real server: secrets, configuration, unit", async () => {
    const registered = await deploy({});
    assert.deepEqual(
      registered
        .filter(({ name }) => name.startsWith("c-front-door"))
        .map(({ name }) => name)
        .sort(),
      [
        "c-front-door",
        "c-front-door-rs-1",
        "c-front-door-rs-1-config",
        "c-front-door-rs-1-secrets",
        "c-front-door-rs-2",
        "c-front-door-rs-2-config",
        "c-front-door-rs-2-secrets",
      ],
    );
  });

  it("restarts nothing and takes no turn for a certificate or a setting", async () => {
    const registered = await deploy({});
    for (const part of ["secrets", "config"]) {
      const { files, around, layer } = manifest(registered, `c-front-door-rs-1-${part}`);
      assert.equal(layer, `front-door-${part}`);
      assert.equal(around, undefined);
      for (const { notify } of Object.values(files ?? {}))
        assert.deepEqual(notify, ["reload:cosyvoice-front-door.service"]);
    }
    assert.match(manifest(registered, "c-front-door-rs-1").around?.run ?? "", /turn real-server rs-1 /);
  });

  it("keeps key, API keys and logins out of every manifest but their own, where they are secrets for nginx alone", async () => {
    const registered = await deploy({ plainPort: "closed" }, { apiKeys, httpUsers });
    const where = (planted: string) =>
      registered
        .filter(({ inputs }) => JSON.stringify(inputs).includes(planted))
        .map(({ name }) => name)
        .sort();
    const own = ["c-front-door-rs-1-secrets", "c-front-door-rs-2-secrets"];
    const keyLine = tlsKey.split("\n")[1] ?? "";
    assert.ok(keyLine.length > 30);
    assert.deepEqual(where(keyLine), own);
    assert.deepEqual(where("plantedhash"), own);
    // The deployment asks with the first key.
    assert.deepEqual(where(apiKeys), [...own, "c-verification-client"]);
    assert.deepEqual(named(registered, "c-verification-client").secrets, ["connection", "stdin"]);
    assert.deepEqual(named(registered, "c-front-door-rs-1-secrets").secrets, ["connection", "stdin"]);
    const { secret, files } = manifest(registered, "c-front-door-rs-1-secrets");
    assert.equal(secret, true);
    const modes = Object.entries(files ?? {}).map(
      ([path, { mode, owner }]) => `${path.split("/").at(-1)} ${mode} ${owner}`,
    );
    assert.deepEqual(modes.sort(), [
      "api-keys.conf 0640 root:www-data",
      "certificate.pem 0644 root:root",
      "key.pem 0640 root:www-data",
      "users 0640 root:www-data",
    ]);
  });

  it("has the verification ask by HTTPS for the certificate that was given, in a preview that can be read", async () => {
    const open = await deploy({});
    const expected = JSON.parse(String(named(open, "c-verification-client").inputs.stdin));
    assert.equal(expected.port, 7860);
    assert.deepEqual(expected.https, {
      port: 443,
      serverName: "speech.example.org",
      fingerprint: fingerprintOf(tlsCertificate),
      key: null,
    });
    assert.deepEqual(named(open, "c-verification-client").secrets, ["connection"]);
    const closed = await deploy({ plainPort: "closed" });
    assert.equal(JSON.parse(String(named(closed, "c-verification-client").inputs.stdin)).port, null);
  });

  it("starts a real server's door as closed for keepalived, at every port", async () => {
    const { steps, checks } = manifest(await deploy({}), "c-director-1-director");
    assert.match(
      steps?.[1]?.run ?? "",
      /\[ -e \$name\.door \] \|\| \{ echo 1 >\S+ && mv -fT \S+ \$name\.door; \};/,
    );
    assert.match(steps?.[1]?.unless ?? "", /\[ -e \$name\.down \] && \[ -e \$name\.door \] \|\| exit 1/);
    assert.deepEqual(
      checks?.map(({ run }) => /-t (\S+)/.exec(run)?.[1]).filter((service) => service !== undefined),
      ["10.0.0.100:7860", "10.0.0.100:443", "10.0.0.100:80"],
    );
  });

  it("closes the plain port of real servers where that was asked for, and filters nothing else", async () => {
    const without = await deploy({});
    assert.ok(!without.some(({ name }) => name.startsWith("c-firewall-")));
    // The filter's own layer would go after the proof that clients are served, which it may keep from passing.
    for (const layer of ["c-director-1-director", "c-rs-1-real-server"])
      assert.equal(
        manifest(without, layer).steps?.at(-1)?.run,
        "systemctl stop cosyvoice-firewall.service",
        layer,
      );
    const registered = await deploy({ plainPort: "closed" });
    assert.deepEqual(
      registered
        .filter(({ name }) => name.startsWith("c-firewall-"))
        .map(({ name }) => name)
        .sort(),
      ["c-firewall-rs-1", "c-firewall-rs-2"],
    );
    const [opens, closes] = ["c-director-1-director", "c-rs-1-real-server"].map((layer) =>
      manifest(registered, layer).steps?.at(-1),
    );
    assert.match(opens?.run ?? "", / stop /);
    assert.match(closes?.run ?? "", / start /);
    const { files, checks, around } = manifest(registered, "c-firewall-rs-1");
    assert.doesNotMatch(files?.["/etc/cosyvoice-lvs/firewall.nft"]?.content ?? "", /policy drop/);
    assert.deepEqual([checks, around], [[], undefined]);
  });

  it("filters on every machine of a role, and lets nobody be shut out who is connected", async () => {
    const registered = await deploy({}, { firewall: { enabled: true, admins: ["10.9.0.0/16"] } });
    const layers = registered.filter(({ name }) => name.startsWith("c-firewall-"));
    assert.deepEqual(layers.map(({ name }) => name).sort(), [
      "c-firewall-director-1",
      "c-firewall-director-2",
      "c-firewall-rs-1",
      "c-firewall-rs-2",
      "c-firewall-storage",
    ]);
    for (const { name } of layers) {
      const { files, checks } = manifest(registered, name);
      assert.match(files?.["/etc/cosyvoice-lvs/firewall.nft"]?.content ?? "", /policy drop;/);
      assert.equal(checks?.length, 1);
      assert.match(checks?.[0]?.run ?? "", /sport = :22.*firewall\.admins does not have it/);
    }
  });

  it("makes a certificate of its own with Pulumi's provider, for the name and the VIP", async () => {
    const registered = await startMocks("test", undefined, {
      "tls:index/privateKey:PrivateKey": { privateKeyPem: "made-up key" },
      "tls:index/selfSignedCert:SelfSignedCert": { certPem: tlsCertificate },
    });
    const config = parsed({
      ...rawConfig(),
      https: { enabled: true, serverName: "speech.example.org", certificate: "selfSigned" },
    });
    new Cluster("c", { config, machines: machinesFor(config), release });
    await settled();
    const { algorithm, ecdsaCurve } = named(registered, "c-front-door-key").inputs;
    assert.deepEqual({ algorithm, ecdsaCurve }, { algorithm: "ECDSA", ecdsaCurve: "P256" });
    const { dnsNames, ipAddresses, validityPeriodHours } = named(
      registered,
      "c-front-door-certificate",
    ).inputs;
    assert.deepEqual(
      { dnsNames, ipAddresses, validityPeriodHours },
      { dnsNames: ["speech.example.org"], ipAddresses: ["10.0.0.100"], validityPeriodHours: 8760 },
    );
    const { files } = manifest(registered, "c-front-door-rs-2-secrets");
    assert.equal(files?.["/etc/cosyvoice-lvs/front-door/key.pem"]?.content, "made-up key\n");
    assert.equal(files?.["/etc/cosyvoice-lvs/front-door/certificate.pem"]?.content, tlsCertificate);
  });
});
