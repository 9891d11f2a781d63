// Each alert that nothing else in the lab causes, by its fault, told to a webhook: what can go wrong beside each other does so at once.
import assert from "node:assert/strict";
import { machineNamed } from "../../../lab/machines";
import {
  applySettings,
  DIRECTORS,
  inside,
  REAL_SERVERS,
  restoreSettings,
  script,
  settledHolder,
  until,
  untilWell,
  up,
  VIP,
} from "../../lab/bench";
import { causes, type Expected, HOOK, hangUp, listen, query, untilTold } from "./hook";

/** Where nobody listens until the end. */
const DEAF = 8001;

/** A stand-in's answer, marked so: hot, its memory taken, nothing to do. */
const GPU =
  "GPU-00000000-1ab0-4000-8000-000000000001, 00000000:01:00.0, 0, Stand-in of the lab, 0.0, 0, 0, 79000, 81559, 91, 120.00, 700.00";

const NVIDIA_SMI = "/usr/local/bin/nvidia-smi";
const ESPEAK = "/usr/bin/espeak-ng";
const STAND_DOWN = "/run/cosyvoice-lvs/turns/stand-down";

/** Gives a machine an nvidia-smi that runs a line of shell. */
const standIn = (machine: string, line: string) =>
  inside(
    machine,
    `printf '#!/bin/sh\\n%s\\n' '${line}' >${NVIDIA_SMI}.new && chmod 755 ${NVIDIA_SMI}.new && mv ${NVIDIA_SMI}.new ${NVIDIA_SMI}`,
  );

/** Has a machine drop some packets before anything else sees them, until {@link letPass}. */
const drop = (machine: string, what: string) =>
  inside(
    machine,
    `nft 'add table ip lab_fault; add chain ip lab_fault early { type filter hook prerouting priority -400; }; add rule ip lab_fault early ${what} drop'`,
  );
const letPass = (machine: string) => inside(machine, "nft delete table ip lab_fault 2>/dev/null; true");

const other = (director: string) => DIRECTORS.find((name) => name !== director) as string;
const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** When something is told, counted from the start of all; and whose end has still to come. */
let start = 0;
const mended: Expected[] = [];

/** A fault, until the alerts have come that it must cause. Their ends are waited for together, by the last test. */
async function fires(
  expected: readonly Expected[],
  fault: () => Promise<unknown>,
  mend: () => Promise<unknown> = async () => undefined,
  { ends = true } = {},
): Promise<void> {
  await causes(expected, fault, mend, { ends: false });
  note(expected);
  if (ends) mended.push(...expected);
}

function note(alerts: readonly Expected[]): void {
  const seconds = ((Date.now() - start) / 1000).toFixed(0);
  console.log(`      ${seconds.padStart(5)} s: ${alerts.map(({ name }) => name).join(", ")}`);
}

/** Kills a program again and again, each time when it runs anew. */
async function killAgainAndAgain(machine: string, unit: string): Promise<void> {
  const started = () => inside(machine, `systemctl show -P ExecMainStartTimestampMonotonic ${unit}`);
  for (let times = 0; times < 4; times += 1) {
    const before = await started();
    await inside(machine, `systemctl kill -s KILL ${unit}`);
    await until(`${unit} on ${machine} runs again`, 60, async () => {
      return (
        (await started()) !== before &&
        (await inside(machine, `systemctl is-active ${unit} || true`)).trim() === "active"
      );
    });
    await sleep(3);
  }
}

