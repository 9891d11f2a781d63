// What the dashboards show of a real cluster, each panel's query, and one value of each page by a second source. Those of logs are in
// logs.test.ts, where there are logs.
import assert from "node:assert/strict";
import { pages } from "../../../render/dashboards/pages";
import { shellQuote } from "../../../render/text";
import {
  DIRECTORS,
  holders,
  inside,
  REAL_SERVERS,
  restoreSettings,
  until,
  untilWell,
  VIP,
} from "../../lab/bench";
import { query } from "./hook";

/** A made-up nvidia-smi, no GPU is behind it: what it says of its one card is told apart by the name of that. */
const GPU = { name: "Made up and no GPU", busy: 34, used: 6144, total: 15_360, heat: 61, power: 55.5 };
const NVIDIA_SMI = "/usr/local/bin/nvidia-smi";
const nvidiaSmi = [
  "#!/bin/sh",
  // In the order of host/exporter.py.
  `echo 'GPU-00000000-made-up, 00000000:01:00.0, 0, ${GPU.name}, 0.0, ${GPU.busy}, 12, ${GPU.used}, ${GPU.total}, ${GPU.heat}, ${GPU.power}, 70'`,
].join("\n");

/** What is nothing here: no fault, no HTTPS, no session that lost its way, no disk that fills. */
const empty = /^(GPUs: Errors|Load balancer: .*nginx|Speech: Session requests|Capacity: Days until)/;

const panels = pages
  .filter(({ source }) => source === "prometheus")
  .flatMap(({ title, panels: all }) =>
    all.flatMap((panel) =>
      panel.queries.map(([expr, legend]) => ({ what: `${title}: ${panel.title} (${legend})`, expr })),
    ),
  );

/** The query of a panel. */
function queryOf(page: string, panel: string): string {
  const found = pages.find(({ title }) => title === page)?.panels.find(({ title }) => title === panel);
  assert.ok(found?.queries[0], `${page}: ${panel}`);
  return found.queries[0][0];
}

/** Has a sentence spoken that was never asked for before. @returns the seconds of sound that came */
async function speak(source: string, text: string): Promise<number> {
  const headers = await inside(
    "client",
    `curl -sS -f -m 120 --interface ${source} -o /dev/null -D - -H 'Content-Type: application/json' ` +
      `-d ${shellQuote(JSON.stringify({ model: "cosyvoice", input: text }))} http://${VIP}:7860/v1/audio/speech`,
  );
  return Number(/^x-result-seconds: *([\d.]+)/im.exec(headers)?.[1]);
}

