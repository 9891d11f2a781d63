/**
 * Whatever the door lets in, the programs on the machines can read, and no text from a stack file gets out of the place that it is
 * for. The number of runs is small, for each starts half a dozen programs; what fails prints its seed.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type ClusterConfig, machinesOf, schedulers } from "../../config/schema";
import {
  hasFirewall,
  renderFirewall,
  renderFirewallUnit,
  renderFrontDoorConfig,
  renderFrontDoorUnit,
  renderGuardUnit,
  renderHealthUnit,
  renderKeepalivedConfig,
  renderKeepalivedDropIn,
  renderOutputsMount,
  renderPacketRules,
  renderPacketRulesUnit,
  renderServiceEnvironment,
  renderServiceUnit,
  renderTurnsUnit,
  renderVipUnit,
} from "../../render";
import { type RawOverrides, rawCluster } from "../unit/config-fixture";
import { accepted, hostile, letters, optional, withText } from "./arbitraries";
import { placeFrontDoor, testFrontDoor } from "./nginx";
import { run, verifyUnit } from "./readers";

const RUNS = 20;

let folder: string;

/** Every text of a configuration, by the file it is for. */
function textsOf(config: ClusterConfig): Record<string, string> {
  const filtered = machinesOf(config).filter(({ role }) => hasFirewall(config, role));
  return {
    "keepalived.conf": renderKeepalivedConfig(config, "director-1"),
    "keepalived.service.d.conf": renderKeepalivedDropIn(config),
    "rules.nft": renderPacketRules(config),
    ...Object.fromEntries(filtered.map(({ name }) => [`${name}.nft`, renderFirewall(config, name)])),
    ...(config.https === undefined
      ? {}
      : {
          "nginx.conf": renderFrontDoorConfig(config, "rs-1"),
          "cosyvoice-front-door.service": renderFrontDoorUnit(),
        }),
    "cosyvoice-firewall.service": renderFirewallUnit(),
    "cosyvoice-health.service": renderHealthUnit(),
    "cosyvoice-rules.service": renderPacketRulesUnit(),
    "cosyvoice-turns.service": renderTurnsUnit(config),
    "cosyvoice-vip.service": renderVipUnit(config),
    "cosyvoice-vrrp-guard.service": renderGuardUnit(),
    "cosyvoice.service": renderServiceUnit(config, engineOf(config)),
    "root-CosyVoice-outputs.mount": renderOutputsMount(config),
    "cosyvoice.env": renderServiceEnvironment(config, "rs-1", engineOf(config)),
  };
}

function engineOf({ service }: ClusterConfig): string | undefined {
  return service.engine === "cosyvoice" ? "feedfeedfeedfeed" : undefined;
}

/** Has every text read by its program; they must have nothing to say. */
function readAll(texts: Record<string, string>): void {
  const here = readdirSync("/sys/class/net").find((name) => name !== "lo" && name.length <= 9) ?? "eth0";
  for (const [file, text] of Object.entries(texts)) writeFileSync(join(folder, file), text);

  const keepalived = join(folder, "keepalived.conf");
  writeFileSync(keepalived, (texts["keepalived.conf"] ?? "").replaceAll("eth0", here));
  writeFileSync(
    join(folder, "cosyvoice-lvs-auth.conf"),
    "authentication {\n    auth_type PASS\n    auth_pass made-up1\n}\n",
  );
  assert.deepEqual(run("keepalived", ["--config-test", "--use-file", keepalived]), { status: 0, said: "" });

  const rules = Object.keys(texts).filter((file) => file.endsWith(".nft"));
  writeFileSync(join(folder, "all"), rules.map((file) => `include "${join(folder, file)}"\n`).join(""));
  assert.deepEqual(run("unshare", ["-Urn", "nft", "-c", "-f", join(folder, "all")]), { status: 0, said: "" });

  if (texts["nginx.conf"] !== undefined) {
    placeFrontDoor(folder, texts["nginx.conf"]);
    assert.equal(testFrontDoor(folder), "");
  }

  mkdirSync(join(folder, "keepalived.service.d"), { recursive: true });
  cpSync("/lib/systemd/system/keepalived.service", join(folder, "keepalived.service"));
  cpSync(join(folder, "keepalived.service.d.conf"), join(folder, "keepalived.service.d/cosyvoice-lvs.conf"));
  const units = Object.keys(texts).filter((file) => /\.(service|mount)$/.test(file));
  assert.equal(verifyUnit(folder, ...units, "keepalived.service"), "");
}

const pathText = letters("abcXYZ019_./?=&%+-", 30).map((text) => `/${text}`);
const seconds = fc.integer({ min: 1, max: 60 });
const timing = { retry: fc.integer({ min: 0, max: 9 }), delayBeforeRetry: seconds, delayLoop: seconds };
const check = fc.oneof(
  fc.record({ kind: fc.constant("poller"), path: optional(pathText) }),
  fc.record({ kind: fc.constant("tcp"), ...timing }),
  fc.record({
    kind: fc.constant("http"),
    path: pathText,
    status: fc.integer({ min: 100, max: 599 }),
    ...timing,
  }),
  fc.record({ kind: fc.constant("misc"), script: fc.constant("/usr/bin/true"), ...timing }),
);

