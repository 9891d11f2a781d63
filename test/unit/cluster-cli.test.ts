import assert from "node:assert/strict";
import { mock } from "node:test";
import { stripVTControlCharacters } from "node:util";
import type { OpenSsh } from "../../components/remote/openssh";
import { drain, leftToDo, renderDrained, renderUndrained, undrain } from "../../scripts/cluster-cli/drain";
import { resourcesOf } from "../../scripts/cluster-cli/forget";
import { parseInventory } from "../../scripts/cluster-cli/inventory";
import type { MachineReport } from "../../scripts/cluster-cli/probe";
import { clusterProgram } from "../../scripts/cluster-cli/program";
import { ProgressLine } from "../../scripts/cluster-cli/progress";
import { lastLine } from "../../scripts/cluster-cli/pulumi";
import { chooseRelease, type NodeReleases, renderReleases } from "../../scripts/cluster-cli/releases";
import { namingStack } from "../../scripts/cluster-cli/session";
import type { State } from "../../scripts/cluster-cli/state";
import { type Answer, summarise } from "../../scripts/cluster-cli/status";
import { renderStatus } from "../../scripts/cluster-cli/table";
import { settled } from "../../scripts/cluster-cli/unlock";
import { inventory } from "./inventory-fixture";

describe("a command that stands in what scripts/cluster says", () => {
  const hint = "rs-2 is drained (scripts/cluster undrain rs-2), see scripts/cluster status.";

  it("names the stack where it would be about another one", () => {
    assert.equal(
      namingStack(hint, "made-up", "lab"),
      "rs-2 is drained (scripts/cluster --stack made-up undrain rs-2), see scripts/cluster --stack made-up status.",
    );
    assert.equal(namingStack(hint, "lab", "lab"), hint);
  });

  it("names it once, and is as valid in JSON", () => {
    const said = "scripts/cluster rollback --clear --stack made-up";
    assert.equal(namingStack(said, "made-up", "lab"), said);
    const json = JSON.stringify({ findings: [{ fix: "scripts/cluster doctor --repair" }, { fix: hint }] });
    assert.equal(
      JSON.parse(namingStack(json, "made-up", "lab")).findings[0].fix,
      "scripts/cluster --stack made-up doctor --repair",
    );
  });

  it("is pulumi's too, which for the lab is that of scripts/lab", () => {
    const fix = "run pulumi up --refresh, or pulumi up: scripts/cluster doctor";
    assert.equal(
      namingStack(fix, "made-up", "lab"),
      "run pulumi up --stack made-up --refresh, or pulumi up --stack made-up: scripts/cluster --stack made-up doctor",
    );
    const inLab = "run scripts/lab pulumi up --refresh, or scripts/lab pulumi up: scripts/cluster";
    assert.equal(namingStack(fix, "lab", "lab"), `${inLab} doctor`);
    assert.equal(namingStack(fix, "lab", "made-up"), `${inLab} --stack lab doctor`);
    assert.equal(namingStack(fix, "made-up", "made-up"), fix);
    for (const said of ["pulumi up --stack made-up", "scripts/lab pulumi up", "pulumi updates it"])
      assert.equal(namingStack(said, said.includes("lab") ? "lab" : "made-up", "lab"), said);
  });

  it("is taken by the program as it is said", async () => {
    const program = clusterProgram();
    const undrain = program.commands.find((command) => command.name() === "undrain");
    let told: unknown;
    undrain?.action((name: string) => {
      told = [name, program.opts().stack];
    });
    await program.parseAsync(["--stack", "made-up", "undrain", "rs-2"], { from: "user" });
    assert.deepEqual(told, ["rs-2", "made-up"]);
  });
});

describe("what a state says of a cluster's machines", () => {
  it("is what a command works with", () =>
    assert.deepEqual(parseInventory(JSON.stringify(inventory), "made-up"), inventory));

  it("is named, with what to do, where another version wrote it", () =>
    assert.throws(() => parseInventory('{"vip": 7, "port": 7860, "ssh": {}}', "made-up"), {
      message:
        /The state of "made-up" .* \(vip, ssh\.connectTimeout, machines\): another version deployed it\./,
    }));
});

