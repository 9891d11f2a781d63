import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { basename, dirname } from "node:path";
import { execa } from "execa";
import { pages } from "../../../render/dashboards/pages";
import { shellQuote } from "../../../render/text";
import { logPrograms } from "../../../scripts/toolchain/logPrograms";
import {
  applySettings,
  DIRECTORS,
  inside,
  lab,
  REAL_SERVERS,
  restoreSettings,
  until,
  untilWell,
  up,
  VIP,
} from "../../lab/bench";
import { causes, HOOK, hangUp, listen } from "./hook";

/** Where the machines fetch what is in no package: the way for those that reach no internet. */
const SERVER = { address: "192.168.1.50", port: 8900, directory: "/var/tmp/programs" };

/** Puts a program there, in an archive as its vendor's. @returns its section of `monitoring.programs` */
async function offered(program: string): Promise<{ url: string; sha256: string }> {
  const pack = ["-I", "gzip -1", "-C", dirname(program), "-c", basename(program)];
  const { stdout } = await execa("tar", pack, { encoding: "buffer", maxBuffer: 2 ** 28 });
  const archive = `${basename(program)}.tar.gz`;
  const take = `mkdir -p ${SERVER.directory} && cat >${SERVER.directory}/${archive}`;
  await lab.exec("client", ["sh", "-c", take], { input: stdout });
  return {
    url: `http://${SERVER.address}:${SERVER.port}/${archive}`,
    sha256: createHash("sha256").update(stdout).digest("hex"),
  };
}

interface Stream {
  readonly stream?: Readonly<Record<string, string>>;
  readonly metric?: Readonly<Record<string, string>>;
  readonly values: readonly (readonly [string, string])[];
}

/** What Loki finds, asked on its own machine. */
async function find(query: string): Promise<readonly Stream[]> {
  const answer = await inside(
    "monitor",
    `curl -sS -m 60 -G --data-urlencode ${shellQuote(`query=${query}`)} -d limit=500 http://192.168.1.30:3100/loki/api/v1/query_range`,
  );
  try {
    return (JSON.parse(answer) as { data: { result: Stream[] } }).data.result;
  } catch {
    throw new Error(`${query}: ${answer.slice(0, 300)}`);
  }
}

const machines = [...DIRECTORS, ...REAL_SERVERS, "storage", "monitor"];

/** Asks for a sentence under an id, from one of the client's addresses. */
const speak = (id: string, source: string, text: string) =>
  inside(
    "client",
    `curl -sS -f -m 60 --interface ${source} -o /dev/null -H 'Content-Type: application/json' -H 'X-Request-Id: ${id}' ` +
      `-d '${JSON.stringify({ model: "cosyvoice", input: text })}' http://${VIP}:7860/v1/audio/speech`,
  );

/** Gives Loki a line that is older than it takes. */
const tooOld = () => {
  const entry = [`${Date.now() - 400 * 86_400_000}000000`, "A line of last year."];
  const body = JSON.stringify({ streams: [{ stream: { node: "monitor", unit: "lab" }, values: [entry] }] });
  return inside(
    "monitor",
    `curl -sS -o /dev/null -m 30 -H 'Content-Type: application/json' -d '${body}' http://192.168.1.30:3100/loki/api/v1/push`,
  );
};

const linesOf = (id: string) => find(`{node=~".+"} | request_id="${id}"`);