/** Stack files of which many are accepted: every value is one that some cluster could have. */
const stacks = fc
  .record({
    port: fc.oneof(fc.constant(7860), fc.integer({ min: 1, max: 65_535 })),
    loadBalancer: fc.record({
      forwarding: fc.constantFrom("DR", "TUN", "NAT"),
      scheduler: fc.constantFrom(...schedulers),
      persistence: fc.constantFrom(0, 300, 2_678_400),
      connectionSync: optional(fc.boolean()),
      dropUnderPressure: fc.boolean(),
      quorum: fc.integer({ min: 1, max: 3 }),
      sorryServer: optional(fc.constant({ address: "192.168.1.30" })),
      check,
    }),
    vrrp: fc.oneof(
      fc.record({
        virtualRouterId: fc.integer({ min: 1, max: 255 }),
        advertInterval: fc.integer({ min: 1, max: 4000 }).map((n) => n / 100),
        unicast: fc.boolean(),
        preempt: fc.boolean(),
        label: letters("abcXYZ019_-", 9),
        garp: fc.record({ delay: fc.integer({ min: 0, max: 60 }), refresh: fc.integer({ min: 0, max: 9 }) }),
      }),
      fc.constant({ version: 2, advertInterval: 1, authentication: "PASS" }),
    ),
    https: fc.record({
      enabled: fc.boolean(),
      serverName: fc.constantFrom("speech.example.org", "a", "192.168.1.100", "xn--a.b-c.example"),
      port: fc.constantFrom(443, 8443, 65_535),
      redirect: fc.boolean(),
      plainPort: fc.constantFrom("open", "closed"),
      requestsPerSecond: optional(fc.integer({ min: 0, max: 100_000 })),
      connections: optional(fc.integer({ min: 0, max: 65_535 })),
      uploadLimit: fc.integer({ min: 1, max: 1024 }),
    }),
    keys: fc.boolean(),
    firewall: fc.record({
      enabled: fc.boolean(),
      admins: fc.uniqueArray(
        fc
          .tuple(fc.integer({ min: 1, max: 223 }), fc.nat(255), fc.nat(32))
          .map(([a, b, length]) => `${a}.${b}.7.9/${length}`),
        { minLength: 1, maxLength: 5 },
      ),
      openPorts: fc.uniqueArray(fc.integer({ min: 1, max: 65_535 }), { maxLength: 4 }),
    }),
    service: fc.record({
      enableQueue: fc.boolean(),
      timeLimit: fc.integer({ min: 1, max: 3600 }),
      engine: fc.constantFrom("cpu", "cosyvoice"),
    }),
    storage: fc.constantFrom({}, { path: "/srv/a_b+c=d,e/f.g@h" }, { mountOptions: "nfsvers=4.1,hard" }),
  })
  .map(({ keys, storage, ...raw }) => {
    const secrets = raw.https.enabled
      ? { tlsCertificate: true, tlsKey: true, ...(keys ? { apiKeys: true } : {}) }
      : {};
    const password = "authentication" in raw.vrrp ? { vrrpPassword: "made-up1" } : {};
    const base = rawCluster();
    return JSON.parse(
      JSON.stringify({ ...base, ...raw, ...secrets, ...password, storage: { ...base.storage, ...storage } }),
    ) as RawOverrides;
  })
  .filter((raw) => accepted(raw) !== undefined);

/** Where a stack file has texts. */
const places: readonly (readonly string[])[] = [
  ["vip"],
  ["interface"],
  ["directors", "0", "name"],
  ["realServers", "0", "name"],
  ["realServers", "0", "address"],
  ["storage", "path"],
  ["storage", "mountOptions"],
  ["loadBalancer", "check", "path"],
  ["loadBalancer", "check", "script"],
  ["vrrp", "label"],
  ["https", "serverName"],
  ["firewall", "admins", "0"],
  ["service", "user"],
  ["service", "release"],
  ["service", "environment", "NAME"],
  ["verification", "sentence"],
  ["apiKeys"],
  ["httpUsers"],
];

/** The lines of every text but the environment's, whose values are the user's own. */
const shape = (texts: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(texts).map(([file, text]) => [
      file,
      file === "cosyvoice.env" ? "" : text.split("\n").length,
    ]),
  );

describe("any configuration that is accepted", function () {
  this.timeout(600_000);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "fuzz-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("is read by keepalived, nftables, nginx and systemd without a word", () => {
    fc.assert(
      fc.property(stacks, (raw) => {
        rmSync(folder, { recursive: true });
        mkdirSync(folder);
        const config = accepted(raw);
        assert.ok(config);
        readAll(textsOf(config));
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  });

  it("has no text in it that gets out of its place", () => {
    const base = (): Record<string, unknown> => ({
      ...rawCluster(),
      loadBalancer: { check: { kind: "http" } },
      https: { enabled: true, serverName: "speech.example.org", plainPort: "closed" },
      firewall: { enabled: true, admins: ["10.0.0.0/8"] },
      service: { environment: { NAME: "made up" } },
      tlsCertificate: true,
      tlsKey: true,
      apiKeys: true,
    });
    const before = accepted(base());
    assert.ok(before);
    const expected = shape(textsOf(before));
    let taken = 0;
    fc.assert(
      fc.property(fc.constantFrom(...places), hostile, (place, text) => {
        const config = accepted(withText(base(), place, text));
        if (config === undefined) return;
        taken += 1;
        // A path may have a "%", which is none of keepalived's signs.
        const harmless = place.join(".") === "loadBalancer.check.path" && /^\/[\w./%]*$/.test(text);
        assert.ok(
          place[0] === "verification" || place[0] === "service" || harmless,
          `${place.join(".")} takes ${JSON.stringify(text)}`,
        );
        const texts = textsOf(config);
        assert.deepEqual(shape(texts), expected);
        assert.doesNotMatch(texts["cosyvoice.env"] ?? "", /^exec evil/m);
      }),
      { numRuns: 3000, examples: [[["loadBalancer", "check", "path"], "/readyz%n"]] },
    );
    assert.ok(taken > 0);
  });
});
