import assert from "node:assert/strict";
import type { OpenSsh } from "../../components/remote/openssh";
import { diagnose, judge, judgeClocks, renderDiagnosis, strangers } from "../../scripts/cluster-cli/doctor";
import type { InventoryMachine } from "../../scripts/cluster-cli/inventory";
import { deployedLayers } from "../../scripts/cluster-cli/layers";
import { scheduledByMh } from "../../scripts/cluster-cli/mh";
import { ProgressLine } from "../../scripts/cluster-cli/progress";
import { inventory, machine } from "./inventory-fixture";

const speaker: InventoryMachine = { ...machine("rs-1", "realServer", "10.0.0.1"), listens: [7860] };

const gibibyte = 2 ** 30;
const examination = { clock: 0, disks: [], listens: [], filters: [] };

describe("scripts/cluster doctor", () => {
  it("finds layers in a state, secret or not, and nothing else", () => {
    const connection = { host: "10.0.0.1", user: "root" };
    const secret = (value: unknown) => ({ secretMark: "1", plaintext: JSON.stringify(value) });
    const resource = (name: string, inputs: Record<string, unknown>) => ({
      urn: `urn:pulumi:x::y::z::${name}`,
      inputs,
    });
    const apply = "sudo -n /usr/local/lib/cosyvoice-lvs/apply apply";
    const found = deployedLayers([
      resource("plain", { create: apply, stdin: "{}", connection }),
      resource("secret", { create: apply, stdin: secret("{1}"), connection: secret(connection) }),
      resource("programs", { create: "sh -s install", stdin: "text", connection }),
      resource("component", {}),
    ]);
    assert.deepEqual(found, [
      { resource: "plain", address: "10.0.0.1", manifest: "{}" },
      { resource: "secret", address: "10.0.0.1", manifest: "{1}" },
    ]);
  });

  it("names disks that are nearly full, and those that do not answer", () => {
    const disks = [
      { path: "/", free: 40 * gibibyte, size: 100 * gibibyte },
      { path: "/var", free: 0.5 * gibibyte, size: 100 * gibibyte },
      { path: "/root/CosyVoice/outputs", error: "no answer within 5 s" },
    ];
    assert.deepEqual(
      judge(speaker, { ...examination, disks }).map(({ what }) => what),
      ["/var is nearly full: 0.5 GiB of 100.0 GiB are free", "/root/CosyVoice/outputs: no answer within 5 s"],
    );
    // A small disk of a small machine is not full because it is small.
    const small = [{ path: "/", free: 0.4 * gibibyte, size: 2 * gibibyte }];
    assert.deepEqual(judge(speaker, { ...examination, disks: small }), []);
  });

  it("names a packet filter that something else has taken away", () => {
    const filters = [{ unit: "cosyvoice-firewall.service", table: "table inet cosyvoice_lvs_firewall" }];
    const [found, ...more] = judge(speaker, { ...examination, filters });
    assert.deepEqual(more, []);
    assert.match(
      found?.what ?? "",
      /^its packet filter \(table inet cosyvoice_lvs_firewall\) is not in force/,
    );
    assert.match(found?.fix ?? "", /systemctl restart cosyvoice-firewall\.service/);
  });

  it("names a clock that differs from the others by more than the way there explains", () => {
    const clock = (name: string, ahead: number, within = 0.1) => ({ machine: name, ahead, within });
    assert.deepEqual(judgeClocks([clock("a", 60), clock("b", 60.2), clock("c", 64)]), []);
    const [found, ...more] = judgeClocks([clock("a", 0), clock("b", 0.1), clock("c", -31.4)]);
    assert.deepEqual(more, []);
    assert.equal(found?.machine, "c");
    assert.equal(found?.what, "its clock is 31 s behind the others");
    assert.deepEqual(judgeClocks([clock("a", 0), clock("b", 0.1), clock("c", 9, 5)]), []);
  });

  it("notes who listens besides what was deployed", () => {
    const listens = [
      { address: "0.0.0.0", port: 22, program: "sshd" },
      { address: "0.0.0.0", port: 7860, program: "python" },
      { address: "::", port: 111, program: null },
      { address: "0.0.0.0", port: 8080, program: "nginx" },
    ];
    assert.deepEqual(strangers(speaker, { ...examination, listens }), [
      "rs-1: the kernel listens on :::111",
      "rs-1: nginx listens on 0.0.0.0:8080",
    ]);
  });

  it("says what to do", () => {
    const findings = [{ machine: "rs-1", what: "it is broken", fix: "mend it" }];
    assert.match(
      renderDiagnosis({ findings, notes: [], differing: new Map() }, 2),
      /rs-1.*it is broken\n {4}fix: mend it/,
    );
    assert.match(
      renderDiagnosis({ findings: [], notes: [], differing: new Map() }, 2),
      /Nothing found: 2 machines/,
    );
  });

  it("says of notes what they are, and that nothing has to be done", () => {
    const notes = ["storage: rpc.mountd listens on 0.0.0.0:20048"];
    const said = renderDiagnosis({ findings: [], notes, differing: new Map() }, 2);
    assert.match(
      said,
      /^.*Nothing found.*\n\nFor your information, nothing has to be done: other programs that listen(.*\n)+.*- storage: rpc\.mountd listens/,
    );
    assert.doesNotMatch(
      renderDiagnosis({ findings: [], notes: [], differing: new Map() }, 2),
      /For your information/,
    );
  });
});

