/**
 * The texts of monitoring, read by the programs that will read them; every alert by the cases in alerts.yml, in which it
 * fires and in which it nearly does. A program that is missing is a failure, not a skip: `scripts/test` installs the packages.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { alertsOf, grafanaPages } from "../../render";
import { goldenFolder } from "./cases";
import { everything } from "./monitoringCases";

const packages: Readonly<Record<string, string>> = {
  promtool: "prometheus",
  amtool: "prometheus-alertmanager",
  "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
  "systemd-analyze": "systemd",
};

const here = fileURLToPath(new URL(".", import.meta.url));
const runbooks = fileURLToPath(new URL("../../docs/runbooks/", import.meta.url));
const alerts = alertsOf(everything);

function run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const result = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C.UTF-8", ...env },
  });
  if (result.error !== undefined) {
    throw new Error(`cannot run ${program} (${result.error.message}): apt-get install ${packages[program]}`);
  }
  return { status: result.status, said: result.stdout + result.stderr };
}

function golden(name: string, file: string): string {
  return readFileSync(new URL(`${name}/${file}`, goldenFolder), "utf8");
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "monitoring-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A file of this test's own. */
function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

describe("promtool", () => {
  for (const name of ["monitoring", "monitoring-alone"]) {
    it(`accepts ${name}/prometheus.yml, before the rules are there and after`, () => {
      const text = golden(name, "prometheus.yml").replace("/etc/cosyvoice-lvs/alerts/", `${folder}/`);
      const config = join(folder, "prometheus.yaml");
      writeFileSync(config, text);
      assert.equal(run("promtool", ["check", "config", config]).status, 0);
      file("cosyvoice.yml", golden("monitoring", "alerts.yml"));
      const { status, said } = run("promtool", ["check", "config", config]);
      assert.equal(status, 0, said);
      assert.match(said, new RegExp(`${alerts.length} rules found`));
    });
  }

  it("refuses a configuration and rules with a mistake", () => {
    const config = file(
      "wrong.yml",
      golden("monitoring", "prometheus.yml").replace("scrape_timeout", "timeout"),
    );
    assert.notEqual(run("promtool", ["check", "config", config]).status, 0);
    const rules = file(
      "rules.yml",
      golden("monitoring", "alerts.yml").replace("sum(lvs_vip_held) >", "sum(lvs >"),
    );
    assert.notEqual(run("promtool", ["check", "rules", rules]).status, 0);
  });
});