describe("what pulumi says when nobody can type an answer", () => {
  const words = (stderr: string) => lastLine({ exitCode: 255, stdout: "", stderr });

  it("is what to do about it", () => {
    assert.match(
      words(
        "error: constructing secrets manager: passphrase must be set with PULUMI_CONFIG_PASSPHRASE or ...",
      ),
      /export PULUMI_CONFIG_PASSPHRASE_FILE=/,
    );
    assert.match(
      words("error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"),
      /pulumi login --local/,
    );
    assert.match(words("error: no stack named 'made-up' found"), /pulumi stack init/);
    assert.match(
      words(
        "error: no resource plugin 'pulumi-resource-tls' found in the workspace at version v5.6.1 or on ...",
      ),
      /: pulumi plugin install resource tls 5\.6\.1,/,
    );
  });

  it("stays as it is otherwise, its last line", () =>
    assert.equal(words("warning: made up\nerror: made up, too\n"), "error: made up, too"));
});

const report = (changes: Partial<MachineReport>): { readonly report: MachineReport } => ({
  report: {
    vip: null,
    scheduler: null,
    ipvs: null,
    units: { "keepalived.service": "active", "cosyvoice.service": "active" },
    ready: true,
    queue: { waiting: 0, running: 0 },
    share: "ok",
    drain: null,
    releases: null,
    engine: { name: "cpu", commit: null },
    gpus: null,
    certificate: null,
    outputs: "10.0.0.20:/",
    layers: {},
    ...changes,
  },
});

const entry = (address: string, weight: number) => ({
  address,
  port: 7860,
  forwarding: "Route",
  weight,
  active: 2,
  inactive: 1,
});

const holds = report({ vip: "eth0", scheduler: "mh", ipvs: [entry("10.0.0.1", 1), entry("10.0.0.2", 1)] });

function answers(changes: Record<string, Answer> = {}): Map<string, Answer> {
  const well = { "director-1": holds, "director-2": report({}), "rs-1": report({}), "rs-2": report({}) };
  return new Map(Object.entries({ ...well, ...changes }));
}

