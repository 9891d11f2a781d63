/**
 * What fuzz.test.ts asks of the texts of what serves, asked of those of what watches: whatever the door lets in, the programs can
 * read, what they read is what the stack file says, and no text gets out of its place. What fails prints its seed.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { parse } from "yaml";
import { passwordHash } from "../../components/passwordHash";
import { type MachineConfig, watchedMachines } from "../../config/schema";
import {
  alertsOf,
  listeningPorts,
  paths,
  renderCollectorConfig,
  renderDirectorMetricsConfig,
  renderSentenceConfig,
  renderWebConfig,
} from "../../render";
import type { RawOverrides } from "../unit/config-fixture";
import { hostile, withText } from "./arbitraries";
import { type RawReceiver, told, type WatchedConfig, watched, watchedStacks } from "./monitoringArbitraries";
import { textsOf, watching } from "./monitoringTexts";
import { run, verifyUnit } from "./readers";

/** Of what starts programs: a dozen each time. */
const RUNS = 8;

let folder: string;

interface Prometheus {
  readonly scrape_configs: readonly {
    readonly job_name: string;
    readonly static_configs: readonly {
      readonly targets: readonly string[];
      readonly labels: Readonly<Record<string, unknown>>;
    }[];
  }[];
}

interface Alertmanager {
  readonly receivers: readonly ({ readonly name: string } & Integrations)[];
}

type Integrations = Readonly<
  Partial<Record<"webhook_configs" | "slack_configs" | "email_configs", readonly Record<string, unknown>[]>>
>;

interface Collector {
  readonly receivers: Readonly<Record<string, { readonly resource: { readonly node: unknown } }>>;
}

/** Has the programs of the monitoring machine read what is for them; they must have nothing to say against it. */
function readWatching(config: WatchedConfig, password: unknown): void {
  const texts = watching(config);
  const file = (name: string, text = texts[name] ?? "") => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const takes = (program: string, ...args: readonly string[]) => {
    const { status, said } = run(program, args);
    assert.equal(status, 0, said);
    return said;
  };
  const prometheus = texts["prometheus.yml"]?.replace(paths.alertRulesPattern, file("alerts.yml"));
  const said = takes("promtool", "check", "config", file("prometheus.yml", prometheus));
  assert.match(said, new RegExp(`${alertsOf(config).length} rules found`));
  if (typeof password === "string") {
    const web = renderWebConfig(passwordHash(password, "made-up"));
    takes("promtool", "check", "web-config", file("web.yml", web));
  }
  takes("amtool", "check-config", file("alertmanager.yml"));
  takes("prometheus-blackbox-exporter", "--config.check", `--config.file=${file("prober.yml")}`);
}

/** Has nft and systemd read the packet filter and the units of one machine of each role. */
function readMachines(config: WatchedConfig): void {
  const machines = watchedMachines(config);
  for (const role of new Set(machines.map((machine) => machine.role))) {
    const units = join(folder, role);
    mkdirSync(units);
    const texts = textsOf(config, machines.find((machine) => machine.role === role) as MachineConfig);
    for (const [name, text] of Object.entries(texts)) {
      const debians = /^(.*\.service)\.d\.conf$/.exec(name)?.[1];
      if (debians !== undefined) {
        cpSync(join("/lib/systemd/system", debians), join(units, debians));
        mkdirSync(join(units, `${debians}.d`));
      }
      writeFileSync(join(units, debians === undefined ? name : `${debians}.d/cosyvoice-lvs.conf`), text);
    }
    const services = readdirSync(units).filter((name) => name.endsWith(".service"));
    assert.equal(verifyUnit(units, ...services), "");
    const rules = ["-Urn", "nft", "-c", "-f", join(units, "watch.nft")];
    assert.deepEqual(run("unshare", rules), { status: 0, said: "" });
  }
}

/** A YAML text as both of its versions have it, of which the programs read the older one. */
function yaml<T>(text = ""): T {
  const value = parse(text, { version: "1.1" });
  assert.deepEqual(value, parse(text));
  return value as T;
}

/** Who is told of what is critical, as Alertmanager reads it: by URL, by file, or by mail. */
function toldOf({ receivers }: Alertmanager): unknown[] {
  const critical: Integrations = receivers.find(({ name }) => name === "critical") ?? {};
  const { webhook_configs = [], slack_configs = [], email_configs = [] } = critical;
  return [
    ...webhook_configs.map(({ url }) => url),
    ...slack_configs.map(({ api_url_file }) => api_url_file),
    ...email_configs.map(({ to, from, smarthost, auth_username }) => [to, from, smarthost, auth_username]),
  ];
}

/** The same as the stack file says it. */
function toldIn(raw: RawOverrides): unknown[] {
  const { receivers } = raw.monitoring as { readonly receivers: readonly RawReceiver["receiver"][] };
  const of = (...kinds: readonly string[]) => receivers.filter(({ kind }) => kinds.includes(kind));
  return [
    ...of("webhook", "dingtalk", "wecom").map(
      ({ name, kind, url }) => url ?? `http://127.0.0.1:9096/${kind}/${name}`,
    ),
    ...of("slack").map(({ name }) => `/etc/cosyvoice-lvs/receivers/${name}`),
    ...of("email").map(({ to, from, server, user }) => [to, from, server, user]),
  ];
}