describe("each alert, by its fault", () => {
  before(async () => {
    await restoreSettings();
    await mendAll();
    await untilWell(240);
    // What is told already is not told again.
    await until("no alert is left of what was before", 1000, async () => {
      const left = await query('ALERTS{alertstate="firing", severity!="watchdog"}');
      return left.length === 0;
    });
    await listen();
    await hangUp(DEAF);
    await applySettings({
      "monitoring.receivers": [
        { name: "hook", kind: "webhook", url: HOOK },
        { name: "deaf", kind: "webhook", url: `http://192.168.1.50:${DEAF}/` },
      ],
      "monitoring.routing": { critical: ["hook"], warning: ["hook"], watchdog: ["hook", "deaf"] },
      "service.queueLength": 4,
    });
    assert.equal((await up()).exitCode, 0);
    start = Date.now();
    // What lasts longest begins first: ten minutes and a quarter of an hour.
    assert.equal((await script("cluster", "drain", "rs-3")).exitCode, 0);
    await standIn("rs-1", `echo "${GPU}"`);
    await inside(
      "storage",
      "fallocate -l $(($(df --output=avail -B1 /srv | tail -n1) - $(df --output=size -B1 /srv | tail -n1) * 8 / 100)) /srv/lab-fill",
    );
  });

  after(async () => {
    await mendAll();
    await hangUp();
    await restoreSettings();
    assert.equal((await up()).exitCode, 0);
    await untilWell(240);
  });

  it("of directors, of real servers, and of the machine that watches", async () => {
    await Promise.all([directorsFail(), realServersFail(), watchingFails()]);
  });

  it("no real server is left", async () => {
    const these = ["rs-1", "rs-2"];
    await fires(
      [{ name: "PoolEmpty" }],
      () => Promise.all(these.map((name) => inside(name, "systemctl stop cosyvoice"))),
      () => Promise.all(these.map((name) => inside(name, "systemctl start cosyvoice"))),
    );
    await until("both are back", 180, async () => (await query('up{job="speech"} == 1')).length === 3);
  });

  it("the VIP does not answer where it is asked from", async () => {
    const from = `ip saddr ${machineNamed("monitor").address} ip daddr ${VIP}`;
    await fires(
      [
        { name: "VipProbeFailed", labels: { job: "vip-tcp" } },
        { name: "VipProbeFailed", labels: { job: "vip-http" } },
      ],
      () => Promise.all(DIRECTORS.map((name) => drop(name, from))),
      () => Promise.all(DIRECTORS.map(letPass)),
    );
  });

  it("engines hang: a queue that grows, an idle GPU beside it, errors, and no sentence", async () => {
    const body = '{"model":"cosyvoice","input":"This is sentence number %d of a long list."}';
    const one = `curl -s -m 100 --interface 192.168.1.$((200 + i % 50)) -o /dev/null -H "Content-Type: application/json" -d "$(printf '${body}' $i)" http://${VIP}:7860/v1/audio/speech`;
    const load = `for i in $(seq 90); do ${one} & sleep 4; done; wait`;
    await fires(
      [
        { name: "QueueLong" },
        { name: "GpuIdleWhileQueued", labels: { node: "rs-1" } },
        { name: "SentenceFailed" },
      ],
      async () => {
        await Promise.all(
          REAL_SERVERS.map((name) =>
            inside(
              name,
              `mv ${ESPEAK} ${ESPEAK}.away && printf '#!/bin/sh\\nexec sleep 3600\\n' >${ESPEAK} && chmod 755 ${ESPEAK}`,
            ),
          ),
        );
        await inside(
          "client",
          `cat >/run/lab-load <<'EOF'\n${load}\nEOF\nsystemd-run --quiet --collect --unit=lab-load bash /run/lab-load`,
        );
        // Its rate is reckoned over five minutes, so that its end comes late.
        await fires(
          [{ name: "SpeechErrors" }],
          async () => undefined,
          async () => undefined,
          { ends: false },
        );
      },
      mendEngines,
    );
  });

  it("those that last ten minutes and a quarter of an hour", async () => {
    const long = [
      { name: "DiskFilling", labels: { node: "storage" } },
      { name: "GpuHot", labels: { node: "rs-1" } },
      { name: "GpuMemoryFull", labels: { node: "rs-1" } },
      { name: "RealServerQuiesced", labels: { node: "rs-3" } },
    ];
    for (const alert of long) {
      await untilTold(alert, "firing", 0, 1200);
      note([alert]);
    }
    await mendAll();
    mended.push(...long);
  });

  it("and the end of each is told", async () => {
    for (const alert of mended) await untilTold(alert, "resolved", 0, 420);
  });
});