describe("alerts", () => {
  const cases = parse(readFileSync(join(here, "alerts.yml"), "utf8")) as {
    tests: { name: string; alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
  };

  it("fire and are silent as alerts.yml says", function () {
    // promtool plays hours for every case, on a computer that may do other things as well.
    this.timeout(180_000);
    const { status, said } = run("promtool", ["test", "rules", join(here, "alerts.yml")]);
    assert.equal(status, 0, said);
  });

  it("would not pass with an alert that never fires, nor with one that always does", function () {
    // promtool plays hours for every case, on a computer that may do other things as well.
    this.timeout(180_000);
    mkdirSync(join(folder, "texts/monitoring"), { recursive: true });
    cpSync(join(here, "alerts.yml"), join(folder, "alerts.yml"));
    for (const expr of ["vector(1) > 1", "vector(1)"]) {
      const rules = golden("monitoring", "alerts.yml").replace("expr: keepalived_up == 0", `expr: ${expr}`);
      assert.match(rules, /expr: vector\(1\).*\n {8}for: 1m/);
      file("texts/monitoring/alerts.yml", rules);
      const { status, said } = run("promtool", ["test", "rules", join(folder, "alerts.yml")]);
      assert.notEqual(status, 0);
      assert.match(said, /KeepalivedDown/);
    }
  });

  for (const { name } of alerts) {
    it(`${name} has a case in which it fires, one in which it does not, and a page`, () => {
      const own = cases.tests.flatMap(({ alert_rule_test }) =>
        alert_rule_test.filter(({ alertname }) => alertname === name),
      );
      const silent = own.filter(({ exp_alerts }) => exp_alerts.length === 0).length;
      assert.ok(own.length - silent >= 1, "fires");
      // The one that always fires has none.
      assert.equal(silent >= 1, name !== "Watchdog", "is silent");
      const page = readFileSync(join(runbooks, `${name}.md`), "utf8");
      assert.match(page, new RegExp(`^# ${name}\n`));
      for (const heading of ["What it means", "Look", "Do"])
        assert.match(page, new RegExp(`\n## ${heading}\n`));
      const look = /\n## Look\n([\s\S]*?)\n## /.exec(page)?.[1] ?? "";
      assert.match(look, /```console\n\$ /, "commands to run");
    });
  }

  it("have no page that no alert leads to", () => {
    const pages = readdirSync(runbooks).filter((page) => page !== "README.md");
    assert.deepEqual(pages.sort(), alerts.map(({ name }) => `${name}.md`).sort());
  });

  /** Of these no fault can be had in the lab. */
  const nowhere: Readonly<Record<string, string>> = {
    BackupHearsNoAdverts: "a keepalived that hears nothing takes the VIP",
    ClockOff: "the lab's machines have one clock",
    NetworkAllowanceExceeded: "the driver of AWS's network counts them",
  };

  it("are each caused by a fault in the lab, or it is known why not", () => {
    const tests = ["monitoring/lab", "security/lab"].flatMap((directory) => {
      const url = new URL(`../${directory}/`, import.meta.url);
      return readdirSync(url).map((name) => readFileSync(new URL(name, url), "utf8"));
    });
    const uncaused = alerts
      .map(({ name }) => name)
      .filter((name) => !tests.some((text) => text.includes(`"${name}"`)));
    assert.deepEqual(uncaused.sort(), Object.keys(nowhere).sort());
  });

  it("are all in the list of runbooks", () => {
    const list = readFileSync(join(runbooks, "README.md"), "utf8");
    for (const { name } of alerts) assert.ok(list.includes(`[${name}](${name}.md)`), name);
  });
});

describe("amtool", () => {
  const config = (name: string) => file("alertmanager.yml", golden(name, "alertmanager.yml"));

  for (const [name, receivers] of [
    ["monitoring", 4],
    ["monitoring-alone", 4],
  ] as const) {
    it(`accepts ${name}/alertmanager.yml`, () => {
      const { status, said } = run("amtool", ["check-config", config(name)]);
      assert.equal(status, 0, said);
      assert.match(said, new RegExp(`${receivers} receivers`));
    });
  }

  for (const severity of ["critical", "warning", "watchdog", "unheard-of"]) {
    it(`routes ${severity}`, () => {
      const { said } = run("amtool", [
        "config",
        "routes",
        "test",
        `--config.file=${config("monitoring")}`,
        `severity=${severity}`,
      ]);
      const receiver = severity === "unheard-of" ? "nobody" : severity;
      assert.equal(said.replace(/^Warning: .*\n/m, "").trim(), receiver);
    });
  }

  it("refuses a mistake", () => {
    const wrong = golden("monitoring", "alertmanager.yml").replace("group_wait: 15s", "group_wait: soon");
    assert.notEqual(run("amtool", ["check-config", file("alertmanager.yml", wrong)]).status, 0);
  });

  it("knows every alert that explains another, or is explained", () => {
    const { inhibit_rules } = parse(golden("monitoring", "alertmanager.yml")) as {
      inhibit_rules: { source_matchers: string[]; target_matchers: string[] }[];
    };
    const named = inhibit_rules
      .flatMap(({ source_matchers, target_matchers }) => [...source_matchers, ...target_matchers])
      .flatMap((matcher) => /^alertname=~?"(.*)"$/.exec(matcher)?.[1]?.split("|") ?? []);
    const known = new Set(alerts.map(({ name }) => name));
    assert.deepEqual(
      named.filter((name) => !known.has(name)),
      [],
    );
    assert.ok(named.length > 10);
  });
});

describe("the prober", () => {
  it("accepts its configuration, and refuses a mistake", () => {
    const check = (text: string) =>
      run("prometheus-blackbox-exporter", ["--config.check", `--config.file=${file("prober.yml", text)}`]);
    assert.equal(check(golden("monitoring", "prober.yml")).status, 0);
    assert.notEqual(
      check(golden("monitoring", "prober.yml").replace("timeout: 5s", "timeout: soon")).status,
      0,
    );
  });
});

describe("Grafana, which cannot be had here", () => {
  it("gets a configuration that is one, with the password from its file and nobody let in without", () => {
    const reader = [
      "import configparser, json, sys",
      "found = configparser.RawConfigParser()",
      "found.read_string(sys.stdin.read())",
      "print(json.dumps({name: dict(found[name]) for name in found.sections()}))",
    ].join("\n");
    const { stdout } = spawnSync("/usr/bin/python3", ["-c", reader], {
      input: golden("monitoring", "grafana.ini"),
      encoding: "utf8",
    });
    const config = JSON.parse(stdout) as Record<string, Record<string, string>>;
    assert.equal(
      config.security?.admin_password,
      "$__file{/run/credentials/cosyvoice-grafana.service/password}",
    );
    assert.equal(config["auth.anonymous"]?.enabled, "false");
    assert.equal(config.users?.allow_sign_up, "false");
    assert.equal(config.paths?.provisioning, "/etc/cosyvoice-lvs/grafana/provisioning");
    const unit = golden("monitoring", "cosyvoice-grafana.service");
    assert.match(unit, /^LoadCredential=password:\/etc\/cosyvoice-lvs\/watch\/password$/m);
  });

  it("finds its sources where Prometheus and Loki listen, and its dashboards where they are put", () => {
    const { datasources } = parse(golden("monitoring", "grafana-sources.yml")) as {
      datasources: { type: string; url: string }[];
    };
    assert.deepEqual(
      datasources.map(({ type, url }) => [type, url]),
      [
        ["prometheus", "http://127.0.0.1:19090"],
        ["loki", "http://127.0.0.1:3100"],
      ],
    );
    const { providers } = parse(golden("monitoring", "grafana-dashboards.yml")) as {
      providers: { options: { path: string } }[];
    };
    assert.equal(providers[0]?.options.path, "/etc/cosyvoice-lvs/grafana/dashboards");
    const files = grafanaPages(everything).map(([file]) => file);
    assert.deepEqual(files, [
      "overview.json",
      "load-balancer.json",
      "gpus.json",
      "speech.json",
      "capacity.json",
      "logs.json",
    ]);
    assert.match(golden("monitoring", "grafana.ini"), /default_home_dashboard_path = .*\/overview\.json$/m);
  });
});

describe("systemd", () => {
  for (const [unit, name] of [
    ["prometheus", "prometheus"],
    ["alertmanager", "prometheus-alertmanager"],
    ["prober", "prometheus-blackbox-exporter"],
    ["node-exporter", "prometheus-node-exporter"],
    ["node-exporter-director", "prometheus-node-exporter"],
  ] as const) {
    it(`has nothing to say about ${unit}.service.d.conf on Debian's unit`, () => {
      const service = `${name}.service`;
      assert.ok(existsSync(`/lib/systemd/system/${service}`), `apt-get install ${name}`);
      cpSync(`/lib/systemd/system/${service}`, join(folder, service));
      mkdirSync(join(folder, `${service}.d`));
      file(`${service}.d/cosyvoice-lvs.conf`, golden("monitoring", `${unit}.service.d.conf`));
      const { said } = run(
        "systemd-analyze",
        ["verify", "--man=no", "--recursive-errors=no", join(folder, service)],
        { SYSTEMD_UNIT_PATH: `${folder}:` },
      );
      assert.equal(said.trim(), "");
    });
  }

  it("leaves a GPU and the kernel's log to what reads them, without root's rights", () => {
    const unit = golden("monitoring", "cosyvoice-gpu-metrics.service");
    // The clock's devices, where they are allowed, are the only ones; protected logs are out of reach with any capability.
    assert.doesNotMatch(unit, /^(PrivateDevices|ProtectClock|ProtectKernelLogs|DevicePolicy|DeviceAllow)=/m);
    assert.match(unit, /^User=prometheus$/m);
    for (const set of ["CapabilityBoundingSet", "AmbientCapabilities"])
      assert.match(unit, new RegExp(`^${set}=CAP_SYSLOG$`, "m"));
  });
});
