import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { benchmarkNames } from "../../bench/benchmarks";
import { quantile, type Result, readResult, writeResult } from "../../bench/results";
import { goals, markdown, writeDocument } from "../../bench/tables";
import { clusterSpec } from "../../bench/texts";
import { paths, renderKeepalivedConfig } from "../../render";
import { cluster } from "./config-fixture";

const on = { accelerator: "tcg", cores: "2", kernel: "1.2.3", keepalived: "2.2.7" };

function outages(rows: Result["rows"]): Result {
  return { name: "outages", quick: false, on, rows };
}

const quiet = { cluster: "defaults", event: "quiet", lost: 0, attempts: 1000, late: 3 };
const cut = (outage_ms: number) => ({ cluster: "defaults", event: "cut", outage_ms, lost: 9 });
const hole = (out_ms: number | null) => ({
  cluster: "defaults",
  event: "hole",
  out_ms,
  lost: 9,
  watched_s: 4.5,
});

describe("the benchmark", () => {
  it("measures what the renderers make of a stack's configuration", () => {
    const spec = clusterSpec("defaults", 3);
    const config = cluster({
      realServers: spec.realServers.map((server) => ({
        ...server,
        hostKey: cluster().realServers[0]?.hostKey,
      })),
    });
    assert.equal(
      spec.directors[1]?.files[paths.keepalivedConfig],
      renderKeepalivedConfig(config, "director-2"),
    );
    assert.ok(
      spec.directors.every(({ files }) => paths.healthConfig in files && paths.vrrpGuardConfig in files),
    );
  });

  it("gives the classic article's directors nothing of ours beside keepalived", () => {
    const spec = clusterSpec("classic", 3);
    assert.deepEqual(Object.keys(spec.directors[0]?.files ?? {}).sort(), [
      paths.keepalivedAuth,
      paths.keepalivedConfig,
    ]);
    assert.deepEqual(spec.directorSysctls, {});
    assert.match(
      spec.directors[0]?.files[paths.keepalivedConfig] ?? "",
      /advert_int 1\n[\s\S]*delay_loop 6\n/,
    );
  });

  it("has room for 300 real servers, each with an address of its own", () => {
    const { realServers } = clusterSpec("defaults", 300);
    assert.equal(new Set(realServers.map(({ address }) => address)).size, 300);
  });

  it("takes quantiles by nearest rank", () => {
    const values = Array.from({ length: 50 }, (_, i) => 50 - i);
    assert.deepEqual(
      [0, 0.5, 0.9, 0.99, 1].map((share) => quantile(values, share)),
      [1, 25, 45, 50, 50],
    );
    assert.ok(Number.isNaN(quantile([], 0.5)));
  });

  it("counts a fault without an end as a missed goal, however good the others are", () => {
    const met = goals([outages([quiet, cut(300), cut(400), hole(900)])]);
    assert.match(met, /\| director power-cut: p99 at most 500 ms \| p99 400 ms of 2 \| yes \|/);
    assert.match(met, /\| black-holed real server out within 2 s \| max 900 ms of 1 \| yes \|/);
    const missed = goals([outages([quiet, cut(300), cut(501), hole(900), hole(null)])]);
    assert.match(missed, /p99 501 ms of 2 \| \*\*no\*\*/);
    assert.match(missed, /max 900 ms of 1 \| \*\*no\*\*/);
    const none = goals([outages([quiet, hole(null)])]);
    assert.match(none, /black-holed real server out within 2 s \| never \(1 of 1\) \| \*\*no\*\*/);
  });

  it("says in the table how often there was no end, and how long it was waited for", () => {
    const text = markdown(outages([quiet, cut(262.2), hole(812), hole(null)]));
    assert.match(text, /\| black-holed real server \| defaults \| 2 \| 812 .*\| 1 \(in 5 s or more\) \|/);
    assert.match(text, /0 of 1000 attempts lost while nothing was broken/);
  });

  it("takes the app's memory for flat when its second half is, and only of a whole run", () => {
    const on = { cores: "2", kernel: "1.2.3" };
    const memory = (each: number, requests = 10_000) =>
      [0, 0.25, 0.5, 0.75, 1].map((part) => ({
        event: "memory",
        requests: part * requests,
        // The first half warms up.
        rss: 1e8 + (part < 0.5 ? part * 1e8 : 0.5e8 + (part - 0.5) * requests * each),
      }));
    const speech = { what: "speech", p50: 2, per_second: 500 };
    const app = (rows: Result["rows"]): Result => ({
      name: "app",
      quick: false,
      on,
      rows: [{ event: "latency", ...speech }, { event: "throughput", ...speech }, ...rows],
    });
    assert.match(goals([app(memory(0))]), /memory flat over 10,000 requests \| 0 bytes a request \| yes \|/);
    assert.match(goals([app(memory(150))]), /150 bytes a request \| \*\*no\*\* \|/);
    assert.match(goals([app(memory(0, 1000))]), /too short a run/);
    assert.match(goals([app(memory(0))]), /p50 at most 10 ms \| at most 2.0 ms \| yes \|/);
    assert.match(goals([app(memory(0))]), /200 requests\/s on one core \| median 500 \| yes \|/);
  });

  it("keeps results as they are, and puts their tables between the document's marks", async () => {
    const directory = await mkdtemp(join(tmpdir(), "bench-"));
    try {
      const result = outages([quiet, cut(262.2)]);
      await writeResult(directory, result);
      assert.deepEqual(await readResult(directory, "outages"), result);
      assert.equal(await readResult(directory, "calm"), undefined);
      const path = join(directory, "document.md");
      const marks = (name: string) => `<!-- begin ${name} -->\nold\n<!-- end ${name} -->`;
      const others = benchmarkNames.filter((name) => name !== "outages").map(marks);
      await writeFile(
        path,
        `before\n${marks("outages")}\nbetween\n${marks("goals")}\nafter\n${others.join("\n")}\n`,
      );
      await writeDocument(path, [result]);
      const text = await readFile(path, "utf8");
      assert.ok(!text.includes("old"));
      assert.match(text, /^before\n<!-- begin outages -->[\s\S]*262[\s\S]*\nbetween\n[\s\S]*\nafter\n/);
      assert.match(
        text,
        /<!-- begin calm -->\n\nNot measured yet: `scripts\/bench calm`\.\n\n<!-- end calm -->/,
      );
      await writeFile(path, "no marks\n");
      await assert.rejects(writeDocument(path, [result]), /no marks "<!-- begin throughput -->"/);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