describe("scripts/cluster status", () => {
  it("finds nothing when all is well", () => {
    const status = summarise(inventory, answers());
    assert.equal(status.holder, "director-1");
    assert.deepEqual(status.findings, []);
    assert.deepEqual(
      status.realServers.map(({ name, pool, activeConnections }) => ({ name, pool, activeConnections })),
      [
        { name: "rs-1", pool: "serving", activeConnections: 2 },
        { name: "rs-2", pool: "serving", activeConnections: 2 },
      ],
    );
  });

  const faults: [string, Record<string, Answer>, RegExp][] = [
    ["two holders", { "director-2": report({ vip: "eth0" }) }, /director-1 and director-2 both hold the VIP/],
    ["no holder", { "director-1": report({}) }, /No director that can be reached holds the VIP/],
    [
      "a machine that is off",
      { "rs-2": { reason: "connection timed out" } },
      /rs-2 \(10\.0\.0\.2\) cannot be reached/,
    ],
    ["a share that is away", { "rs-1": report({ outputs: null }) }, /rs-1: the share is not mounted/],
    [
      "a share that does not answer, and only once",
      { "rs-1": report({ share: "made up: no answer" }), "rs-2": report({ share: "made up: no answer" }) },
      /rs-1, rs-2: the share cannot be used, so requests fail: made up: no answer \(docs\/runbooks\/OutputsAway\.md\)\.$/m,
    ],
    [
      "a service that is not ready",
      { "rs-1": report({ ready: "503" }) },
      /rs-1: the service is active, not ready/,
    ],
    [
      "a stopped keepalived",
      { "director-2": report({ units: { "keepalived.service": "failed" } }) },
      /keepalived is failed/,
    ],
    [
      "a server out of the pool",
      { "director-1": report({ vip: "eth0", scheduler: "mh", ipvs: [entry("10.0.0.1", 1)] }) },
      /rs-2 gets no new connections \(out\)/,
    ],
    [
      "a drained server",
      {
        "director-1": report({
          vip: "eth0",
          scheduler: "mh",
          ipvs: [entry("10.0.0.1", 1), entry("10.0.0.2", 0)],
        }),
      },
      /rs-2 gets no new connections \(drained\)/,
    ],
  ];
  it("says since when and why a real server is drained, and nothing else of it", () => {
    const drained = { reason: "by hand (anna@desk): new fan", since: 1_700_000_000 };
    const table = report({
      vip: "eth0",
      scheduler: "mh",
      ipvs: [entry("10.0.0.1", 1), entry("10.0.0.2", 0)],
    });
    const status = summarise(
      inventory,
      answers({ "director-1": table, "rs-2": report({ ready: "draining", drain: drained }) }),
    );
    assert.deepEqual(status.findings, [
      "rs-2 is drained since 2023-11-14 22:13:20 UTC: by hand (anna@desk): new fan (scripts/cluster undrain rs-2).",
    ]);
    // With colours where there is a terminal, or a CI.
    assert.match(stripVTControlCharacters(renderStatus(status)), /rs-2 .* drained 0 .* by hand /);
  });
  it("tells a drained real server that gets new connections, and one that a deployment drains", () => {
    const drain = { reason: "deployment: service", since: 1_700_000_000 };
    const status = summarise(inventory, answers({ "rs-2": report({ ready: "draining", drain }) }));
    assert.deepEqual(status.findings, [
      "rs-2 is drained since 2023-11-14 22:13:20 UTC: deployment: service.",
      "rs-2 gets new connections although it is drained.",
    ]);
  });

  for (const [what, changes, expected] of faults) {
    it(`names ${what}, in the table too`, () => {
      const status = summarise(inventory, answers(changes));
      assert.equal(
        status.findings.filter((finding) => expected.test(finding)).length,
        1,
        status.findings.join("\n"),
      );
      assert.match(renderStatus(status), expected);
    });
  }
});

