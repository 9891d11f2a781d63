import assert from "node:assert/strict";
import {
  applySettings,
  ask,
  DIRECTORS,
  holders,
  inside,
  lab,
  REAL_SERVERS,
  restoreSettings,
  script,
  settledHolder,
  until,
  untilWell,
  up,
  VIP,
} from "../../lab/bench";
import { type Alert, causes, HOOK, hangUp, listen, query, told, untilTold } from "./hook";

/** Units by which a machine is watched, and what each has used of the processors, in seconds. */
async function used(machine: string): Promise<ReadonlyMap<string, number>> {
  const found = await inside(
    machine,
    "cd /sys/fs/cgroup/system.slice; grep usage_usec prometheus*.service/cpu.stat cosyvoice-*metrics.service/cpu.stat cosyvoice-sentence.service/cpu.stat 2>/dev/null || true",
  );
  const lines = found.matchAll(/^([^/]+)\.service\/cpu\.stat:usage_usec (\d+)$/gm);
  return new Map([...lines].map(([, unit, microseconds]) => [unit as string, Number(microseconds) / 1e6]));
}

/** What was told to be wrong, by name. */
function firing(alerts: readonly Alert[]): string[] {
  const told = alerts.filter(({ status }) => status === "firing");
  return [...new Set(told.map(({ labels }) => labels.alertname ?? ""))].filter((name) => name !== "Watchdog");
}