describe("logs of the lab's machines", () => {
  before(async () => {
    await restoreSettings();
    await untilWell(240);
    const { collector, loki } = await logPrograms((line) => console.log(`      ${line}`));
    const programs = { collector: await offered(collector), loki: await offered(loki) };
    await inside(
      "client",
      `systemctl stop programs 2>/dev/null; systemd-run --quiet --unit=programs python3 -m http.server -b ${SERVER.address} -d ${SERVER.directory} ${SERVER.port}`,
    );
    await listen();
    await applySettings({
      "monitoring.logs": { enabled: true, disk: 1 },
      "monitoring.programs": programs,
      "monitoring.receivers": [{ name: "hook", kind: "webhook", url: HOOK }],
    });
    assert.equal((await up()).exitCode, 0);
  });

  after(async () => {
    await hangUp();
    await restoreSettings();
    assert.equal((await up()).exitCode, 0);
    await inside("client", `systemctl stop programs; rm -rf ${SERVER.directory}`);
    for (const machine of machines)
      await inside(machine, "test ! -e /etc/systemd/system/cosyvoice-logs.service");
  });

  it("come from every machine", async () => {
    // On the storage nothing happens otherwise.
    for (const machine of machines) await inside(machine, "logger a line of the lab");
    await until("every machine has said something", 240, async () => {
      // Loki says for a while after its start that it is not ready.
      const found = await find('sum by (node) (count_over_time({node=~".+"}[15m]))').catch(() => []);
      const nodes = new Set(found.map(({ metric }) => metric?.node));
      return machines.every((machine) => nodes.has(machine));
    });
  });

  it("tell of a failover, on the machine where it was", async () => {
    const said = (await find('{unit="keepalived"} |= "MASTER STATE"')).length;
    await inside(DIRECTORS[0], "systemctl restart keepalived");
    await inside(DIRECTORS[1], "systemctl restart keepalived");
    await until("keepalived's words are there", 120, async () => {
      const now = await find('{unit="keepalived"} |= "MASTER STATE"');
      return now.length > 0 && now.flatMap(({ values }) => values).length > said;
    });
    await untilWell(120);
  });

  it("follow a request through the VIP to the node that spoke, and to the one that it was given to", async () => {
    const ids = Array.from({ length: 8 }, (_, index) => `lab-${process.pid}-${index}`);
    // All from one address: one real server gets them, and hands some to its neighbours.
    await Promise.all(
      ids.map((id) => speak(id, "192.168.1.201", `Request ${id}. ${"More words. ".repeat(12)}`)),
    );
    await until("each is found", 180, async () => {
      const found = await Promise.all(ids.map(linesOf));
      return found.every((streams) => streams.some(({ stream }) => stream?.unit === "jobs"));
    });
    const ways = (await Promise.all(ids.map(linesOf))).map((streams) =>
      [...new Set(streams.map(({ stream }) => stream?.node))].sort().join(" and "),
    );
    console.log(`      ${[...new Set(ways)].sort().join(", ")}`);
    assert.ok(
      ways.some((way) => / and /.test(way)),
      `one is on two machines: ${ways.join(", ")}`,
    );
  });

  it("show something in every panel of their dashboard", async () => {
    // No job fails here, HTTPS is off, nobody warns, and a machine in the box has no kernel of its own.
    const empty = /without a result|nginx|Warnings|Kernel/;
    const asked = pages.filter(({ source }) => source === "loki");
    for (const { panels, search } of asked)
      for (const { title, queries } of panels)
        for (const [expr] of queries) {
          const found = await find(expr.replace(`$${search?.name}`, search?.anything ?? ""));
          assert.ok(found.length > 0 || empty.test(title), `${title}: ${expr}`);
        }
  });

  it("come after all when Loki was away, once each", async () => {
    const id = `lab-${process.pid}-away`;
    await inside("monitor", "systemctl stop cosyvoice-loki");
    await speak(id, "192.168.1.202", `Nobody listens to ${id}.`);
    await new Promise((resolve) => setTimeout(resolve, 20_000));
    await inside("monitor", "systemctl start cosyvoice-loki");
    const jobs = async () =>
      (await linesOf(id).catch(() => []))
        .filter(({ stream }) => stream?.unit === "jobs")
        .flatMap(({ values }) => values);
    await until("it comes", 240, async () => (await jobs()).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 15_000));
    assert.equal((await jobs()).length, 1);
  });

  it("cost a machine that is at rest less than two hundredths of its two processors", async () => {
    const used = async (machine: string) =>
      Number(
        /usage_usec (\d+)/.exec(
          await inside(machine, "cat /sys/fs/cgroup/system.slice/cosyvoice-logs.service/cpu.stat"),
        )?.[1],
      ) / 1e6;
    const seconds = 90;
    const before = await Promise.all(machines.map(used));
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const after = await Promise.all(machines.map(used));
    const shares = machines.map((machine, index) => ({
      machine,
      share: (100 * ((after[index] ?? 0) - (before[index] ?? 0))) / seconds,
    }));
    console.log(`      ${shares.map(({ machine, share }) => `${machine} ${share.toFixed(2)} %`).join(", ")}`);
    for (const { machine, share } of shares) assert.ok(share < 4, `${machine}: ${share} % of one`);
  });

  it("that Loki refuses are told, and so is a collector that is gone for ten minutes", async () => {
    await causes(
      [
        { name: "LogsRefused", labels: { reason: "greater_than_max_sample_age" } },
        { name: "LogsNotShipped", labels: { node: "rs-3" } },
      ],
      async () => {
        await inside("rs-3", "systemctl stop cosyvoice-logs");
        await tooOld();
      },
      () => inside("rs-3", "systemctl start cosyvoice-logs"),
      // That something was refused is told for a quarter of an hour.
      { seconds: 900, ends: false },
    );
  });
});