describe("scripts/cluster status, of what is around the pool", () => {
  const [release, other] = ["0123456789abcdef", "fedcba9876543210"];
  const runs = (current: string, changes: Partial<MachineReport> = {}) =>
    report({
      releases: { current, previous: null, staged: [] },
      queue: { waiting: 2, running: 1 },
      gpus: [{ name: "NVIDIA Made Up T4", utilization: 34, used: 6144, total: 15_360, temperature: null }],
      engine: { name: "cosyvoice", commit: "c".repeat(40) },
      ...changes,
    });
  const day = 86_400_000;
  const now = Date.UTC(2026, 0, 31);
  const alert = {
    ...{ name: "QueueLong", severity: "warning", summary: "rs-1 has a long queue", silenced: false },
    since: "2026-01-31T18:05:09.000Z",
  };
  const until = (days: number) => ({ certificate: (now + days * day) / 1000 });

  it("tells versions, queue, GPU, share, certificate and alerts in a table of 80 columns, and to programs", () => {
    const all = answers({ "rs-1": runs(release, until(89.5)), "rs-2": runs(release, until(12.5)) });
    const status = summarise(inventory, all, [alert], now);
    const [first] = status.realServers;
    assert.equal(first?.release, release);
    assert.deepEqual(first?.queue, { waiting: 2, running: 1 });
    assert.equal(first?.gpus?.[0]?.utilization, 34);
    assert.deepEqual(status.certificate, { until: "2026-02-12T12:00:00.000Z", days: 12 });
    assert.deepEqual(status.alerts, [alert]);
    assert.deepEqual(status.findings, [
      "The certificate of HTTPS ends in 12 days (2026-02-12T12:00:00.000Z).",
    ]);
    const text = stripVTControlCharacters(renderStatus(status));
    assert.match(text, /^share 10\.0\.0\.20:\/ on 2 of 2 {2}engine cosyvoice cccccccc$/m);
    assert.match(text, /^certificate until 2026-02-12, 12 days$/m);
    assert.match(text, /^rs-1 +10\.0\.0\.1 +serving 1 +2\/1 +ready +1\+2 +0123456$/m);
    assert.match(text, /^rs-1 +Made Up T4 +34 % +6\.0 of 15\.0 GiB +-$/m);
    assert.match(text, /^alert QueueLong since 2026-01-31T18:05:09Z: rs-1 has a long queue$/m);
  });

  it("is no wider than a terminal with the longest of addresses and words", () => {
    const long = {
      ...inventory,
      machines: inventory.machines.map((each) => ({
        ...each,
        name: each.name.replace("rs-", "speech-rs-0"),
        address: each.address.replace("10.0.0.", "192.168.100.10"),
      })),
    };
    const stopped = { "keepalived.service": "active", "cosyvoice.service": "activating" };
    const table = long.machines
      .slice(2)
      .map(({ address }) => ({ ...entry(address, 10), active: 123, inactive: 4567 }));
    const all = new Map<string, Answer>([
      ["director-1", report({ vip: "eth0", scheduler: "mh", ipvs: table })],
      ["director-2", report({})],
      ["speech-rs-01", runs(release, { units: stopped, queue: { waiting: 12, running: 1 } })],
      ["speech-rs-02", { reason: "no answer" }],
    ]);
    const lines = stripVTControlCharacters(renderStatus(summarise(long, all))).split("\n");
    for (const line of lines.filter((text) => !text.startsWith("!"))) assert.ok(line.length <= 80, line);
  });

  it("names real servers that run different releases", () => {
    const { findings } = summarise(inventory, answers({ "rs-1": runs(release), "rs-2": runs(other) }));
    assert.deepEqual(findings, [`The real servers run 2 releases: ${release}, ${other} (pulumi up).`]);
  });

  it("names a certificate that has ended, and alerts that cannot be asked for; those that fire are no finding", () => {
    const status = summarise(
      inventory,
      answers({ "rs-1": report(until(-1)) }),
      { reason: "connection refused" },
      now,
    );
    assert.deepEqual(status.findings, [
      "The certificate of HTTPS has ended (2026-01-30T00:00:00.000Z).",
      "Alerts are not known: connection refused.",
    ]);
    assert.equal(status.alerts, null);
    assert.deepEqual(summarise(inventory, answers(), [alert], now).findings, []);
    assert.match(renderStatus(summarise(inventory, answers(), [], now)), /No alert fires\./);
  });
});

describe("progress", () => {
  const line = (isTTY: boolean) => {
    const written: string[] = [];
    const stream = { isTTY, columns: 40, write: (text: string) => written.push(text) };
    return { written, progress: new ProgressLine(stream as unknown as NodeJS.WriteStream) };
  };
  beforeEach(() => mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] }));
  afterEach(() => mock.timers.reset());

  it("shows how long it has taken once that is long", () => {
    const { written, progress } = line(true);
    progress.show("asking", " (1 of 7)");
    assert.equal(written.at(-1), "\r\u001b[Kasking (1 of 7)");
    mock.timers.tick(5000);
    assert.equal(written.at(-1), "\r\u001b[Kasking (1 of 7), 5 s");
    progress.show("asking", " (2 of 7)");
    assert.equal(written.at(-1), "\r\u001b[Kasking (2 of 7), 5 s");
    progress.show("reading");
    assert.equal(written.at(-1), "\r\u001b[Kreading");
    progress.clear();
    assert.equal(written.at(-1), "\r\u001b[K");
    mock.timers.tick(5000);
    assert.equal(written.at(-1), "\r\u001b[K");
  });
  it("is a line for each step that takes long where nobody sees it move", () => {
    const { written, progress } = line(false);
    progress.show("quick");
    progress.show("asking", " (1 of 7)");
    mock.timers.tick(1500);
    progress.show("asking", " (2 of 7)");
    mock.timers.tick(1500);
    progress.show("reading");
    progress.clear();
    mock.timers.tick(5000);
    assert.deepEqual(written, ["asking\n"]);
  });
});