describe("the dashboards of a real cluster", () => {
  before(async () => {
    await restoreSettings();
    await untilWell(240);
    for (const name of REAL_SERVERS)
      await inside(
        name,
        `printf '%s\\n' ${shellQuote(nvidiaSmi)} >${NVIDIA_SMI} && chmod 755 ${NVIDIA_SMI} && systemctl restart cosyvoice-gpu-metrics`,
      );
    // One real server gets all from one address, and gives of it to its neighbours; what it has already is not made again.
    const sentences = Array.from(
      { length: 8 },
      (_, i) => `Panel ${process.pid} ${i}. ${"More words. ".repeat(10)}`,
    );
    await Promise.all(sentences.map((text) => speak("192.168.1.202", text)));
    for (const [i, text] of sentences.entries()) await speak(`192.168.1.${203 + i}`, text);
  });
  after(async () => {
    for (const name of REAL_SERVERS)
      await inside(name, `rm -f ${NVIDIA_SMI}; systemctl restart cosyvoice-gpu-metrics`);
    await inside("monitor", "systemctl start cosyvoice-sentence");
  });

  for (const { what, expr } of panels) {
    it(`${what}: has data`, async () => {
      if (empty.test(what)) {
        await query(expr);
        return;
      }
      // Two looks at least after the counters began, half a minute apart.
      await until(`${expr} has a value`, 150, async () =>
        (await query(expr)).some(({ value }) => Number.isFinite(value)),
      );
    });
  }

  it("Overview: who holds the VIP is who has it on its interface, by the kernel", async () => {
    await until("both say the same", 120, async () => {
      const shown = (await query(queryOf("Overview", "Who holds the VIP"))).map(({ labels }) => labels.node);
      return shown.join() === (await holders()).join();
    });
  });

  it("Load balancer: the weights are those of ipvsadm, director by director", async () => {
    for (const director of DIRECTORS)
      await until(`those of ${director} are`, 120, async () => {
        const table = await inside(director, `ipvsadm -Ln -t ${VIP}:7860`);
        const there = [...table.matchAll(/-> ([\d.]+):7860 +\w+ +(\d+)/g)].map(
          ([, to, weight]) => `${to} ${weight}`,
        );
        const shown = (await query(queryOf("Load balancer", "Weights")))
          .filter(({ labels }) => labels.node === director && labels.local_port === "7860")
          .map(({ labels, value }) => `${labels.remote_address} ${value}`);
        return there.length === REAL_SERVERS.length && shown.sort().join() === there.sort().join();
      });
  });

  it("Load balancer: connections are counted as the one who opened them counts", async () => {
    const counted = async () => {
      const found = await query("sum(node_ipvs_connections_total)");
      return found[0]?.value ?? Number.NaN;
    };
    // Older by no more than a look: it must have settled before, and have come after.
    await new Promise((resolve) => setTimeout(resolve, 35_000));
    const before = await counted();
    const opened = 60;
    await inside(
      "client",
      `for i in $(seq ${opened}); do curl -s -o /dev/null -m 5 http://${VIP}:7860/healthz; done`,
    );
    await until("all of them are counted", 90, async () => (await counted()) - before >= opened);
    // What watches the VIP opens two in half a minute, and one for its sentence.
    const more = (await counted()) - before - opened;
    assert.ok(more <= 20, `${more} more than the ${opened} that were opened`);
  });

  it("GPUs: the panels show what the made-up nvidia-smi says, as a card that nobody has", async () => {
    const shown = async (panel: string) =>
      (await query(queryOf("GPUs", panel)))
        .map(({ labels, value }) => `${labels.node} ${value.toFixed(3)}`)
        .sort();
    const expected: readonly (readonly [string, number])[] = [
      ["Utilization", GPU.busy / 100],
      ["Memory", GPU.used / GPU.total],
      ["Temperature", GPU.heat],
      ["Power", GPU.power],
    ];
    for (const [panel, value] of expected)
      assert.deepEqual(
        await shown(panel),
        REAL_SERVERS.map((name) => `${name} ${value.toFixed(3)}`),
        panel,
      );
    const cards = await query("nvidia_smi_gpu_info");
    assert.deepEqual([...new Set(cards.map(({ labels }) => labels.name))], [GPU.name]);
  });

  it("Speech: as much sound was made as came to the client", async () => {
    // The sentence of the machine that watches is sound, too.
    await inside("monitor", "systemctl stop cosyvoice-sentence");
    try {
      const made = async () => (await query("sum(tts_audio_seconds_total)"))[0]?.value ?? Number.NaN;
      await new Promise((resolve) => setTimeout(resolve, 35_000));
      const before = await made();
      let came = 0;
      for (let i = 0; i < 4; i += 1)
        came += await speak(`192.168.1.${211 + i}`, `Sound ${process.pid}, number ${i}.`);
      assert.ok(came > 2, `${came} s`);
      await until(`${came} s are counted`, 90, async () => Math.abs((await made()) - before - came) < 0.05);
    } finally {
      await inside("monitor", "systemctl start cosyvoice-sentence");
    }
  });

  it("Capacity: the part of a disk that is free is what df says", async () => {
    const df = await inside("storage", "df -B1 --output=avail,size /srv/cosyvoice/outputs | tail -1");
    const [avail = 0, size = 1] = df.trim().split(/\s+/).map(Number);
    const shown = (await query(queryOf("Capacity", "Free disk space"))).filter(
      ({ labels }) => labels.node === "storage",
    );
    assert.ok(
      shown.some(({ value }) => Math.abs(value - avail / size) < 0.02),
      `${avail / size} by df, ${JSON.stringify(shown)}`,
    );
  });
});
