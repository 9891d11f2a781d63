import {
  DashboardBuilder,
  DatasourceVariableBuilder,
  TextBoxVariableBuilder,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { PanelBuilder as LogsBuilder } from "@grafana/grafana-foundation-sdk/logs";
import { DataqueryBuilder as LokiBuilder } from "@grafana/grafana-foundation-sdk/loki";
import { DataqueryBuilder as PrometheusBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder as StatBuilder } from "@grafana/grafana-foundation-sdk/stat";
import { PanelBuilder as TimeseriesBuilder } from "@grafana/grafana-foundation-sdk/timeseries";

/** What a panel shows: a number of now, lines over time, or the lines of logs. */
export interface Panel {
  readonly title: string;
  readonly kind: "number" | "lines" | "log";
  /** Grafana's word for the unit of the values. */
  readonly unit: string;
  /** PromQL, or LogQL on a page of logs, with the name of each series. */
  readonly queries: readonly (readonly [expr: string, legend: string])[];
}

/** A page of panels. */
export interface Page {
  /** Part of its address in Grafana. */
  readonly uid: string;
  readonly title: string;
  /** Who is asked. */
  readonly source: "prometheus" | "loki";
  /** What somebody can type in, for queries with `$` and its name. */
  readonly search?: { readonly name: string; readonly label: string; readonly anything: string };
  readonly panels: readonly Panel[];
}

/** A panel of lines. */
export function lines(title: string, unit: string, ...queries: Panel["queries"]): Panel {
  return { title, kind: "lines", unit, queries };
}

/** A panel of one or a few numbers. */
export function numbers(title: string, unit: string, ...queries: Panel["queries"]): Panel {
  return { title, kind: "number", unit, queries };
}

/** A panel of what logs say, the newest first. */
export function log(title: string, expr: string): Panel {
  return { title, kind: "log", unit: "none", queries: [[expr, "lines"]] };
}

/** Columns of Grafana's grid. */
const WIDTH = 24;

const SIZES = { number: [6, 4], lines: [12, 8], log: [24, 10] } as const;

/** The JSON that Grafana imports or is provisioned with. */
export function renderDashboard({ uid, title, source: type, search, panels }: Page): string {
  // Which one is asked is chosen in Grafana: the dashboards know no address.
  const source = { type, uid: "$" + "{source}" };
  const dashboard = new DashboardBuilder(`CosyVoice: ${title}`)
    .uid(`cosyvoice-${uid}`)
    .tags(["cosyvoice-lvs"])
    .timezone("browser")
    .time({ from: "now-6h", to: "now" })
    .refresh("30s")
    .withVariable(
      new DatasourceVariableBuilder("source").label(type === "loki" ? "Loki" : "Prometheus").type(type),
    );
  if (search !== undefined)
    dashboard.withVariable(
      new TextBoxVariableBuilder(search.name).label(search.label).defaultValue(search.anything),
    );
  let x = 0;
  let y = 0;
  let before: Panel["kind"] | undefined;
  for (const { title: words, kind, unit, queries } of panels) {
    const [w, h] = SIZES[kind];
    // Kinds do not share a row.
    if (x + w > WIDTH || (x > 0 && kind !== before)) {
      x = 0;
      y += before === undefined ? 0 : SIZES[before][1];
    }
    const builder = { number: StatBuilder, lines: TimeseriesBuilder, log: LogsBuilder }[kind];
    const panel = new builder().title(words).unit(unit).datasource(source).gridPos({ x, y, w, h });
    for (const [expr, legend] of queries) {
      const query = type === "loki" ? new LokiBuilder() : new PrometheusBuilder();
      panel.withTarget(query.expr(expr).legendFormat(legend).datasource(source));
    }
    dashboard.withPanel(panel);
    before = kind;
    x += w;
  }
  return `${JSON.stringify(dashboard.build(), null, 2)}\n`;
}