describe("scripts/cluster forget", () => {
  it("takes a machine's resources and the components that hold nothing else", () => {
    const at = (urn: string, parent: string, host?: string) => ({
      urn,
      parent,
      ...(host === undefined ? {} : { inputs: { connection: { host } } }),
    });
    const state = [
      at("cluster", "stack"),
      at("rs-1", "cluster"),
      at("rs-1-layer", "rs-1", "10.0.0.1"),
      at("rs-2", "cluster"),
      {
        ...at("rs-2-layer", "rs-2"),
        inputs: { connection: { plaintext: '{"host":"10.0.0.2","privateKey":"made up"}' } },
      },
      at("speech", "cluster"),
      at("speech-rs-1", "speech", "10.0.0.1"),
      at("speech-rs-2", "speech", "10.0.0.2"),
    ];
    assert.deepEqual(resourcesOf(state, "10.0.0.2"), ["rs-2", "rs-2-layer", "speech-rs-2"]);
    assert.deepEqual(resourcesOf(state, "10.0.0.9"), []);
  });
});

/** A cluster whose directors follow the drain files of its real servers, behind what `drain` uses of OpenSsh. */
class PretendCluster {
  readonly files = new Map<string, string>();
  readonly commands: string[] = [];
  /** Whether the directors look at /readyz. */
  follows = true;
  queue = { waiting: 2, running: 1 };
  off = new Set<string>();

  async run(name: string, command: string, { input = "" } = {}) {
    const said = (stdout: string) => ({ exitCode: 0, stdout, stderr: "" });
    if (this.off.has(name)) throw new Error(`${name} is off`);
    if (command.startsWith("python3 -")) return said(JSON.stringify(this.report(name).report));
    this.commands.push(`${name}: ${command}`);
    const had = this.files.has(name);
    if (command.includes("rm -f")) this.files.delete(name);
    else this.files.set(name, input);
    return said(had ? "drained\n" : "");
  }

  private report(name: string) {
    if (!name.startsWith("director")) {
      const { waiting, running } = this.queue;
      if (waiting > 0) this.queue = { waiting: waiting - 1, running };
      else this.queue = { waiting, running: 0 };
      return report({ queue: { waiting, running } });
    }
    const weight = (server: string) => (this.follows && this.files.has(server) ? 0 : 1);
    const ipvs = [entry("10.0.0.1", weight("rs-1")), entry("10.0.0.2", weight("rs-2"))];
    return report({ vip: name === "director-1" ? "eth0" : null, scheduler: "mh", ipvs });
  }

  get ssh() {
    return this as unknown as OpenSsh;
  }
}