describe("scripts/cluster doctor, of a cluster", () => {
  it("goes on with the other machines when one cannot be looked at, and says so", async () => {
    const broken = "OSError: [Errno 28] No space left on device\n";
    const report = JSON.stringify({ ...examination, clock: Date.now() / 1000 });
    const ssh = {
      run: async (name: string, _: string, { input = "" } = {}) =>
        name === "rs-1" || !input.includes("examine")
          ? { exitCode: 1, stdout: "", stderr: broken }
          : { exitCode: 0, stdout: report, stderr: "" },
    } as unknown as OpenSsh;
    const storage = machine("storage", "storage", "10.0.0.20");
    const cluster = { ...inventory, machines: [machine("rs-1", "storage", "10.0.0.1"), storage] };
    const silent = new ProgressLine({ isTTY: false, write: () => true } as unknown as NodeJS.WriteStream);
    const { findings } = await diagnose(cluster, [], ssh, silent);
    assert.deepEqual(
      findings
        .filter(({ machine: whose }) => whose !== null)
        .map(({ machine: whose, what }) => `${whose}: ${what}`),
      ["rs-1: cannot be looked at: rs-1: examine.py failed: OSError: [Errno 28] No space left on device"],
    );
  });
});

describe("scripts/cluster where", () => {
  const destination = (last: number, weight = 1) => ({ address: `192.168.1.${last}`, port: 7860, weight });

  it("gives a client a real server, always the same, and spreads clients evenly", () => {
    const three = [destination(101), destination(102), destination(103)];
    const counts = new Map<string, number>();
    for (let last = 1; last < 255; last += 1) {
      const found = scheduledByMh(three, `10.1.2.${last}`) as string;
      assert.equal(scheduledByMh(three, `10.1.2.${last}`), found);
      counts.set(found, (counts.get(found) ?? 0) + 1);
    }
    assert.equal(counts.size, 3);
    for (const count of counts.values()) assert.ok(count > 60 && count < 110, `${[...counts]}`);
  });

  it("sends those of a drained one elsewhere, and nobody else", () => {
    const before = [destination(101), destination(102), destination(103)];
    const after = [destination(101), destination(102, 0), destination(103)];
    for (let last = 1; last < 255; last += 1) {
      const [was, is] = [before, after].map((table) => scheduledByMh(table, `10.1.2.${last}`));
      if (was === "192.168.1.102") assert.notEqual(is, was);
      else assert.equal(is, was);
    }
    assert.equal(scheduledByMh([destination(101, 0)], "10.1.2.3"), undefined);
  });

  it("gives twice the weight twice the clients", () => {
    const table = [destination(101, 2), destination(102, 1)];
    const clients = Array.from({ length: 300 }, (_, i) => `10.${i >> 4}.${i & 15}.7`);
    const share =
      clients.filter((client) => scheduledByMh(table, client) === "192.168.1.101").length / clients.length;
    assert.ok(share > 0.55 && share < 0.78, `${share}`);
  });
});
