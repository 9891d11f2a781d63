import assert from "node:assert/strict";
import { logs as page } from "../../../render/dashboards/logs";
import { ask } from "../../unit/front-door-fixture";
import { LogWorld } from "./world";

const journalOfDirector = [
  { _SYSTEMD_UNIT: "keepalived.service", PRIORITY: "6", MESSAGE: "(cosyvoice) Entering MASTER STATE" },
  {
    _SYSTEMD_UNIT: "init.scope",
    UNIT: "keepalived.service",
    PRIORITY: "4",
    MESSAGE: "keepalived.service: Failed with result 'watchdog'.",
  },
  { _TRANSPORT: "kernel", PRIORITY: "3", MESSAGE: "IPVS: made-up: no destination available" },
  { _SYSTEMD_UNIT: "session-17.scope", PRIORITY: "6", MESSAGE: "a made-up login" },
  { _SYSTEMD_UNIT: "user@1000.service", PRIORITY: "6", MESSAGE: "a made-up user" },
  { _SYSTEMD_UNIT: "run-u12.service", PRIORITY: "6", MESSAGE: "a made-up run" },
  { SYSLOG_IDENTIFIER: "made-up", PRIORITY: "5", MESSAGE: "nobody's" },
];
const journalOfServer = [
  { _SYSTEMD_UNIT: "cosyvoice-front-door.service", PRIORITY: "2", MESSAGE: "made-up: no space left" },
];
/** A line of nginx's, as journald has it of syslog's. */
const requestOfDoor = (line: string) => ({
  _SYSTEMD_UNIT: "cosyvoice-front-door.service",
  SYSLOG_IDENTIFIER: "requests",
  PRIORITY: "6",
  MESSAGE: line.slice(line.indexOf("{")),
});

