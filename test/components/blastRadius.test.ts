import assert from "node:assert/strict";
import { Cluster } from "../../components/cluster";
import { type BlastRadius, blastRadius, type MachineRadius } from "../../scripts/lib/blastRadius";
import { disturbanceOf, secretLayers } from "../../scripts/lib/disturbance";
import { layerOf, manifestOf } from "../../scripts/lib/manifests";
import type { PreviewStep } from "../../scripts/lib/previewEvents";
import { machinesFor, parsed, rawConfig, release } from "./fixture";
import { type Registered, settled, startMocks } from "./mocks";

type Raw = Record<string, unknown>;

const secrets = {
  vrrpPassword: "made-up1",
  peerKey: "made-up-peer-key-of-32-characters",
  frontDoor: { tlsCertificate: "certificate\n", tlsKey: "key\n" },
};

/** By configuration: most tests begin with the same one. */
const known = new Map<string, Promise<Registered[]>>();

/** Every resource of a configuration, as the components make it. */
function registeredFor(raw: Raw, given: Partial<typeof secrets> = {}): Promise<Registered[]> {
  const key = JSON.stringify([raw, given]);
  const found = known.get(key) ?? register(raw, given);
  known.set(key, found);
  return found;
}

async function register(raw: Raw, given: Partial<typeof secrets>): Promise<Registered[]> {
  const registered = await startMocks();
  const config = parsed(raw);
  new Cluster("cosyvoice", { config, machines: machinesFor(config), release, ...given });
  await settled();
  return registered;
}

/** What a preview says of a deployment of `after` where `before` is deployed. */
function stepsFrom(before: readonly Registered[], after: readonly Registered[]): PreviewStep[] {
  const named = (all: readonly Registered[]) =>
    new Map(all.map((one) => [`${one.type}::${one.name}`, shown(one)]));
  const [was, is] = [named(before), named(after)];
  return [...new Set([...was.keys(), ...is.keys()])].map((key) => {
    const [old, now] = [was.get(key), is.get(key)];
    const same = JSON.stringify(old?.real) === JSON.stringify(now?.real);
    const op = old === undefined ? "create" : now === undefined ? "delete" : same ? "same" : "update";
    const urn = `urn:pulumi:test::cosyvoice-lvs::${key}`;
    return { op, urn, type: key.split("::")[0] ?? "", before: old?.inputs, after: now?.inputs };
  });
}

/** Inputs as the engine shows them to programs. */
function shown({ inputs, secrets: hidden }: Registered) {
  const visible = Object.entries(inputs).map(([key, value]) => [
    key,
    hidden.includes(key) ? "[secret]" : value,
  ]);
  return { real: inputs, inputs: Object.fromEntries(visible) };
}

async function radius(
  change: Raw,
  base: Raw = {},
  given: Partial<typeof secrets> = {},
): Promise<BlastRadius> {
  const before = { ...rawConfig(3), ...base };
  const was = await registeredFor(before, given);
  return blastRadius(stepsFrom(was, await registeredFor({ ...before, ...change }, given)));
}

/** Machine by machine, what happens. */
function summary({ machines }: BlastRadius): Record<string, string> {
  const words = ({ change, effect }: MachineRadius) => (change === "changed" ? effect : change);
  return Object.fromEntries(machines.map((machine) => [machine.machine, words(machine)]));
}

function because(found: BlastRadius, name: string): string {
  return found.machines.find(({ machine }) => machine === name)?.because.join("\n") ?? "";
}

const quiet = {
  "director-1": "unchanged",
  "director-2": "unchanged",
  "rs-1": "unchanged",
  "rs-2": "unchanged",
  "rs-3": "unchanged",
  storage: "unchanged",
};
const allReal = (word: string) => ({ "rs-1": word, "rs-2": word, "rs-3": word });
const directors = (word: string) => ({ "director-1": word, "director-2": word });

