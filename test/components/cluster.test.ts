import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster } from "../../components/cluster";
import type { FrontDoorSecrets } from "../../components/frontDoor";
import type { Manifest } from "../../components/remote/manifest";
import type { Engine } from "../../components/speechEngine";
import { engine, machinesFor, parsed, rawConfig, release } from "./fixture";
import { type Registered, settled, startMocks } from "./mocks";

const COMMAND = "command:remote:Command";
const COPY = "command:remote:CopyToRemote";

async function deploy(
  raw: Record<string, unknown>,
  secrets: { vrrpPassword?: string; peerKey?: string; frontDoor?: FrontDoorSecrets; engine?: Engine } = {},
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
    const named = "start new real servers as dead";
    const step = (registered: Registered[]) =>
      manifest(registered, "c-director-1-director").steps?.find(({ name }) => name === named);
    const run = step(await deploy(rawConfig()))?.run ?? "";
    const folder = mkdtempSync(join(tmpdir(), "track-"));
    mkdirSync(join(folder, "track"));
    const track = (name: string) => readFileSync(join(folder, "track", name), "utf8");
    // What is there stays; and a link that the poller put there is no way to another file.
    writeFileSync(join(folder, "track/rs-1"), "0\n");
    writeFileSync(join(folder, "track/rs-1.down"), "0\n");
    writeFileSync(join(folder, "another"), "whole\n");
    symlinkSync("../another", join(folder, "track/rs-2"));
    execFileSync("sh", ["-ec", run.replaceAll("/run/cosyvoice-lvs", folder)]);
    assert.deepEqual(
      [
        ...["rs-1", "rs-1.down", "rs-2", "rs-2.down"].map(track),
        readFileSync(join(folder, "another"), "utf8"),
      ],
      ["0\n", "0\n", "-1000000\n", "1\n", "whole\n"],
    );
    rmSync(folder, { recursive: true });
    const checkedByKeepalived = { ...rawConfig(), loadBalancer: { check: { kind: "tcp" } } };
    assert.equal(step(await deploy(checkedByKeepalived)), undefined);
  });

  it("makes the users that a director's programs run as, by names and not by numbers", async () => {
    assert.deepEqual(manifest(await deploy(rawConfig()), "c-director-1-director").users, [
      { name: "cosyvoice-health", home: "/nonexistent" },
      { name: "cosyvoice-turns", home: "/nonexistent" },
    ]);
    const checkedByKeepalived = { ...rawConfig(), loadBalancer: { check: { kind: "tcp" } } };
    assert.deepEqual(manifest(await deploy(checkedByKeepalived), "c-director-1-director").users, [
      { name: "cosyvoice-turns", home: "/nonexistent" },
    ]);
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
    // Until the other director has it, too, the standby leaves the VIP alone; its other layer does not end that.
    const { steps } = manifest(registered, "c-director-1-auth");
    assert.deepEqual(
      steps?.map(({ run }) => run),
      ["echo 3 >/run/cosyvoice-lvs/new && mv -fT /run/cosyvoice-lvs/new /run/cosyvoice-lvs/turns/stand-down"],
    );
    assert.equal(
      manifest(registered, "c-director-1-director").steps?.[0]?.unless,
      "! test -e /run/cosyvoice-lvs/turns/stand-down || grep -qx 3 /run/cosyvoice-lvs/turns/stand-down",
    );
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

  it("tells real servers of a new director without a restart", async () => {
    const directors = manifest(await deploy(rawConfig()), "c-speech-rs-1").files?.[
      "/etc/cosyvoice/directors"
    ];
    assert.equal(directors?.notify, undefined);
    const addresses = parsed(rawConfig()).directors.map(({ address }) => address);
    assert.ok(addresses.length > 1);
    assert.equal(directors?.content, addresses.map((address) => `${address}\n`).join(""));
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

  describe("with the engine cosyvoice", () => {
    const gpu = (app: Record<string, unknown> = {}, count = 2) => ({
      ...rawConfig(count),
      service: { engine: "cosyvoice" },
      app,
    });

    it("looks at GPU, driver and disk before anything is touched", async () => {
      const registered = await deploy(gpu({ gpuMemory: 6 }), { engine });
      const { preflight, packages } = manifest(registered, "c-rs-2-real-server");
      assert.deepEqual(preflight?.[1], {
        name: "GPU, driver and disk are as the engine cosyvoice needs them",
        run:
          "/usr/local/lib/cosyvoice-lvs/engine check --memory 6 --driver 525.60.13" +
          " --disk envs/abcabcabcabcabca-3.11=12 --disk models/0a0a0a0a0a0a0a0a=10",
        fix: "docs/engine.md has the needs; nothing was touched on this machine",
      });
      assert.deepEqual(packages, ["curl", "nfs-common", "python3-venv", "git"]);
      const programs = String(named(registered, "c-rs-1-applier").inputs.stdin);
      assert.match(
        programs,
        /^PROGRAMS='apply turn vip-on-lo keep-mounted build-env release engine weights'$/m,
      );
      assert.doesNotMatch(String(named(registered, "c-director-1-applier").inputs.stdin), /print_engine/);
    });

    it("stages source, environment and weights in a layer of its own, each with its own limit", async () => {
      const registered = await deploy(gpu(), { engine });
      const { layer, directories, files, steps, onRemove, units } = manifest(
        registered,
        "c-speech-rs-1-engine",
      );
      assert.equal(layer, "engine-stage");
      assert.deepEqual(directories?.["/opt/cosyvoice/engine"], {
        mode: "0755",
        owner: "root:root",
        purge: true,
      });
      assert.deepEqual([files, units], [{}, undefined]);
      const at = "/opt/cosyvoice/engine";
      assert.deepEqual(steps, [
        {
          name: `stage the source, commit ${engine.commit}`,
          run: `/usr/local/lib/cosyvoice-lvs/engine source ${engine.commit} https://github.com/FunAudioLLM/CosyVoice.git`,
          unless: `test -e ${at}/sources/${engine.commit}/.complete`,
          timeout: 3600,
        },
        {
          name: "stage the environment abcabcabcabcabca-3.11",
          run:
            "/usr/local/lib/cosyvoice-lvs/engine environment abcabcabcabcabca-3.11" +
            " ~root/.cosyvoice-lvs-engine-lock.txt --python 3.11 --by auto",
          unless: `test -e ${at}/envs/abcabcabcabcabca-3.11/.complete`,
          timeout: 14400,
        },
        {
          name: "stage the weights 0a0a0a0a0a0a0a0a",
          run:
            "/usr/local/lib/cosyvoice-lvs/weights 0a0a0a0a0a0a0a0a --hub huggingface" +
            " --id FunAudioLLM/Fun-CosyVoice3-0.5B-2512 --revision main",
          unless: `test -e ${at}/models/0a0a0a0a0a0a0a0a/.complete`,
          timeout: 43200,
        },
        {
          name: "stage the engine beefbeefbeefbeef",
          run:
            `/usr/local/lib/cosyvoice-lvs/engine assemble beefbeefbeefbeef --source ${engine.commit}` +
            " --environment abcabcabcabcabca-3.11 --model 0a0a0a0a0a0a0a0a --called Fun-CosyVoice3-0.5B-2512 --user cosyvoice",
        },
      ]);
      assert.deepEqual(onRemove, ["rm -rf ~root/.cosyvoice-lvs-engine-lock.txt /opt/cosyvoice/engine"]);
      assert.equal(named(registered, "c-speech-rs-1-engine-lock").type, COPY);
      assert.deepEqual(
        named(registered, "c-speech-rs-1-engine-lock").inputs.remotePath,
        ".cosyvoice-lvs-engine-lock.txt",
      );
    });

    it("takes everything from folders where real servers reach nothing", async () => {
      const directory = { directory: "/srv/weights", checksums: "made-up.sha256" };
      const app = { source: "/srv/CosyVoice", wheels: "/srv/wheels", environment: "uv", model: directory };
      const checksums = `${"0".repeat(64)}  llm.pt\n`;
      const registered = await deploy(gpu(app), { engine: { ...engine, checksums } });
      const { steps, files } = manifest(registered, "c-speech-rs-1-engine");
      const [source, environment, weights] = steps ?? [];
      assert.match(source?.run ?? "", / \/srv\/CosyVoice$/);
      assert.match(environment?.run ?? "", / --by uv --wheels \/srv\/wheels$/);
      assert.match(
        weights?.run ?? "",
        /0a0a --directory \/srv\/weights --checksums \/etc\/cosyvoice\/model\.sha256$/,
      );
      assert.deepEqual(files, {
        "/etc/cosyvoice/model.sha256": { mode: "0644", owner: "root:root", content: checksums },
      });
      assert.match(
        manifest(registered, "c-rs-1-real-server").preflight?.[1]?.run ?? "",
        /--disk models\/0a0a0a0a0a0a0a0a=\/srv\/weights$/,
      );
      assert.match(
        manifest(registered, "c-speech-rs-1-stage").steps?.[0]?.run ?? "",
        / feedfeedfeedfeed \/srv\/wheels$/,
      );
    });

    it("stages everywhere before it runs anywhere, and runs what is staged", async () => {
      const slow = /-engine$/;
      const registered = await deploy(gpu({}, 3), { engine }, slow);
      const names = registered.map(({ name }) => name);
      const places = (pattern: RegExp) => names.flatMap((name, index) => (pattern.test(name) ? [index] : []));
      assert.equal(places(slow).length, 3);
      assert.ok(Math.max(...places(slow)) < Math.min(...places(/^c-speech-rs-\d$/)));
      const { preflight, files, around, units, checks } = manifest(registered, "c-speech-rs-2");
      assert.equal(preflight?.[1]?.run, "test -e /opt/cosyvoice/engine/sets/beefbeefbeefbeef/.complete");
      const environment = files?.["/etc/cosyvoice/cosyvoice.env"];
      assert.match(
        environment?.content ?? "",
        /^COSYVOICE_SOURCE=\/opt\/cosyvoice\/engine\/sets\/beefbeefbeefbeef\/source$/m,
      );
      assert.deepEqual(environment?.notify, ["restart:cosyvoice.service"]);
      assert.match(around?.run ?? "", /--what 'release feedfeedfeedfeed, engine beefbeefbeefbeef' /);
      assert.equal(units?.["cosyvoice.service"]?.within, 900);
      assert.equal(checks?.[0]?.within, 900);
    });

    it("compiles on the machine for vLLM only, and builds for TensorRT what it needs", async () => {
      const registered = await deploy(gpu({ requirements: "x", tensorrt: true, vllm: true }), { engine });
      assert.deepEqual(manifest(registered, "c-rs-1-real-server").packages?.slice(3), [
        "git",
        "gcc",
        "libc6-dev",
      ]);
      assert.match(manifest(registered, "c-speech-rs-1-engine").steps?.[2]?.run ?? "", / --tensorrt$/);
    });
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
