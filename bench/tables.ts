import { readFile, writeFile } from "node:fs/promises";
import { type BenchmarkName, benchmarkNames } from "./benchmarks";
import { number, quantile, type Result, type Row } from "./results";

/** A result as Markdown tables. */
export function markdown(result: Result): string {
  const on = Object.entries(result.on).map(([name, value]) => `${name} ${value}`);
  const quick = result.quick ? "**A quick run, to try it out.**\n\n" : "";
  const body = tables[result.name as BenchmarkName](result.rows);
  return `${quick}${body.trim()}\n\nMeasured on: ${on.join(", ")}.`;
}

/** Puts the results' tables between the document's marks `<!-- begin NAME -->` and `<!-- end NAME -->`. */
export async function writeDocument(path: string, results: readonly Result[]): Promise<void> {
  let text = await readFile(path, "utf8");
  const parts = benchmarkNames.map((name) => {
    const result = results.find((found) => found.name === name);
    return [name, result ? markdown(result) : `Not measured yet: \`scripts/bench ${name}\`.`] as const;
  });
  for (const [name, part] of [...parts, ["goals", goals(results)] as const]) {
    const [begin, end] = [`<!-- begin ${name} -->`, `<!-- end ${name} -->`];
    const from = text.indexOf(begin);
    const to = text.indexOf(end);
    if (from < 0 || to < from)
      throw new Error(`${path} has no marks "${begin}" and "${end}", in this order.`);
    text = `${text.slice(0, from + begin.length)}\n\n${part}\n\n${text.slice(to)}`;
  }
  await writeFile(path, text);
}

const tables: Record<BenchmarkName, (rows: readonly Row[]) => string> = {
  throughput: throughputTable,
  outages: outageTable,
  weights: weightsTable,
  connections: connectionTable,
  fleet: fleetTable,
  calm: calmTable,
  app: appTable,
  peers: peersTable,
};

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Median and range: `median (min to max)`. */
function spread(values: readonly number[], digits = 0): string {
  if (values.length === 0) return "-";
  const text = (value: number) => value.toFixed(digits);
  if (values.length === 1) return text(values[0] ?? Number.NaN);
  const [low, middle, high] = [Math.min(...values), quantile(values, 0.5), Math.max(...values)];
  return `${text(middle)} (${text(low)} to ${text(high)})`;
}

function distinct(rows: readonly Row[], key: string): string[] {
  return [...new Set(rows.map((row) => String(row[key])))];
}

function where(rows: readonly Row[], values: Row): Row[] {
  return rows.filter((row) => Object.entries(values).every(([key, value]) => row[key] === value));
}

// --- throughput ------------------------------------------------------------------------------------------------------

function perSecond(rows: readonly Row[], balancer: string, load: string): number[] {
  return where(rows, { balancer, load }).map((row) => number(row, "per_second"));
}

/** Processor time for each paced connection, of the whole machine and of the balancer's own processes, microseconds. */
function processorTime(rows: readonly Row[], balancer: string): { whole: number[]; own: number[] } {
  const paced = where(rows, { balancer, load: "paced" });
  const each = (row: Row, seconds: number) => (seconds / number(row, "attempts")) * 1e6;
  return {
    whole: paced.map((row) => each(row, number(row.busy_s as Row, "all"))),
    own: paced.map((row) => each(row, number(row, "process_s"))),
  };
}

function throughputTable(rows: readonly Row[]): string {
  const head = [
    "balancer",
    "requests/s, kept-alive",
    "connections/s, one request each",
    "p50, ms",
    "p99, ms",
    "p50 / p99 above direct, ms",
    "processor time, µs a connection",
    "of which the balancer's processes, µs",
    "errors",
  ];
  const latency = (balancer: string, key: string) =>
    where(rows, { balancer, load: "paced" }).map((row) => number(row, key));
  const beyond = (balancer: string, key: string) =>
    (quantile(latency(balancer, key), 0.5) - quantile(latency("direct", key), 0.5)).toFixed(1);
  return table(
    head,
    distinct(rows, "balancer").map((balancer) => {
      const time = processorTime(rows, balancer);
      const errors = where(rows, { balancer }).map((row) =>
        number(row, row.load === "paced" ? "lost" : "errors"),
      );
      return [
        balancer,
        spread(perSecond(rows, balancer, "requests")),
        spread(perSecond(rows, balancer, "connections")),
        spread(latency(balancer, "p50"), 1),
        spread(latency(balancer, "p99"), 1),
        balancer === "direct" ? "-" : `${beyond(balancer, "p50")} / ${beyond(balancer, "p99")}`,
        spread(time.whole),
        balancer === "direct" ? "-" : spread(time.own),
        errors.reduce((sum, count) => sum + count, 0),
      ];
    }),
  );
}

