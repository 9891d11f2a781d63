/** The dashboards: what Grafana is given, and that every query of theirs is one. What they show is asked in test/monitoring. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { pages } from "../../render/dashboards/pages";
import { renderDashboard } from "../../render/dashboards/panels";

interface Dashboard {
  uid: string;
  title: string;
  templating: { list: { name: string; type: string; query: string }[] };
  panels: {
    title: string;
    type: string;
    datasource: { uid: string };
    gridPos: { x: number; y: number; w: number; h: number };
    fieldConfig: { defaults: { unit: string } };
    targets: { expr: string; legendFormat: string; datasource: { uid: string } }[];
  }[];
}

const dashboards = pages.map((page) => ({ page, made: JSON.parse(renderDashboard(page)) as Dashboard }));

/** What promtool says of queries, as rules. */
function check(queries: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), "dashboards-"));
  try {
    const file = join(folder, "queries.yml");
    const rules = queries.map((expr, index) => ({ record: `query:${index}`, expr }));
    writeFileSync(file, stringify({ groups: [{ name: "queries", rules }] }));
    const result = spawnSync("promtool", ["check", "rules", file], { encoding: "utf8" });
    if (result.error !== undefined) throw new Error("cannot run promtool: apt-get install prometheus");
    return { status: result.status, said: result.stdout + result.stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("dashboards", () => {
  it("are these", () => {
    assert.deepEqual(
      dashboards.map(({ made }) => [made.uid, made.title, made.panels.length]),
      [
        ["cosyvoice-overview", "CosyVoice: Overview", 8],
        ["cosyvoice-load-balancer", "CosyVoice: Load balancer", 10],
        ["cosyvoice-gpus", "CosyVoice: GPUs", 6],
        ["cosyvoice-speech", "CosyVoice: Speech", 8],
        ["cosyvoice-capacity", "CosyVoice: Capacity", 8],
        ["cosyvoice-logs", "CosyVoice: Logs", 9],
      ],
    );
  });

  for (const { page, made } of dashboards) {
    it(`${page.title} has its panels' titles, units and queries, each with a name`, () => {
      assert.deepEqual(
        made.panels.map(({ title, type, fieldConfig, targets }) => ({
          title,
          kind: { stat: "number", timeseries: "lines", logs: "log" }[type],
          unit: fieldConfig.defaults.unit,
          queries: targets.map(({ expr, legendFormat }) => [expr, legendFormat]),
        })),
        page.panels,
      );
      for (const { queries } of page.panels) for (const [, legend] of queries) assert.notEqual(legend, "");
    });

    it(`${page.title} asks the ${page.source} that is chosen, and knows no address`, () => {
      assert.deepEqual(
        made.templating.list.map(({ name, type, query }) => [name, type, query]),
        [
          ["source", "datasource", page.source],
          ...(page.search ? [[page.search.name, "textbox", page.search.anything]] : []),
        ],
      );
      for (const { datasource, targets } of made.panels)
        for (const { uid } of [datasource, ...targets.map((target) => target.datasource)])
          assert.equal(uid, "$" + "{source}");
      assert.doesNotMatch(JSON.stringify(made), /\d+\.\d+\.\d+\.\d+/);
    });

    it(`${page.title} has no two panels in one place, and none outside of the grid`, () => {
      const taken = new Set<string>();
      for (const { gridPos, title } of made.panels) {
        assert.ok(gridPos.x + gridPos.w <= 24, title);
        for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
          for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
            assert.ok(!taken.has(`${x} ${y}`), title);
            taken.add(`${x} ${y}`);
          }
      }
    });

    // Loki itself reads the others, in test/monitoring.
    if (page.source === "loki") continue;
    it(`${page.title}'s queries are PromQL`, () => {
      const { status, said } = check(page.panels.flatMap(({ queries }) => queries.map(([expr]) => expr)));
      assert.equal(status, 0, said);
    });
  }

  it("would be found out with a query that is none", () => {
    assert.notEqual(check(["sum by (node (up)"]).status, 0);
  });
});