describe("logs, from the machines to a question", () => {
  const world = new LogWorld();
  const [director] = world.config.directors;
  const [first, second] = world.config.realServers;
  if (first === undefined || second === undefined) throw new Error("two real servers");
  const made = async (id: string, text: string) => {
    const answer = await fetch(`http://${world.service(first)}/v1/audio/speech`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-request-id": id },
      body: JSON.stringify({ model: "cosyvoice", input: text }),
    });
    await answer.arrayBuffer();
    return answer.status;
  };

  before(async () => {
    await world.start();
    world.startCollector(director, journalOfDirector);
    for (const server of [first, second]) world.startCollector(server, journalOfServer);
    await world.until(
      "what the journals say is there",
      90,
      async () => (await world.find('{unit="keepalived"}')).length === 2,
    );
  });
  after(() => world.stop());

  it("are read by the collector as they are configured, and a mistake is not", () => {
    for (const machine of [director, first]) {
      const { status, stderr } = world.validate(machine);
      assert.equal(status, 0, stderr);
    }
    // Names of machines that are a day or a number to YAML, of one version or another.
    for (const name of ["2024-01-01", "0b11", "017", "1e3", "on", "null"]) {
      const { status, stderr } = world.validate({ ...first, name });
      assert.equal(status, 0, `${name}: ${stderr}`);
    }
    assert.notEqual(world.validate(first, (text) => text.replace("start_at", "starts_at")).status, 0);
  });

  it("of keepalived, the kernel and nginx have the machine and the unit as labels, and nothing else", async () => {
    const units = async (node: string) =>
      (await world.find(`{node="${node}"}`)).map(({ labels, text }) => `${labels.unit}: ${text}`).sort();
    assert.deepEqual(await units("director-1"), [
      "keepalived: (cosyvoice) Entering MASTER STATE",
      "keepalived: keepalived.service: Failed with result 'watchdog'.",
      "kernel: IPVS: made-up: no destination available",
      "none: nobody's",
      "run: a made-up run",
      "session: a made-up login",
      "user: a made-up user",
    ]);
    await world.until(
      "the real server's",
      30,
      async () => (await world.find('{unit="cosyvoice-front-door"}')).length === 2,
    );
    assert.deepEqual((await world.labels()).sort(), ["node", "unit"]);
  });

  it("follow one request from nginx across two machines, which one of them gave to the other", async () => {
    const door = await world.startFrontDoor(first);
    const ids = Array.from({ length: 12 }, (_, index) => `made-up-${index}`);
    const statuses = await Promise.all(
      ids.map(async (id) => {
        const answer = await ask(door, "/v1/audio/speech", {
          method: "POST",
          headers: { "content-type": "application/json", "x-request-id": id },
          body: JSON.stringify({ model: "cosyvoice", input: `${id} ${"A long sentence. ".repeat(150)}` }),
          timeout: 120_000,
        });
        return answer.status;
      }),
    );
    // As many others again as a search may bring: who looks for one request must find it behind them.
    const others = Array.from({ length: 6000 }, () => requestOfDoor('{"request_id":"made-up-other"}'));
    world.says("rs-1", [...door.logged.map(requestOfDoor), ...others]);
    assert.deepEqual([...new Set(statuses)], [200]);
    const nodesOf = async (id: string) =>
      [
        ...new Set((await world.find(`{node=~".+"} | request_id="${id}"`)).map(({ labels }) => labels.node)),
      ].sort();
    let both: string | undefined;
    await world.until("one is known to both", 60, async () => {
      for (const id of ids) if ((await nodesOf(id)).length === 2) both ??= id;
      return both !== undefined;
    });
    const lines = await world.find(`{node=~".+"} | request_id="${both}"`);
    assert.deepEqual(
      [...new Set(lines.map(({ labels }) => `${labels.node} ${labels.unit}`))].sort(),
      ["rs-1 access", "rs-1 cosyvoice-front-door", "rs-1 jobs", "rs-2 access"].sort(),
    );
    const found = world.journalOf("rs-1", String(both)).map((line) => JSON.parse(JSON.parse(line).text));
    assert.equal(found.filter(({ request_id }) => request_id === both).length, 1);
    for (const { text } of lines) assert.equal(JSON.parse(text).request_id, both);
    assert.deepEqual((await world.labels()).sort(), ["node", "unit"], "a request is no label");
  });

  for (const { title, queries } of page.panels) {
    it(`are asked for by the panel "${title}"`, async () => {
      assert.equal(await made("made-up-panel", "A sentence."), 200);
      const [[expr]] = queries as [[string, string]];
      const query = expr.replace("$" + "request", page.search?.anything ?? "");
      // Nothing has gone wrong here.
      if (title.startsWith("Jobs without")) assert.equal(await world.count(query), 0);
      else await world.until(`${query} finds something`, 60, async () => (await world.count(query)) > 0);
    });
  }

  it("are not lost while Loki is away, nor come twice", async () => {
    await world.stopProgram("loki");
    assert.equal(await made("made-up-meanwhile", "Nobody listens."), 200);
    await new Promise((resolve) => setTimeout(resolve, 8000));
    world.startLoki();
    const found = () => world.find('{unit="jobs"} | request_id="made-up-meanwhile"').catch(() => []);
    await world.until("it comes after all", 120, async () => (await found()).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 8000));
    assert.equal((await found()).length, 1);
    assert.equal((await world.find('{unit="keepalived"}')).length, 2);
  });

  it("go on where they were when a collector starts again", async () => {
    await world.stopProgram("rs-1-collector");
    assert.equal(await made("made-up-restart", "Nobody reads."), 200);
    world.startCollector(first, []);
    await world.until(
      "the line comes",
      60,
      async () => (await world.find('{unit="jobs"} | request_id="made-up-restart"')).length === 1,
    );
    assert.equal((await world.find('{unit="jobs"} | request_id="made-up-meanwhile"')).length, 1);
  });

  it("are counted by the collector under the names that the alert asks for", async () => {
    const text = await world.telemetry(first);
    for (const name of ["otelcol_exporter_queue_size", "otelcol_exporter_queue_capacity"])
      assert.match(text, new RegExp(`^${name}\\{`, "m"), name);
  });

  it("that are too old are refused, and counted under the name that the alert asks for", async () => {
    await world.send(Date.now() - 8 * 24 * 3600_000, "made-up: of last week");
    const text = await world.lokiTelemetry();
    assert.match(text, /^loki_discarded_samples_total\{.*reason="greater_than_max_sample_age".*\} 1$/m);
  });

  it("cost a machine with nothing to say less than two hundredths of a processor", async () => {
    const before = world.used("rs-2-collector");
    const seconds = 30;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const share = (100 * (world.used("rs-2-collector") - before)) / seconds;
    console.log(`      ${share.toFixed(2)} % of a processor`);
    assert.ok(share < 2);
  });
});