// --- outages ---------------------------------------------------------------------------------------------------------

const events = [
  { event: "cut", value: "outage_ms", text: "director power-cut" },
  { event: "hole", value: "out_ms", text: "black-holed real server" },
  { event: "wedge", value: "out_ms", text: "wedged app" },
] as const;

/** Outages of one kind, ms, and how often there was no end of it while the client looked on. */
function outagesOf(rows: readonly Row[], cluster: string, event: string, key: string) {
  const found = where(rows, { cluster, event });
  const values = found.map((row) => row[key]).filter((value) => typeof value === "number");
  return { values, endless: found.length - values.length, rows: found };
}

function outageTable(rows: readonly Row[]): string {
  const lines = events.flatMap(({ event, value, text }) =>
    distinct(rows, "cluster").map((cluster) => {
      const { values, endless, rows: found } = outagesOf(rows, cluster, event, value);
      const ms = (share: number) => (values.length === 0 ? "-" : quantile(values, share).toFixed(0));
      const lost = found.map((row) => number(row, "lost"));
      const watched = Math.min(...found.map((row) => Number(row.watched_s ?? 0)));
      return [
        text,
        cluster,
        found.length,
        ms(0),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1),
        endless === 0 ? "0" : `${endless} (in ${watched.toFixed(0)} s or more)`,
        spread(lost),
      ];
    }),
  );
  const head = ["what", "cluster", "runs", "min", "p50", "p90", "p99", "max", "no end seen", "attempts lost"];
  const quiet = where(rows, { event: "quiet" }).map(
    (row) =>
      `${row.cluster}: ${number(row, "lost")} of ${number(row, "attempts")} attempts lost while nothing was broken, ` +
      `latest start of one ${number(row, "late").toFixed(0)} ms late`,
  );
  return `Milliseconds.\n\n${table(head, lines)}\n\n${quiet.join("; ")}.`;
}

// --- weights ---------------------------------------------------------------------------------------------------------

function weightsTable(rows: readonly Row[]): string {
  const head = [
    "weights",
    "requests",
    "given up",
    "mean, s",
    "p50, s",
    "p95, s",
    "max, s",
    "on the slow one, %",
  ];
  return table(
    head,
    distinct(rows, "weights").map((kind) => {
      const rounds = distinct(where(rows, { weights: kind }), "round").map((round) =>
        where(rows, { weights: kind, round: Number(round) }),
      );
      const times = rounds.map((round) =>
        round.map((row) => row.seconds).filter((value): value is number => typeof value === "number"),
      );
      const share = (key: number) =>
        spread(
          times.map((values) => quantile(values, key)),
          2,
        );
      return [
        kind,
        rounds.reduce((sum, round) => sum + round.length, 0),
        rounds.reduce((sum, round) => sum + round.length, 0) - times.flat().length,
        spread(
          times.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length),
          2,
        ),
        share(0.5),
        share(0.95),
        share(1),
        spread(
          rounds.map((round) => (100 * where(round, { slow: true }).length) / round.length),
          1,
        ),
      ];
    }),
  );
}

// --- connections -----------------------------------------------------------------------------------------------------