/** What goes wrong on directors. */
async function directorsFail(): Promise<void> {
  await fires(
    [{ name: "SplitBrain" }],
    () => Promise.all(DIRECTORS.map((name) => drop(name, "ip protocol 112"))),
    () => Promise.all(DIRECTORS.map(letPass)),
  );
  const standby = other(await settledHolder());
  await fires(
    [{ name: "VrrpFault", labels: { node: standby } }],
    () => inside(standby, `echo 1 >${STAND_DOWN}`),
    () => inside(standby, `rm -f ${STAND_DOWN}`),
  );
  await fires(
    [{ name: "UnitRestarts", labels: { node: standby, unit: "cosyvoice-turns.service" } }],
    () => killAgainAndAgain(standby, "cosyvoice-turns"),
    async () => undefined,
    { ends: false },
  );
  await fires(
    [{ name: "ReadingsStale", labels: { node: standby } }],
    () => inside(standby, "systemctl stop cosyvoice-director-metrics; rm -f /run/cosyvoice-metrics/*.prom"),
    () => inside(standby, "systemctl start cosyvoice-director-metrics"),
  );
  await fires(
    [{ name: "VrrpFlapping" }],
    async () => {
      for (let times = 0; times < 4; times += 1) {
        await settledHolder();
        assert.equal((await script("cluster", "failover")).exitCode, 0);
      }
    },
    async () => undefined,
    { ends: false },
  );
}

/** What goes wrong on real servers. */
async function realServersFail(): Promise<void> {
  await fires(
    [{ name: "PoolDegraded", labels: { node: "rs-2" } }, { name: "DirectorsDisagree" }],
    () => drop("rs-2", `ip saddr ${machineNamed(DIRECTORS[1]).address} tcp dport 7860`),
    () => letPass("rs-2"),
  );
  await fires(
    [{ name: "SpeechServiceRestarts", labels: { node: "rs-2" } }],
    async () => {
      for (let times = 0; times < 4; times += 1) {
        const starts = 'process_start_time_seconds{job="speech",node="rs-2"}';
        const [before] = await query(starts);
        await inside("rs-2", "systemctl kill -s KILL cosyvoice");
        await until("its new start is seen", 180, async () => {
          const [now] = await query(`${starts} and on (node) up{job="speech"} == 1`);
          return now !== undefined && now.value !== before?.value;
        });
      }
    },
    async () => undefined,
    { ends: false },
  );
  await fires(
    [{ name: "GpuUnreadable", labels: { node: "rs-2" } }],
    () => standIn("rs-2", "exit 9"),
    () => inside("rs-2", `rm -f ${NVIDIA_SMI}`),
  );
  await fires(
    [{ name: "GpuFault", labels: { node: "rs-1", xid: "79" } }],
    // A machine of the lab has no kernel's log of its own: this is one with one record.
    () =>
      inside(
        "rs-1",
        `printf '4,1,%s,-;NVRM: Xid (PCI:0000:01:00): 79, a stand-in of the lab\\n' "$(awk '{printf "%d", $1 * 1e6}' /proc/uptime)" >/dev/kmsg`,
      ),
    async () => undefined,
    { ends: false },
  );
}

/** What goes wrong with the watching. */
async function watchingFails(): Promise<void> {
  await untilTold({ name: "Watchdog" }, "firing", 0, 420);
  await untilTold({ name: "AlertsNotDelivered", labels: { integration: "webhook" } }, "firing", 0, 600);
  await listen(DEAF);
  await fires(
    [{ name: "MonitoringPartDown", labels: { job: "prober" } }],
    () => inside("monitor", "systemctl stop prometheus-blackbox-exporter"),
    () => inside("monitor", "systemctl start prometheus-blackbox-exporter"),
  );
}

async function mendEngines(): Promise<void> {
  await inside("client", "systemctl stop lab-load 2>/dev/null; rm -f /run/lab-load");
  for (const name of REAL_SERVERS)
    await inside(name, `! test -e ${ESPEAK}.away || mv ${ESPEAK}.away ${ESPEAK}`);
}

/** Undoes everything, also what a run left that was killed. */
async function mendAll(): Promise<void> {
  for (const name of DIRECTORS) {
    await letPass(name);
    await inside(
      name,
      `! grep -qx 1 ${STAND_DOWN} 2>/dev/null || rm ${STAND_DOWN}; systemctl start cosyvoice-director-metrics`,
    );
  }
  for (const name of REAL_SERVERS) {
    await letPass(name);
    await inside(
      name,
      `rm -f ${NVIDIA_SMI}; ! test -f /dev/kmsg || rm /dev/kmsg; systemctl restart cosyvoice-gpu-metrics; systemctl start cosyvoice`,
    );
  }
  await mendEngines();
  await inside("monitor", "systemctl start prometheus-blackbox-exporter");
  await inside("storage", "rm -f /srv/lab-fill");
  await hangUp(DEAF);
  await script("cluster", "undrain", "rs-3");
}