describe("scripts/cluster drain and undrain", () => {
  const options = { reason: "new\n  fan", force: false, wait: 60 };
  const limits = { pool: 0, answer: 0 };
  const stream = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
  const progress = new ProgressLine(stream);
  let cluster: PretendCluster;
  beforeEach(() => {
    cluster = new PretendCluster();
  });

  it("waits for the queue, and says how to come back", async () => {
    const { reason, ...drained } = await drain(inventory, "rs-2", cluster.ssh, options, progress, limits);
    assert.deepEqual(drained, { realServer: "rs-2", left: 0, unasked: [], findings: [] });
    assert.match(reason, /^by hand \(\S+@\S+\): new fan$/);
    assert.match(
      renderDrained({ reason, ...drained }),
      /^rs-2 is drained and has nothing left to do\. Back into the pool: scripts\/cluster undrain rs-2/,
    );
    assert.match(cluster.files.get("rs-2") ?? "", /^by hand \(\S+@\S+\): new fan\n$/);
    assert.match(cluster.commands[0] ?? "", /cat >(\S+)\.new && mv \1\.new \1'$/, "the file appears whole");
    const undrained = await undrain(inventory, "rs-2", cluster.ssh, progress, limits);
    assert.deepEqual(undrained, { realServer: "rs-2", wasDrained: true, unasked: [] });
    assert.equal(renderUndrained(undrained), "rs-2 serves again.");
    assert.equal(cluster.files.size, 0);
    const again = await undrain(inventory, "rs-2", cluster.ssh, progress, limits);
    assert.equal(renderUndrained(again), "rs-2 was not drained, and serves.");
  });
  it("says what is left when the queue takes too long", async () => {
    cluster.queue = { waiting: 5, running: 1 };
    const drained = await drain(inventory, "rs-2", cluster.ssh, { ...options, wait: 0 }, progress, limits);
    assert.deepEqual(drained.findings, [`rs-2 still works on ${drained.left} requests after 0 s.`]);
    assert.match(
      renderDrained(drained),
      /^rs-2 is drained\. rs-2 still works on \d requests after 0 s\. Back into the pool/,
    );
  });
  it("takes the drain back when the directors do not follow", async () => {
    cluster.follows = false;
    await assert.rejects(
      drain(inventory, "rs-2", cluster.ssh, options, progress, limits),
      /director-1 and director-2 still send rs-2 new connections after 0 s, so the drain was taken back/,
    );
    assert.equal(cluster.files.size, 0);
  });
  it("refuses the last that serves, unless forced", async () => {
    cluster.files.set("rs-1", "by hand");
    const last = drain(inventory, "rs-2", cluster.ssh, options, progress, limits);
    await assert.rejects(last, /rs-2 is the last real server that serves/);
    assert.ok(!cluster.files.has("rs-2"));
    await drain(inventory, "rs-2", cluster.ssh, { ...options, force: true }, progress, limits);
    assert.ok(cluster.files.has("rs-2"));
  });
  it("refuses while nobody is known to hold the VIP", async () => {
    cluster.off.add("director-1");
    await assert.rejects(
      drain(inventory, "rs-2", cluster.ssh, options, progress, limits),
      /no single director that can be reached holds the VIP/,
    );
  });
  it("drains with one director off, and says so", async () => {
    cluster.off.add("director-2");
    const drained = await drain(inventory, "rs-2", cluster.ssh, options, progress, limits);
    assert.deepEqual(drained.unasked, ["director-2"]);
    assert.match(renderDrained(drained), /nothing left to do\. director-2 could not be asked\. Back/);
  });
  it("names what is no real server", async () => {
    const wrong = (name: string) => drain(inventory, name, cluster.ssh, options, progress, limits);
    await assert.rejects(
      wrong("director-1"),
      /director-1 is the director 10\.0\.0\.11.*Real servers: rs-1, rs-2\./,
    );
    await assert.rejects(
      wrong("rs-9"),
      /There is no machine "rs-9" in this stack\. Real servers: rs-1, rs-2\./,
    );
  });
  it("fails when the machine cannot be written to", async () => {
    cluster.off.add("rs-2");
    await assert.rejects(drain(inventory, "rs-2", cluster.ssh, options, progress, limits), /rs-2 is off/);
  });
  it("takes a stopped service for one that has nothing to do", () => {
    const of = (changes: Partial<MachineReport>) => leftToDo(report(changes).report);
    assert.equal(of({ queue: { waiting: 3, running: 1 } }), 4);
    assert.equal(of({ queue: null }), undefined);
    assert.equal(of({ queue: null, units: { "cosyvoice.service": "inactive" } }), 0);
  });
});

describe("scripts/cluster rollback", () => {
  const [A, B, C] = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"];
  /** A real server with the releases, in the order in which they were staged, all whole unless marked with "!". */
  const node = (
    name: string,
    staged: string[],
    current: string | null,
    previous: string | null,
  ): NodeReleases => ({
    name,
    reason: null,
    releases: {
      current,
      previous,
      staged: staged.map((digest, index) => ({
        digest: digest.replace("!", ""),
        complete: !digest.endsWith("!"),
        since: 1_700_000_000 + index,
      })),
    },
  });

  it("goes to the release that was active before, not to the newest", () => {
    const nodes = ["rs-1", "rs-2"].map((name) => node(name, [A, B, C], B, A));
    assert.equal(chooseRelease(nodes).digest, A);
  });
  it("goes back where a deployment was given up half-way", () => {
    const nodes = [node("rs-1", [A, B, C], C, B), node("rs-2", [A, B, C], B, A)];
    assert.equal(chooseRelease(nodes).digest, B);
  });
  it("takes the newest other one where none is known to have been before", () => {
    assert.equal(
      chooseRelease([node("rs-1", [A, B, C], C, null), node("rs-2", [A, B, C], C, null)]).digest,
      B,
    );
  });
  it("asks which when that is not clear", () => {
    const nodes = [node("rs-1", [A, B], A, B), node("rs-2", [A, B], B, A)];
    assert.throws(
      () => chooseRelease(nodes),
      /Give --to one of: bbbb.* \(active on rs-2\), aaaa.* \(active on rs-1\)/,
    );
    assert.equal(chooseRelease(nodes, "a").digest, A);
  });
  const refused: [string, NodeReleases[], string | undefined, RegExp][] = [
    [
      "a release that one lacks",
      [node("rs-1", [A, B], B, A), node("rs-2", [B], B, A)],
      undefined,
      /rs-2 does not have the whole release aaaa/,
    ],
    [
      "a release that is not whole",
      [node("rs-1", [A, B], B, A), node("rs-2", [`${A}!`, B], B, A)],
      A,
      /rs-2 does not have the whole release aaaa/,
    ],
    [
      "an unknown release",
      [node("rs-1", [A], A, null)],
      "dddd",
      /no real server has the release "dddd".*aaaa/,
    ],
    ["what is not there", [node("rs-1", [A], A, null)], undefined, /no release but the active one/],
    [
      "while one is off",
      [node("rs-1", [A, B], B, A), { name: "rs-2", reason: "connection timed out", releases: null }],
      undefined,
      /rs-2 \(connection timed out\)/,
    ],
  ];
  for (const [what, nodes, to, expected] of refused) {
    it(`refuses ${what}`, () => assert.throws(() => chooseRelease(nodes, to), expected));
  }
  it("lists the releases, the newest first", () => {
    const text = renderReleases([node("rs-1", [A, B], B, A), node("rs-2", [`${A}!`, B], B, A)]);
    assert.deepEqual(
      text
        .split("\n")
        .slice(1)
        .map((line) => line.split(/ {2,}/)),
      [
        [B, "2023-11-14 22:13:21 UTC", "all", "all", "-"],
        [A, "2023-11-14 22:13:20 UTC", "rs-1", "-", "all"],
      ],
    );
  });
});

describe("scripts/cluster unlock", () => {
  it("settles what was under way, so that the next up does it again", () => {
    const command = (urn: string, inputs = {}) => ({
      urn,
      type: "command:remote:Command",
      inputs,
      outputs: inputs,
    });
    const state: State = {
      deployment: {
        resources: [command("a", { stdin: "x" }), command("b"), command("c", { environment: { X: "1" } })],
        pending_operations: [
          { resource: command("new"), type: "creating" },
          { resource: command("a"), type: "updating" },
          { resource: command("c"), type: "deleting" },
        ],
      },
    };
    const { resources, pending_operations } = settled(
      state,
      state.deployment.pending_operations ?? [],
    ).deployment;
    const marked = (rest: object, environment = {}) => ({
      ...rest,
      environment: { ...environment, COSYVOICE_LVS_INTERRUPTED: "yes" },
    });
    assert.deepEqual(pending_operations, []);
    assert.deepEqual(
      resources?.map(({ inputs }) => inputs),
      [marked({ stdin: "x" }), {}, marked({}, { X: "1" })],
    );
    assert.deepEqual(
      resources?.map(({ outputs }) => outputs),
      resources?.map(({ inputs }) => inputs),
    );
  });
});