function connectionTable(rows: readonly Row[]): string {
  const cell = (row: Row, key: string) => {
    const { median, min, max } = row[key] as Row;
    return `${median} (${min} to ${max})`;
  };
  const head = [
    "buckets",
    "connections",
    "a new connection, µs",
    "a packet of a known connection, µs",
    "a packet that bypasses the director, µs",
    "bytes per connection (object)",
    "memory taken, MB",
    "table, MB",
  ];
  return table(
    head,
    rows.map((row) => [
      number(row, "buckets"),
      number(row, "entries"),
      cell(row, "new_us"),
      cell(row, "known_us"),
      cell(row, "without_director_us"),
      row.slab
        ? `${(number(row.slab as Row, "bytes") / number(row, "entries")).toFixed(0)} (${number(row.slab as Row, "object_bytes")})`
        : "-",
      (number(row, "taken_bytes") / 1e6).toFixed(1),
      ((number(row, "buckets") * 8) / 1e6).toFixed(2),
    ]),
  );
}

// --- fleet -----------------------------------------------------------------------------------------------------------

function fleetTable(rows: readonly Row[]): string {
  const cpu = where(rows, { event: "cpu" });
  const places = [...new Set(cpu.map((row) => `${row.where} ${row.servers} ${row.interval_s}`))];
  const times = (values: readonly Row[], key: string, digits = 2) =>
    spread(
      values.map((row) => number(row, key)),
      digits,
    );
  const shares = table(
    ["where", "real servers", "interval, s", "poller, % of a core", "µs a poll", "keepalived, % of a core"],
    places.map((place) => {
      const found = cpu.filter((row) => `${row.where} ${row.servers} ${row.interval_s}` === place);
      const percent = (key: string) =>
        found[0]?.[key] === undefined
          ? "-"
          : spread(
              found.map((row) => number(row, key) * 100),
              1,
            );
      return [
        String(found[0]?.where),
        String(found[0]?.servers),
        String(found[0]?.interval_s),
        percent("poller_share"),
        times(found, "poll_us", 0),
        percent("keepalived_share"),
      ];
    }),
  );
  const deaths = distinct(where(rows, { event: "deaths" }), "where").map((place) => {
    const found = where(rows, { event: "deaths", where: place });
    return [
      place,
      `${found[0]?.died} of ${found[0]?.servers}`,
      found.length,
      times(found, "first_s"),
      times(found, "all_s"),
      times(found, "back_s"),
    ];
  });
  const died = table(
    ["where", "failed at once", "runs", "first out, s", "all out, s", "all back, s"],
    deaths,
  );
  const reloads = distinct(where(rows, { event: "reload" }), "servers").map((servers) => {
    const found = where(rows, { event: "reload", servers: Number(servers) });
    const lost = found.reduce((sum, row) => sum + number(row, "lost"), 0);
    const fewest = Math.min(...found.map((row) => number(row, "fewest_in_table")));
    return [servers, found.length, times(found, "seconds"), fewest, lost];
  });
  const head = [
    "real servers",
    "reloads",
    "until the change is in force, s",
    "fewest in the table",
    "attempts lost",
  ];
  return [shares, died, table(head, reloads)].join("\n\n");
}

// --- calm ------------------------------------------------------------------------------------------------------------

function calmTable(rows: readonly Row[]): string {
  const total = (key: string) => rows.reduce((sum, row) => sum + number(row, key), 0);
  const head = [
    "minutes",
    "cores busy",
    "VRRP transitions",
    "changes of the pool",
    "attempts",
    "lost",
    "longest, ms",
  ];
  const cores = rows.map((row) => number(row, "busy_cores"));
  const longest = Math.max(...rows.map((row) => number(row, "max")));
  const cells = [rows.length, spread(cores, 2), total("vrrp_transitions"), total("pool_changes")];
  return table(head, [[...cells, total("attempts"), total("lost"), longest.toFixed(0)]]);
}

// --- app -------------------------------------------------------------------------------------------------------------

const asked: Readonly<Record<string, string>> = {
  speech: "POST /v1/audio/speech",
  "speech as mp3": "POST /v1/audio/speech, mp3",
  result: "GET /v1/results/{name}",
  page: "the page's API (gradio), two requests",
};

/** Bytes by which the app's memory grows with each request, least squares over the second half; the first one warms it up. */
function growth(rows: readonly Row[]): number {
  const samples = where(rows, { event: "memory" });
  const half = samples.slice(Math.floor(samples.length / 2));
  const points = half.map((row) => [number(row, "requests"), number(row, "rss")] as const);
  const mean = (index: 0 | 1) => points.reduce((sum, point) => sum + point[index], 0) / points.length;
  const [x, y] = [mean(0), mean(1)];
  const over = points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0);
  return over / points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
}

