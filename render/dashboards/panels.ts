import { DashboardBuilder, DatasourceVariableBuilder } from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder as StatBuilder } from "@grafana/grafana-foundation-sdk/stat";
import { PanelBuilder as TimeseriesBuilder } from "@grafana/grafana-foundation-sdk/timeseries";

/** What a panel shows: a number of now, or lines over time. */
export interface Panel {
  readonly title: string;
  readonly kind: "number" | "lines";
  /** Grafana's word for the unit of the values. */
  readonly unit: string;
  /** PromQL, with the name of each series. */
  readonly queries: readonly (readonly [expr: string, legend: string])[];
}

/** A page of panels. */
export interface Page {
  /** Part of its address in Grafana. */
  readonly uid: string;
  readonly title: string;
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

/** Columns of Grafana's grid. */
const WIDTH = 24;

/** Which Prometheus is asked is chosen in Grafana: the dashboards know no address. */
const SOURCE = { type: "prometheus", uid: "$" + "{source}" };

/** The JSON that Grafana imports or is provisioned with. */
export function renderDashboard({ uid, title, panels }: Page): string {
  const dashboard = new DashboardBuilder(`CosyVoice: ${title}`)
    .uid(`cosyvoice-${uid}`)
    .tags(["cosyvoice-lvs"])
    .timezone("browser")
    .time({ from: "now-6h", to: "now" })
    .refresh("30s")
    .withVariable(new DatasourceVariableBuilder("source").label("Prometheus").type("prometheus"));
  let x = 0;
  let y = 0;
  for (const panel of panels) {
    const [w, h] = panel.kind === "number" ? [6, 4] : [12, 8];
    // Numbers and lines do not share a row.
    if (x + w > WIDTH || (x > 0 && panel.kind !== panels[panels.indexOf(panel) - 1]?.kind)) {
      x = 0;
      y += 8;
    }
    const builder = panel.kind === "number" ? new StatBuilder() : new TimeseriesBuilder();
    builder.title(panel.title).unit(panel.unit).datasource(SOURCE).gridPos({ x, y, w, h });
    for (const [expr, legend] of panel.queries)
      builder.withTarget(new DataqueryBuilder().expr(expr).legendFormat(legend).datasource(SOURCE));
    dashboard.withPanel(builder);
    x += w;
  }
  return `${JSON.stringify(dashboard.build(), null, 2)}\n`;
}
