import assert from "node:assert/strict";
import { Cluster } from "../../components/cluster";
import type { FrontDoorSecrets } from "../../components/frontDoor";
import type { Manifest } from "../../components/remote/manifest";
import { machinesFor, parsed, rawConfig, release } from "./fixture";
import { type Registered, settled, startMocks } from "./mocks";

const COMMAND = "command:remote:Command";
const COPY = "command:remote:CopyToRemote";

async function deploy(
  raw: Record<string, unknown>,
  secrets: { vrrpPassword?: string; peerKey?: string; frontDoor?: FrontDoorSecrets } = {},
  slow?: RegExp,
): Promise<Registered[]> {
  const registered = await startMocks("test", slow);
  const config = parsed(raw);
  new Cluster("c", { config, machines: machinesFor(config), release, ...secrets });
  await settled();
  return registered;
}

function named(registered: Registered[], name: string): Registered {
  const found = registered.filter((resource) => resource.name === name);
  assert.equal(found.length, 1, `exactly one resource is called ${name}`);
  return found[0] as Registered;
}

function manifest(registered: Registered[], name: string): Manifest {
  return JSON.parse(String(named(registered, name).inputs.stdin)) as Manifest;
}

describe("Cluster", () => {
  it("has exactly these children, keyed by machine name", async () => {
    const registered = await deploy(rawConfig());
    assert.deepEqual(registered.map(({ type, name }) => `${type} ${name}`).sort(), [
      `${COMMAND} c-director-1-applier`,
      `${COMMAND} c-director-1-director`,
      `${COMMAND} c-director-2-applier`,
      `${COMMAND} c-director-2-director`,
      `${COMMAND} c-outputs-applier`,
      `${COMMAND} c-outputs-export`,
      `${COMMAND} c-outputs-packages`,
      `${COMMAND} c-outputs-rs-1`,
      `${COMMAND} c-outputs-rs-2`,
      `${COMMAND} c-rs-1-applier`,
      `${COMMAND} c-rs-1-real-server`,
      `${COMMAND} c-rs-2-applier`,
      `${COMMAND} c-rs-2-real-server`,
      `${COMMAND} c-speech-rs-1`,
      `${COMMAND} c-speech-rs-1-stage`,
      `${COMMAND} c-speech-rs-2`,
      `${COMMAND} c-speech-rs-2-stage`,
      `${COMMAND} c-verification-applier`,
      `${COMMAND} c-verification-client`,
      `${COPY} c-speech-rs-1-release`,
      `${COPY} c-speech-rs-2-release`,
      "cosyvoice-lvs:index:Cluster c",
      "cosyvoice-lvs:index:Director c-director-1",
      "cosyvoice-lvs:index:Director c-director-2",
      "cosyvoice-lvs:index:OutputsShare c-outputs",
      "cosyvoice-lvs:index:RealServer c-rs-1",
      "cosyvoice-lvs:index:RealServer c-rs-2",
      "cosyvoice-lvs:index:SpeechService c-speech",
      "cosyvoice-lvs:index:Verification c-verification",
    ]);
  });

  it("pins a host key on every connection, and never asks for triggers", async () => {
    for (const { type, name, inputs } of await deploy(rawConfig())) {
      if (type !== COMMAND && type !== COPY) continue;
      const connection = inputs.connection as Record<string, unknown>;
      assert.match(String(connection.hostKey), /^ssh-ed25519 A+$/, name);
      assert.equal(inputs.triggers, undefined, name);
      if (type === COMMAND) assert.equal(inputs.addPreviousOutputInEnv, false, name);
    }
  });

  it("writes who owns a layer into its manifest and into its removal", async () => {
    const registered = await deploy(rawConfig());
    const { layer, owner } = manifest(registered, "c-rs-2-real-server");
    assert.deepEqual({ layer, owner }, { layer: "real-server", owner: "test/rs-2" });
    assert.equal(
      named(registered, "c-rs-2-real-server").inputs.delete,
      "/usr/local/lib/cosyvoice-lvs/apply remove real-server --owner test/rs-2",
    );
  });

  it("configures keepalived only with a text that keepalived has accepted", async () => {
    const file = manifest(await deploy(rawConfig()), "c-director-1-director").files?.[
      "/etc/keepalived/keepalived.conf"
    ];
    assert.ok(file);
    const { check, checkOk, mode, notify } = file;
    assert.deepEqual(
      { check, checkOk, mode, notify },
      { check: "keepalived -t -f {}", checkOk: [0, 6], mode: "0640", notify: ["reload:keepalived.service"] },
    );
  });

  it("gives keepalived a new real server as dead, until the poller has asked it", async () => {
    const steps = manifest(await deploy(rawConfig()), "c-director-1-director").steps;
    assert.equal(steps?.length, 2);
    assert.match(
      steps[1]?.run ?? "",
      /for name in rs-1 rs-2; do .*echo -1000000 >\$name && echo 1 >\$name\.down/,
    );
    const checkedByKeepalived = { ...rawConfig(), loadBalancer: { check: { kind: "tcp" } } };
    assert.equal(manifest(await deploy(checkedByKeepalived), "c-director-1-director").steps?.length, 1);
  });

  it("keeps the VRRP password out of every manifest but its own, where it is a secret", async () => {
    const raw = {
      ...rawConfig(),
      vrrpPassword: "planted7",
      vrrp: { version: 2, advertInterval: 1, authentication: "PASS" },
    };
    const registered = await deploy(raw, { vrrpPassword: "planted7" });
    const where = registered
      .filter(({ inputs }) => JSON.stringify(inputs).includes("planted7"))
      .map(({ name }) => name);
    assert.deepEqual(where, ["c-director-1-auth", "c-director-2-auth"]);
    assert.equal(manifest(registered, "c-director-1-auth").secret, true);
    assert.deepEqual(named(registered, "c-director-1-auth").secrets, ["connection", "stdin"]);
  });

  it("keeps the peers' key out of every manifest but its own, where it is a secret that restarts nothing", async () => {
    const peerKey = "planted-key-of-thirty-two-letters";
    const registered = await deploy({ ...rawConfig(), peerKey }, { peerKey });
    const where = registered
      .filter(({ inputs }) => JSON.stringify(inputs).includes(peerKey))
      .map(({ name }) => name);
    assert.deepEqual(where.sort(), ["c-speech-rs-1-key", "c-speech-rs-2-key"]);
    const { secret, files, layer } = manifest(registered, "c-speech-rs-2-key");
    assert.deepEqual({ secret, layer }, { secret: true, layer: "service-key" });
    assert.deepEqual(files, {
      "/etc/cosyvoice/peers.key": { mode: "0640", owner: "root:cosyvoice", content: `${peerKey}\n` },
    });
    assert.deepEqual(named(registered, "c-speech-rs-1-key").secrets, ["connection", "stdin"]);
  });

  it("tells real servers of a new one without a restart, and only with a key", async () => {
    const peerKey = "planted-key-of-thirty-two-letters";
    const file = async (count: number) =>
      manifest(await deploy({ ...rawConfig(count), peerKey }, { peerKey }), "c-speech-rs-1").files?.[
        "/etc/cosyvoice/peers.json"
      ];
    const [two, three] = [await file(2), await file(3)];
    assert.equal(two?.notify, undefined);
    assert.deepEqual(JSON.parse(two?.content ?? ""), {
      self: "rs-1",
      peers: [{ name: "rs-2", url: "http://10.0.1.2:7860" }],
    });
    assert.notEqual(two?.content, three?.content);
    const environment = async (count: number) =>
      manifest(await deploy({ ...rawConfig(count), peerKey }, { peerKey }), "c-speech-rs-1").files?.[
        "/etc/cosyvoice/cosyvoice.env"
      ]?.content;
    assert.equal(await environment(2), await environment(3));
    for (const alone of [rawConfig(), { ...rawConfig(), peerKey, service: { peers: false } }]) {
      const { files } = manifest(await deploy(alone, { peerKey }), "c-speech-rs-1");
      assert.equal(files?.["/etc/cosyvoice/peers.json"], undefined);
      assert.doesNotMatch(files?.["/etc/cosyvoice/cosyvoice.env"]?.content ?? "", /PEER/);
    }
  });

  it("stages everywhere before it activates anywhere", async () => {
    const names = (await deploy(rawConfig(5))).map(({ name }) => name);
    const places = (pattern: RegExp) => names.flatMap((name, index) => (pattern.test(name) ? [index] : []));
    assert.equal(places(/^c-speech-rs-\d$/).length, 5);
    assert.ok(Math.max(...places(/-stage$/)) < Math.min(...places(/^c-speech-rs-\d$/)));
  });

  it("takes the share from a real server that leaves only when the directors have let it go", async () => {
    const slow = /^c-director-\d-director$/;
    const names = (await deploy(rawConfig(), {}, slow)).map(({ name }) => name);
    const directors = names.flatMap((name, index) => (slow.test(name) ? [index] : []));
    assert.equal(directors.length, 2);
    assert.ok(names.indexOf("c-outputs-export") > Math.max(...directors));
    assert.ok(names.indexOf("c-outputs-packages") < Math.min(...directors), "its packages do not wait");
  });

  it("changes a node that serves in its turn, with its queue drained", async () => {
    const registered = await deploy({ ...rawConfig(), service: { drainLimit: 77 } });
    assert.deepEqual(manifest(registered, "c-speech-rs-2").around, {
      name: "take a turn",
      run:
        "exec /usr/local/lib/cosyvoice-lvs/turn real-server rs-2 --address 10.0.1.2" +
        " --directors 10.0.0.11:7861,10.0.0.12:7861 --what 'release feedfeedfeedfeed' --port 7860 --drain-limit 77",
    });
    assert.match(
      manifest(registered, "c-director-1-director").around?.run ?? "",
      /turn director director-1 .* --vip 10\.0\.0\.100 --port 7860 --services 7860 --pool 10\.0\.1\.1,10\.0\.1\.2 --drain-limit 77$/,
    );
  });

  it("stages what is in app/, and runs the release that the configuration names", async () => {
    const registered = await deploy({ ...rawConfig(), service: { release: "0123456789abcdef" } });
    assert.match(
      manifest(registered, "c-speech-rs-1-stage").steps?.[0]?.run ?? "",
      /release stage ~root\/\S+ feedfeedfeedfeed$/,
    );
    const { links, preflight } = manifest(registered, "c-speech-rs-1");
    assert.deepEqual(links?.["/opt/cosyvoice/current"], {
      target: "/opt/cosyvoice/releases/0123456789abcdef",
      notify: ["restart:cosyvoice.service"],
    });
    assert.equal(preflight?.[0]?.run, "test -e /opt/cosyvoice/releases/0123456789abcdef/.complete");
  });

  it("puts no VIP on real servers behind NAT", async () => {
    const raw = { ...rawConfig(), loadBalancer: { forwarding: "NAT" } };
    assert.equal(manifest(await deploy(raw), "c-rs-1-real-server").units, undefined);
  });

  it("verifies from the deploying computer when no client machine is given", async () => {
    const registered = await deploy({ ...rawConfig(), verification: {} });
    const { type, inputs } = named(registered, "c-verification-here");
    assert.equal(type, "command:local:Command");
    assert.equal(inputs.create, "python3 host/verify.py");
  });

  it("verifies again when any configured text changes, and only then", async () => {
    const digest = async (raw: Record<string, unknown>) =>
      JSON.parse(String(named(await deploy(raw), "c-verification-client").inputs.stdin)).deployment as string;
    const before = await digest(rawConfig());
    assert.equal(await digest(rawConfig()), before);
    assert.notEqual(await digest({ ...rawConfig(), vrrp: { advertInterval: 0.2 } }), before);
  });

  it("grows by the same resources for each real server", async () => {
    const counts = await Promise.all([1, 2].map(() => 0));
    for (const [index, size] of [10, 20].entries()) counts[index] = (await deploy(rawConfig(size))).length;
    assert.equal((counts[1] ?? 0) - (counts[0] ?? 0), 10 * 7);
  });
});