function appTable(rows: readonly Row[]): string {
  const times = (found: readonly Row[], key: string, digits: number) =>
    found.length === 0
      ? "-"
      : spread(
          found.map((row) => number(row, key)),
          digits,
        );
  const head = [
    "request",
    "p50, ms",
    "p95, ms",
    "p99, ms",
    "processor time per request, ms",
    "requests/s on one core, 8 connections",
    "share of the core it got, %",
  ];
  const lines = distinct(where(rows, { event: "latency" }), "what").map((what) => {
    const found = where(rows, { event: "latency", what });
    const shares = ["p50", "p95", "p99", "cpu_ms"].map((key) => times(found, key, 2));
    const busy = where(rows, { event: "throughput", what });
    const got = busy.map((row) => (number(row, "per_second") * number(row, "cpu_ms")) / 10);
    return [asked[what] ?? what, ...shares, times(busy, "per_second", 0), spread(got)];
  });
  const memory = where(rows, { event: "memory" });
  const megabytes = (row: Row | undefined, key: string) => (row ? (number(row, key) / 1e6).toFixed(1) : "-");
  const middle = memory[Math.floor(memory.length / 2)];
  const headOfMemory = [
    "requests",
    "at the start, MB",
    "half-way, MB",
    "at the end, MB",
    "growth, bytes a request",
  ];
  const last = memory.at(-1);
  const cells = [memory[0], middle, last].map((row) => megabytes(row, "rss"));
  const grown = table(headOfMemory, [[Number(last?.requests), ...cells, growth(rows).toFixed(0)]]);
  const listed = where(rows, { event: "listing" }).map((row) => [
    number(row, "results"),
    ...["first_s", "again_s", "after_a_new_one_s"].map((key) => (number(row, key) * 1000).toFixed(1)),
    number(row, "complete_s").toFixed(2),
  ]);
  const headOfListing = [
    "results on the share",
    "first list, ms",
    "second list, ms",
    "after a new result, ms",
    "newest results complete after the start, s",
  ];
  return [table(head, lines), grown, table(headOfListing, listed)].join("\n\n");
}

// --- peers -----------------------------------------------------------------------------------------------------------

const arrangements: Readonly<Record<string, string>> = {
  "one address, peers": "all reach one node, which hands over",
  "in turn, peers": "users reach the nodes in turn, which hand over",
  "one address, alone": "all reach one node, which has no peers",
};

function peersTable(rows: readonly Row[]): string {
  const head = [
    "a synthesis takes, s",
    "what",
    "wait p50, s",
    "wait p95, s",
    "one shared queue p95, s",
    "p95 relative to one queue",
  ];
  const lines = distinct(rows, "seconds").flatMap((seconds) =>
    distinct(where(rows, { seconds: Number(seconds) }), "name").map((name) => {
      const found = where(rows, { seconds: Number(seconds), name });
      const of = (key: string) =>
        spread(
          found.map((row) => number(row, key)),
          2,
        );
      return [seconds, arrangements[name] ?? name, ...["p50", "p95", "shared_p95", "p95_ratio"].map(of)];
    }),
  );
  return table(head, lines);
}

// --- goals -----------------------------------------------------------------------------------------------------------

/** Bytes of growth a request that count as none: a megabyte in 10,000 requests. */
const flat = 100;