/** Where a stack file has texts that become part of what watches. */
const places: readonly (readonly string[])[] = [
  ["vip"],
  ["directors", "0", "name"],
  ["realServers", "0", "address"],
  ["https", "serverName"],
  ["verification", "sentence"],
  ["monitoring", "name"],
  ["monitoring", "address"],
  ["monitoring", "adminNetworks", "0"],
  ["monitoring", "receivers", "0", "name"],
  ["monitoring", "receivers", "0", "url"],
  ...["to", "from", "server", "user"].map((key) => ["monitoring", "receivers", "1", key]),
  ["monitoring", "routing", "critical", "0"],
  ["monitoring", "programs", "loki", "url"],
  ["monitoring", "programs", "loki", "sha256"],
  ["monitoringPassword"],
  ["receiverSecrets", "mail"],
  ["receiverSecrets", "chat"],
];

/** A stack file in which each of them has something. */
function full(): Record<string, unknown> {
  const mail = { to: "a@example.org", from: "b@example.org", server: "mail:25", user: "made up" };
  return {
    ...told(
      [
        { receiver: { name: "hook", kind: "webhook", url: "http://example.org/made-up" } },
        { receiver: { name: "mail", kind: "email", ...mail }, secret: "made-up" },
        { receiver: { name: "chat", kind: "slack" }, secret: "https://example.org/made-up" },
      ],
      {
        adminNetworks: ["10.0.0.0/8"],
        routing: { critical: ["hook", "mail", "chat"] },
        logs: { enabled: true },
        grafana: { enabled: true },
      },
    ),
    https: { enabled: true, serverName: "speech.example.org" },
    tlsCertificate: true,
    tlsKey: true,
    monitoringPassword: "made-up-password",
  };
}

/** How many lines every text has. */
function shape(config: WatchedConfig): Record<string, number> {
  const texts = watchedMachines(config).flatMap((machine, index) =>
    Object.entries(textsOf(config, machine)).map(([file, text]) => [`${index} ${file}`, text] as const),
  );
  return Object.fromEntries(texts.map(([file, text]) => [file, text.split(/[\n\r\u2028\u2029]/).length]));
}

describe("any configuration of monitoring that is accepted", function () {
  this.timeout(600_000);
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "fuzz-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("is taken by Prometheus, Alertmanager, the prober, nftables and systemd", () => {
    fc.assert(
      fc.property(watchedStacks, (raw) => {
        rmSync(folder, { recursive: true });
        mkdirSync(folder);
        const config = watched(raw);
        assert.ok(config);
        readWatching(config, raw.monitoringPassword);
        readMachines(config);
      }),
      { numRuns: RUNS, endOnFailure: true },
    );
  });

  it("reads back as what the stack file says", () => {
    fc.assert(
      fc.property(watchedStacks, (raw) => {
        const config = watched(raw);
        assert.ok(config);
        const texts = watching(config);
        const machines = watchedMachines(config).map(({ name, role, address }) => ({ name, role, address }));

        const { scrape_configs } = yaml<Prometheus>(texts["prometheus.yml"]);
        const nodes = scrape_configs.find(({ job_name }) => job_name === "node")?.static_configs;
        assert.deepEqual(
          nodes?.map(({ targets: [target], labels }) => ({
            name: labels.node,
            role: labels.role,
            address: target?.split(":")[0],
          })),
          machines,
        );
        assert.deepEqual(toldOf(yaml(texts["alertmanager.yml"])), toldIn(raw));
        for (const file of ["alerts.yml", "prober.yml", "loki.yml", "grafana-sources.yml"]) yaml(texts[file]);
        for (const machine of watchedMachines(config)) {
          const { receivers }: Collector = yaml(renderCollectorConfig(config, machine));
          for (const { resource } of Object.values(receivers)) assert.equal(resource.node, machine.name);
        }
        const { realServers } = JSON.parse(renderDirectorMetricsConfig(config));
        assert.deepEqual(
          realServers,
          config.realServers.map(({ name, address }) => ({ name, address })),
        );
        assert.equal(JSON.parse(renderSentenceConfig(config)).sentence, config.verification.sentence);
      }),
      { numRuns: 50 },
    );
  });

  it("has no two programs of a machine at one port", () => {
    fc.assert(
      fc.property(watchedStacks, (raw) => {
        const config = watched(raw);
        assert.ok(config);
        for (const { role, ssh } of watchedMachines(config)) {
          const ports: readonly number[] = [...listeningPorts(config, role), ssh.port];
          assert.equal(new Set(ports).size, ports.length, `${role}: ${ports.join(", ")}`);
        }
      }),
      { numRuns: 100 },
    );
  });

  it("has no text in it that gets out of its place", () => {
    const before = watched(full());
    assert.ok(before);
    const expected = shape(before);
    let taken = 0;
    fc.assert(
      fc.property(fc.constantFrom(...places), hostile, (place, text) => {
        const config = watched(withText(full(), place, text));
        if (config === undefined) return;
        taken += 1;
        assert.ok(
          ["user", "sentence", "receiverSecrets"].some((key) => place.includes(key)),
          `${place.join(".")} takes ${JSON.stringify(text)}`,
        );
        assert.deepEqual(shape(config), expected);
      }),
      { numRuns: 1000 },
    );
    assert.ok(taken > 0);
  });
});
