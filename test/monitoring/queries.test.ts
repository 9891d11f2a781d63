import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { alertsOf } from "../../render";
import { pages } from "../../render/dashboards/pages";
import { everything } from "../golden/monitoringCases";
import { World } from "./world";

/** What comes with the first error of a GPU, the first alert, and the first job or session of a peer: here is none of these. */
const onlyOnceThereIsOne = new Set([
  "nvidia_smi_xid_errors_total",
  "nvidia_smi_xid_last_timestamp_seconds",
  "ALERTS",
  "tts_handed_over_total",
  "tts_forwarded_total",
]);

/** Those of the way of logs are asked for where there is one (test/monitoring/logs). HTTPS and AWS's driver are not here. */
const elsewhere =
  /^(otelcol_exporter_queue_(size|capacity)|loki_discarded_samples_total|probe_ssl_earliest_cert_expiry|node_ethtool_\w+_allowance_exceeded)$/;

/** Names of metrics in a query: what is neither a function, a word of the language, a label nor a text. */
function metricsIn(expr: string): string[] {
  const bare = expr
    .replace(/"[^"]*"/g, "")
    .replace(/\{[^}]*\}/g, "")
    .replace(/\[[^\]]*\]/g, "")
    .replace(/\boffset \d+[smhd]/g, "")
    .replace(/\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)/g, "");
  const words = new Set(["and", "or", "unless", "bool", "on", "by"]);
  return [...bare.matchAll(/[A-Za-z_:][A-Za-z0-9_:]*/g)]
    .filter(({ 0: word, index }) => !words.has(word) && !/^\s*\(/.test(bare.slice(index + word.length)))
    .map(([word]) => word);
}

describe("queries of alerts and dashboards", () => {
  const world = new World();
  before(async () => {
    await world.start();
    const speak = (text: string) =>
      fetch(`http://127.0.1.100:${world.config.port}/v1/audio/speech`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "cosyvoice", input: text }),
      });
    // Counters that a rate can be made of: before, some of them were not there.
    for (let i = 0; i < 3; i++) {
      assert.equal((await speak(`Sentence ${i}.`)).status, 200);
      await sleep(2500);
    }
    await speak("Sentence 0.");
    await sleep(3000);
  });
  after(() => world.stop());

  const asked = pages.filter(({ source }) => source === "prometheus");
  const panels = asked.flatMap(({ title, panels: all }) =>
    all.flatMap((panel) => panel.queries.map(([expr]) => ({ what: `${title}: ${panel.title}`, expr }))),
  );
  const alerts = alertsOf(everything).map(({ name, expr }) => ({ what: name, expr }));

  it("use no metric that nothing exports", async () => {
    const names = await world.names();
    const unknown = [...panels, ...alerts].flatMap(({ what, expr }) =>
      metricsIn(expr)
        .filter((name) => !names.has(name) && !onlyOnceThereIsOne.has(name) && !elsewhere.test(name))
        .map((name) => `${what}: ${name}`),
    );
    assert.deepEqual(unknown, []);
    assert.deepEqual(
      metricsIn('sum by (a) (rate(made_up_total{x="y"}[5m])) / on (node) group_left (b) other > bool 0'),
      ["made_up_total", "other"],
    );
  });

  for (const { what, expr } of panels) {
    it(`${what} shows something`, async () => {
      const found = await world.query(expr);
      // Nothing has gone wrong here, nobody helps a node that is alone, and no disk fills.
      if (/XID|other nodes|Days until/.test(what)) return;
      assert.ok(found.length > 0, expr);
    });
  }

  it("say what a second source says", async () => {
    const page = await (await fetch(`http://127.0.1.101:${world.config.port}/metrics`)).text();
    const own = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(page)?.[1]);
    const [audio] = await world.query("sum(tts_audio_seconds_total)");
    assert.equal(audio?.value, own("tts_audio_seconds_total"));
    assert.ok((audio?.value ?? 0) > 0.5, "three sentences were spoken");
    const [spoken] = await world.query('sum(tts_requests_total{outcome="ok"})');
    assert.equal(spoken?.value, 3);
    const [cached] = await world.query("sum(tts_cache_hits_total)");
    assert.equal(cached?.value, 1);
  });

  it("have the sentence of the real program, which the real service speaks", () => {
    const readings = world.askSentence();
    assert.match(readings, /^tts_probe_success 1$/m);
    assert.match(readings, /^tts_probe_served_by_info\{server="rs-1"\} 1$/m);
    for (const name of ["tts_probe_success", "tts_probe_duration_seconds", "tts_probe_timestamp_seconds"])
      assert.match(readings, new RegExp(`^# TYPE ${name} gauge$`, "m"));
  });

  it("are of series that are few: what a machine brings is what the size of the disk is reckoned with", async () => {
    const [service] = await world.query('count({job="speech"})');
    assert.ok((service?.value ?? 1000) < 250, `the service brings ${service?.value} series`);
    const machines = await world.query('count by (node) ({job="node"})');
    for (const { labels, value } of machines) assert.ok(value < 450, `${labels.node} brings ${value} series`);
    console.log(
      `      series: the service ${service?.value}, machines ${machines.map(({ value }) => value).join(" ")}`,
    );
  });
});