/** The goals beside what was found. */
export function goals(results: readonly Result[]): string {
  const rowsOf = (name: BenchmarkName) => results.find((result) => result.name === name)?.rows ?? [];
  const lines: [string, string, boolean | undefined][] = [];
  const speed = rowsOf("throughput");
  const best = (load: string, names: readonly string[]) =>
    Math.max(...names.map((name) => quantile(perSecond(speed, name, load), 0.5)));
  if (speed.length > 0) {
    const factor = best("requests", ["lvs-dr"]) / best("requests", ["haproxy-tcp", "haproxy-http"]);
    const proxies = ["nginx-stream", "nginx-http", "haproxy-tcp", "haproxy-http"];
    const [own, other] = [best("connections", ["lvs-dr"]), best("connections", [...proxies, "lvs-nat"])];
    lines.push([
      "LVS-DR: at least 1.8 times haproxy's requests/s",
      `${factor.toFixed(2)} times`,
      factor >= 1.8,
    ]);
    lines.push([
      "LVS-DR: the most connections/s of all",
      `${own.toFixed(0)}; next best ${other.toFixed(0)}`,
      own > other,
    ]);
  }
  const lost = rowsOf("outages");
  const limits = [
    ["cut", "outage_ms", "director power-cut: p99 at most 500 ms", 0.99, 500],
    ["hole", "out_ms", "black-holed real server out within 2 s", 1, 2000],
    ["wedge", "out_ms", "wedged app out within 5 s", 1, 5000],
  ] as const;
  for (const [event, key, text, share, limit] of lost.length > 0 ? limits : []) {
    const { values, endless } = outagesOf(lost, "defaults", event, key);
    if (values.length + endless === 0) continue;
    if (values.length === 0) {
      lines.push([text, `never (${endless} of ${endless})`, false]);
      continue;
    }
    const value = quantile(values, share);
    const which = share === 1 ? "max" : "p99";
    lines.push([
      text,
      `${which} ${value.toFixed(0)} ms of ${values.length}`,
      endless === 0 && value <= limit,
    ]);
  }
  const calm = rowsOf("calm");
  if (calm.length > 0) {
    const moves = calm.reduce((sum, row) => sum + number(row, "vrrp_transitions"), 0);
    const text = `no false failover in 30 min with both cores busy`;
    lines.push([
      text,
      `${moves} transitions in ${calm.length} min`,
      calm.length >= 30 ? moves === 0 : undefined,
    ]);
  }
  const shares = where(rowsOf("fleet"), { event: "cpu", where: "native" });
  if (shares.length > 0) {
    const most = Math.max(...shares.map((row) => number(row, "poller_share"))) * 100;
    const servers = shares[0]?.servers;
    lines.push([
      "health checks of 300 real servers under 20 % of a core",
      `at most ${most.toFixed(1)} % for ${servers}, not emulated`,
      most < 20,
    ]);
  }
  const app = rowsOf("app");
  if (app.length > 0) {
    const medians = where(app, { event: "latency", what: "speech" }).map((row) => number(row, "p50"));
    const rates = where(app, { event: "throughput", what: "speech" }).map((row) => number(row, "per_second"));
    const [slowest, rate] = [Math.max(...medians), quantile(rates, 0.5)];
    lines.push([
      "the app, for an existing result: p50 at most 10 ms",
      `at most ${slowest.toFixed(1)} ms`,
      slowest <= 10,
    ]);
    lines.push([
      "the app, for an existing result: 200 requests/s on one core",
      `median ${rate.toFixed(0)}`,
      rate >= 200,
    ]);
    const requests = Number(where(app, { event: "memory" }).at(-1)?.requests);
    lines.push([
      "the app's memory flat over 10,000 requests",
      `${growth(app).toFixed(0)} bytes a request`,
      requests >= 10_000 ? growth(app) < flat : undefined,
    ]);
  }
  // Shorter syntheses than a quarter of a second are sentences of a few words; the table has them.
  const shared = where(rowsOf("peers"), { name: "one address, peers" }).filter(
    (row) => number(row, "seconds") >= 0.25,
  );
  if (shared.length > 0) {
    const ratio = Math.max(...shared.map((row) => number(row, "p95_ratio")));
    lines.push([
      "100 users behind one address, three nodes: p95 wait at most 1.3 times that of one shared queue",
      `at most ${ratio.toFixed(2)} times, syntheses of 0.25 s and more`,
      ratio <= 1.3,
    ]);
  }
  const word = (met: boolean | undefined) => (met === undefined ? "too short a run" : met ? "yes" : "**no**");
  return table(
    ["goal", "measured", "met"],
    lines.map(([goal, found, met]) => [goal, found, word(met)]),
  );
}