describe("the blast radius", () => {
  it("is nothing where nothing changes", async () => {
    const found = await radius({});
    assert.deepEqual(summary(found), quiet);
    assert.deepEqual(Object.keys(summary(found)), Object.keys(quiet), "in this order");
    assert.deepEqual(found.clients, [{ service: "10.0.0.100:7860", scheduler: "mh", moved: 0 }]);
    assert.equal(found.drained, 0);
  });

  it("is a reload on the directors for another pace of the checks", async () => {
    const found = await radius({ loadBalancer: { check: { kind: "poller", interval: 1 } } });
    assert.deepEqual(summary(found), { ...quiet, ...directors("reload") });
    assert.equal(
      because(found, "director-1"),
      "cosyvoice-health.service is reloaded: /etc/cosyvoice-lvs/health.json",
    );
  });

  it("is a restart of keepalived for another pace of the adverts", async () => {
    const found = await radius({ vrrp: { advertInterval: 0.2 } });
    assert.deepEqual(summary(found), { ...quiet, ...directors("restart") });
    assert.match(because(found, "director-1"), /^keepalived\.service restarts: .*cosyvoice-lvs\.conf$/m);
  });

  it("is a drain of every real server for another limit of the service", async () => {
    const found = await radius({ service: { queueLength: 7 } });
    assert.deepEqual(summary(found), { ...quiet, ...allReal("drain") });
    assert.match(because(found, "rs-1"), /^cosyvoice\.service restarts: /);
    assert.equal(found.maxUnavailable, 1);
    assert.ok(found.drained > 0.3 && found.drained < 0.4, `${found.drained}`);
    assert.equal(found.clients[0]?.moved, 0);
  });

  it("moves a quarter of the clients to a fourth real server, and touches no other", async () => {
    const found = await radius({ realServers: rawConfig(4).realServers });
    // The storage machine exports to it, too.
    assert.deepEqual(summary(found), {
      ...quiet,
      ...directors("restart"),
      "rs-4": "new",
      storage: "nothing",
    });
    assert.match(because(found, "director-1"), /^cosyvoice-vrrp-guard\.service restarts: /m);
    assert.match(because(found, "director-1"), /^keepalived\.service is reloaded: /m);
    const moved = found.clients[0]?.moved ?? 0;
    assert.ok(moved > 0.24 && moved < 0.3, `${moved}`);
  });

  it("drains the one that leaves, and moves its clients", async () => {
    const found = await radius({ realServers: rawConfig(2).realServers });
    assert.equal(summary(found)["rs-3"], "leaves");
    assert.match(because(found, "rs-3"), /drained/);
    const moved = found.clients[0]?.moved ?? 0;
    assert.ok(moved > 0.32 && moved < 0.4, `${moved}`);
  });

  it("says so where it cannot be computed who moves", async () => {
    const found = await radius({ loadBalancer: { scheduler: "rr", persistence: 300 } });
    assert.deepEqual(found.clients, [{ service: "10.0.0.100:7860", scheduler: "rr", moved: null }]);
  });

  it("takes a machine with another address for another machine", async () => {
    const realServers = structuredClone(rawConfig(3).realServers) as { address: string }[];
    if (realServers[1]) realServers[1].address = "10.0.9.9";
    const found = await radius({ realServers });
    assert.equal(summary(found)["rs-2"], "new");
    assert.match(because(found, "rs-2"), /another machine takes its place/);
  });

  it("is a reload where a secret changes whose text is not shown", async () => {
    const https = { enabled: true, serverName: "speech.example.org" };
    const raw = { ...rawConfig(2), https, tlsCertificate: true, tlsKey: true };
    const was = await registeredFor(raw, secrets);
    const renewed = { ...secrets, frontDoor: { ...secrets.frontDoor, tlsKey: "another key\n" } };
    const found = blastRadius(stepsFrom(was, await registeredFor(raw, renewed)));
    assert.equal(summary(found)["rs-1"], "reload");
    assert.equal(because(found, "rs-1"), "cosyvoice-front-door.service reads its certificate and keys anew");
  });

  it("knows of every secret layer what a change of it does", async () => {
    const raw = {
      ...rawConfig(2),
      vrrp: { version: 2, advertInterval: 1, authentication: "PASS" },
      https: { enabled: true, serverName: "speech.example.org" },
      ...{ tlsCertificate: true, tlsKey: true, peerKey: true, vrrpPassword: true },
    };
    const kept = (await registeredFor(raw, secrets)).filter(({ secrets: hidden }) =>
      hidden.includes("stdin"),
    );
    const seen = new Set<string>();
    for (const { inputs } of kept) {
      const { layer } = layerOf(inputs.delete) ?? { layer: "none" };
      const manifest = manifestOf(inputs.stdin);
      assert.ok(manifest?.secret, layer);
      const files = Object.entries(manifest.files ?? {}).map(([path, file]) => [
        path,
        { ...file, content: "another" },
      ]);
      const changed = disturbanceOf(layer, manifest, { ...manifest, files: Object.fromEntries(files) });
      assert.equal(secretLayers[layer]?.effect, changed.effect, layer);
      seen.add(layer);
    }
    // watcher-secrets is of the machine that watches.
    assert.deepEqual([...seen, "watcher-secrets"].sort(), Object.keys(secretLayers).sort());
  });

  it("names what comes and goes on a machine that stays", async () => {
    const https = { enabled: true, serverName: "speech.example.org" };
    const set = { https, tlsCertificate: true, tlsKey: true };
    const on = await radius(set, {}, secrets);
    assert.match(because(on, "rs-1"), /^gets its layer front-door$/m);
    const unset = { https: {}, tlsCertificate: undefined, tlsKey: undefined };
    const off = await radius(unset, set, secrets);
    assert.match(because(off, "rs-1"), /^loses its layer front-door\ncosyvoice-front-door\.service stops$/m);
  });

  it("is a restart where a layer is replaced, for which it is taken away first", async () => {
    const all = await registeredFor(rawConfig(2));
    const steps = stepsFrom(all, all).flatMap((step) =>
      step.urn.endsWith("::cosyvoice-rs-1-real-server")
        ? ["delete-replaced", "replace", "create-replacement"].map((op) => ({ ...step, op }))
        : [step],
    );
    const found = blastRadius(steps);
    assert.equal(summary(found)["rs-1"], "restart");
    assert.equal(because(found, "rs-1"), "its layer real-server is removed and created again");
  });

  it("names what the cloud loses, and the machine that is replaced there", () => {
    const step = (op: string, type: string, name: string, inputs = {}) => ({
      ...{ op, type, urn: `urn:pulumi:test::cosyvoice-lvs::${type}::${name}` },
      ...{ before: inputs, after: inputs },
    });
    const layer = { delete: "/usr/local/lib/cosyvoice-lvs/apply remove real-server --owner test/rs-1" };
    const found = blastRadius([
      step("create-replacement", "aws:ec2/instance:Instance", "cosyvoice-rs-1-instance"),
      step("update", "command:remote:Command", "cosyvoice-rs-1-real-server", layer),
      step("delete", "aws:ec2/eip:Eip", "cosyvoice-vip-elastic"),
      step("same", "aws:ec2/vpc:Vpc", "cosyvoice-network-vpc"),
    ]);
    assert.deepEqual(summary(found), { "rs-1": "new" });
    assert.deepEqual(
      found.others.map(({ op, name }) => `${op} ${name}`),
      ["create-replacement cosyvoice-rs-1-instance", "delete cosyvoice-vip-elastic"],
    );
  });
});