describe("monitoring", () => {
  before(async () => {
    await restoreSettings();
    await untilWell(240);
    await listen();
    await applySettings({ "monitoring.receivers": [{ name: "hook", kind: "webhook", url: HOOK }] });
    assert.equal((await up()).exitCode, 0);
  });

  after(async () => {
    await hangUp();
    await restoreSettings();
    assert.equal((await up()).exitCode, 0);
  });

  it("sees every target, through the ports of this computer", async () => {
    await until("all are up", 120, async () => {
      const answers = await query("up");
      return answers.length === 7 + 3 + 2 + 3 && answers.every(({ value }) => value === 1);
    });
    const ready = await fetch(`${await lab.monitorUrl(9093)}-/ready`);
    assert.equal(ready.status, 200);
  });

  it("says what the kernels' tables say, and who has the VIP", async () => {
    await until("readings have come", 90, async () => (await query("lvs_vip_held")).length === 2);
    await until("the holder is the kernel's", 90, async () => {
      const seen = (await query("lvs_vip_held == 1")).map(({ labels }) => labels.node);
      return seen.join() === (await holders()).join();
    });
    const tables = async (director: string) => {
      const table = await inside(director, `ipvsadm -Ln -t ${VIP}:7860`);
      const weights = [...table.matchAll(/-> (\S+):7860\s+Route\s+(\d+)/g)].map(
        ([, address, weight]) => `${address} ${weight}`,
      );
      const seen = (await query(`node_ipvs_backend_weight{node="${director}", local_port="7860"}`)).map(
        ({ labels, value }) => `${labels.remote_address} ${value}`,
      );
      return { weights: weights.sort(), seen: seen.sort() };
    };
    for (const director of DIRECTORS) {
      // What is seen is half a minute old, and the table may have changed since.
      await until(`the same is seen of ${director}`, 90, async () => {
        const { weights, seen } = await tables(director);
        return weights.length === REAL_SERVERS.length && seen.join() === weights.join();
      });
    }
  });

  it("shows nothing to a machine that is not the admins'", async () => {
    const probe = async (address: string, port: number) =>
      inside("client", `curl -s -m 3 -o /dev/null http://${address}:${port}/metrics; echo $?`);
    for (const [address, port] of [
      ["192.168.1.30", 9090],
      ["192.168.1.30", 9093],
      ["192.168.1.11", 9100],
      ["192.168.1.101", 9100],
    ] as const)
      assert.equal((await probe(address, port)).trim(), "28", `${address}:${port} times out`);
  });

  it("has a sentence through the VIP every minute", async () => {
    await until("it came", 150, async () => (await query("tts_probe_success == 1")).length === 1);
    const [age] = await query("time() - tts_probe_timestamp_seconds");
    assert.ok((age?.value ?? 1000) < 150);
  });

  it("counts what a machine brings, and it is bounded", async () => {
    const series = await query('count by (node) ({job="node"})');
    for (const { labels, value } of series) assert.ok(value < 450, `${labels.node}: ${value} series`);
  });

  it("costs a machine that is watched less than two hundredths of a processor", async () => {
    const machines = [...DIRECTORS, ...REAL_SERVERS, "storage", "monitor"];
    const before = await Promise.all(machines.map(used));
    const seconds = 120;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const after = await Promise.all(machines.map(used));
    const shares = machines.map((machine, index) => {
      const parts = [...(after[index] ?? [])].map(
        ([unit, time]) => [unit, (100 * (time - (before[index]?.get(unit) ?? 0))) / seconds] as const,
      );
      const all = parts.reduce((sum, [, share]) => sum + share, 0);
      console.log(
        `      ${machine}: ${all.toFixed(2)} % of a processor: ${parts.map(([unit, share]) => `${unit} ${share.toFixed(2)}`).join(", ")}`,
      );
      return { machine, parts, all };
    });
    for (const { machine, parts, all } of shares) {
      assert.ok(parts.length > 0, `${machine} is watched by something`);
      if (machine !== "monitor") assert.ok(all < 2, `${machine}: ${all} %`);
    }
  });

  it("a dead director is one message", async () => {
    const victim = await settledHolder();
    const alerts = await causes(
      [{ name: "MachineDown", labels: { node: victim } }],
      () => lab.powerCut(victim),
      () => lab.powerOn(victim),
    );
    await untilWell(240);
    assert.deepEqual(firing(alerts), ["MachineDown"]);
  });

  it("so is a keepalived that does not run", async () => {
    const victim = await settledHolder();
    const alerts = await causes(
      [{ name: "KeepalivedDown", labels: { node: victim } }],
      () => inside(victim, "systemctl stop keepalived"),
      () => inside(victim, "systemctl start keepalived"),
    );
    await untilWell(240);
    assert.deepEqual(firing(alerts), ["KeepalivedDown"]);
  });

  it("a speech service that does not run, and not its place in the pool besides", async () => {
    const alerts = await causes(
      [{ name: "SpeechServiceDown", labels: { node: "rs-3" } }],
      () => inside("rs-3", "systemctl stop cosyvoice"),
      () => inside("rs-3", "systemctl start cosyvoice"),
    );
    await untilWell(240);
    assert.deepEqual(firing(alerts), ["SpeechServiceDown"]);
  });

  it("a health poller that is gone", async () => {
    await causes(
      [{ name: "UnitDown", labels: { node: "director-1" } }],
      () => inside("director-1", "systemctl stop cosyvoice-health"),
      () => inside("director-1", "systemctl start cosyvoice-health"),
    );
  });

  it("a share that is away, told by every real server in one message", async () => {
    await causes(
      [{ name: "OutputsAway" }],
      () => inside("storage", "systemctl stop nfs-kernel-server"),
      () => inside("storage", "systemctl start nfs-kernel-server"),
    );
    await untilWell(240);
  });

  it("a dead storage machine is critical, and one message", async () => {
    const before = (await told()).length;
    try {
      await lab.powerCut("storage");
      await untilTold({ name: "StorageDown", labels: { severity: "critical" } }, "firing", before, 420);
      // Until what follows from it would have been told, too.
      await until("every real server misses the share", 240, async () => {
        return (await query('ALERTS{alertname="OutputsAway",alertstate="firing"}')).length === 3;
      });
      await new Promise((resolve) => setTimeout(resolve, 90_000));
      assert.deepEqual(firing((await told()).slice(before)), ["StorageDown"]);
    } finally {
      await lab.powerOn("storage");
    }
    await untilTold({ name: "StorageDown" }, "resolved", before, 420);
    await untilWell(240);
    // As long as the errors and the sentence of before are remembered.
    await new Promise((resolve) => setTimeout(resolve, 360_000));
    const others = firing((await told()).slice(before)).filter((name) => name !== "OutputsAway");
    assert.deepEqual(others, ["StorageDown"], "what it caused is not told when it is over");
  });

  it("nobody holds the VIP", async () => {
    const alerts = await causes(
      [{ name: "NoVipHolder" }],
      () => Promise.all(DIRECTORS.map((name) => inside(name, "systemctl stop keepalived"))),
      () => Promise.all(DIRECTORS.map((name) => inside(name, "systemctl start keepalived"))),
    );
    await untilWell(240);
    const others = firing(alerts).filter((name) => !["NoVipHolder", "KeepalivedDown"].includes(name));
    assert.deepEqual(others, [], "it explains the sentence that does not come");
  });

  it("takes a receiver's new secret: what comes next goes there, and nothing is said twice", async () => {
    const [before] = await query('time() - process_start_time_seconds{job="alertmanager"}');
    await applySettings({
      "monitoring.receivers": [{ name: "hook", kind: "webhook" }],
      receiverSecrets: { hook: `${HOOK}first` },
    });
    assert.equal((await up()).exitCode, 0);
    await applySettings({ receiverSecrets: { hook: `${HOOK}second` } });
    const { exitCode, output } = await up();
    assert.equal(exitCode, 0);
    assert.ok(!output.includes(`${HOOK}second`), "the secret is not shown");
    const [after] = await query('time() - process_start_time_seconds{job="alertmanager"}');
    assert.ok(
      (after?.value ?? 0) > (before?.value ?? 0),
      "Alertmanager was not restarted: it knows what it told",
    );
    const first = (await told("first")).length;
    await inside("rs-2", "systemctl stop cosyvoice");
    try {
      await until("it is told to the new one", 400, async () =>
        (await told("second")).some(({ labels }) => labels.alertname === "SpeechServiceDown"),
      );
    } finally {
      await inside("rs-2", "systemctl start cosyvoice");
    }
    assert.equal((await told("first")).length, first);
    await untilWell(240);
  });

  it("serves on when the machine that watches is gone", async () => {
    await lab.powerCut("monitor");
    try {
      for (const last of [201, 202, 203, 204])
        assert.match((await ask(`192.168.1.${last}`)).trim(), /^rs-\d$/);
      const { exitCode, output } = await script("cluster", "status");
      assert.equal(exitCode, 1);
      assert.match(output, /^! Alerts are not known: monitor /m);
      assert.equal((output.match(/^! /gm) ?? []).length, 1, `nothing else is wrong: ${output}`);
    } finally {
      await lab.powerOn("monitor");
    }
    await until("it watches again", 240, async () => {
      const answers = await query("up == 1").catch(() => []);
      return answers.length === 15;
    });
  });
});
