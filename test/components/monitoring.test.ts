import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import bcrypt from "bcryptjs";
import { Cluster } from "../../components/cluster";
import type { Manifest } from "../../components/remote/manifest";
import { makeCertificate } from "../golden/nginx";
import { machinesFor, parsed, rawConfig, release } from "./fixture";
import { type Registered, settled, startMocks } from "./mocks";

const COMMAND = "command:remote:Command";

function watched(keys: Record<string, unknown> = {}, others: Record<string, unknown> = {}) {
  const { hostKey } = (rawConfig().storage ?? {}) as { hostKey: string };
  return {
    ...rawConfig(),
    ...others,
    monitoring: { name: "monitor", address: "10.0.0.30", hostKey, ...keys },
  };
}

async function deploy(raw: Record<string, unknown>): Promise<Registered[]> {
  const registered = await startMocks("test");
  const config = parsed(raw);
  const { receiverSecrets, monitoringPassword, tlsCertificate, tlsKey, apiKeys } = raw as Record<
    string,
    never
  >;
  const frontDoor = { tlsCertificate, tlsKey, apiKeys };
  const machines = machinesFor(config);
  new Cluster("c", { config, machines, release, receiverSecrets, monitoringPassword, frontDoor });
  await settled();
  return registered;
}

function inputs(registered: Registered[], name: string): Record<string, unknown> {
  const found = registered.filter((resource) => resource.name === name);
  assert.equal(found.length, 1, `exactly one resource is called ${name}`);
  return (found[0] as Registered).inputs;
}

function manifest(registered: Registered[], name: string): Manifest {
  return JSON.parse(String(inputs(registered, name).stdin)) as Manifest;
}

/** Files with what a change of each asks for. */
function notified({ files }: Manifest): Record<string, readonly string[] | undefined> {
  return Object.fromEntries(Object.entries(files ?? {}).map(([path, { notify }]) => [path, notify]));
}

describe("Monitoring", () => {
  it("has exactly these children, and the rest of the cluster is as it was", async () => {
    const names = (registered: Registered[]) => registered.map(({ type, name }) => `${type} ${name}`).sort();
    const [without, with_] = [names(await deploy(rawConfig())), names(await deploy(watched()))];
    assert.deepEqual(
      with_.filter((name) => !without.includes(name)),
      [
        `${COMMAND} c-monitoring-applier`,
        `${COMMAND} c-monitoring-director-1`,
        `${COMMAND} c-monitoring-director-2`,
        `${COMMAND} c-monitoring-monitor`,
        `${COMMAND} c-monitoring-packages`,
        `${COMMAND} c-monitoring-rs-1`,
        `${COMMAND} c-monitoring-rs-2`,
        `${COMMAND} c-monitoring-storage`,
        `${COMMAND} c-monitoring-watcher`,
        "cosyvoice-lvs:index:Monitoring c-monitoring",
      ],
    );
    assert.deepEqual(
      without.filter((name) => !with_.includes(name)),
      [],
    );
  });

  it("changes no layer of what serves, and the verification does not wait for it", async () => {
    const [without, with_] = [await deploy(rawConfig()), await deploy(watched())];
    for (const { name, inputs: before } of without) {
      if (name.endsWith("-applier")) continue;
      assert.deepEqual(inputs(with_, name), before, name);
    }
  });

  it("takes no turn and touches no unit of what serves", async () => {
    for (const { name, type, inputs: given } of await deploy(watched())) {
      if (type !== COMMAND || !name.startsWith("c-monitoring-") || name.endsWith("-applier")) continue;
      const { around, units = {}, files = {}, sysctls } = JSON.parse(String(given.stdin)) as Manifest;
      assert.deepEqual({ around, sysctls }, { around: undefined, sysctls: undefined }, name);
      const touched = [
        ...Object.keys(units),
        ...Object.values(files).flatMap(({ notify = [] }) => notify.map((each) => each.split(":")[1] ?? "")),
      ];
      for (const unit of touched)
        assert.match(
          unit,
          /^(prometheus.*|cosyvoice-(watch-rules|director-metrics|gpu-metrics|sentence))\.service$/,
        );
    }
  });

  it("has the machine that watches drop the rest as well, where the others do", async () => {
    const firewall = { enabled: true, admins: ["10.9.0.0/16"] };
    const registered = await deploy(watched({ adminNetworks: ["10.9.1.0/24"] }, { firewall }));
    const { layer, files, around } = manifest(registered, "c-monitoring-firewall-monitor");
    assert.deepEqual([layer, around], ["firewall", undefined]);
    const rules = files?.["/etc/cosyvoice-lvs/firewall.nft"]?.content ?? "";
    assert.match(rules, /policy drop;/);
    assert.match(rules, /ip saddr @admins tcp dport 22 accept/);
    assert.match(rules, /ip saddr \{ 10\.9\.1\.0\/24 \} tcp dport \{ 9090, 9093 \} accept/);
  });

  it("brings a director its exporters, behind a packet filter that is there first", async () => {
    const layer = manifest(
      await deploy(watched({ ports: { nodeExporter: 19100 } })),
      "c-monitoring-director-2",
    );
    assert.deepEqual(
      { layer: layer.layer, owner: layer.owner, packages: layer.packages },
      { layer: "watched", owner: "test/director-2", packages: ["prometheus-node-exporter", "nftables"] },
    );
    assert.deepEqual(Object.keys(layer.units ?? {}), [
      "cosyvoice-watch-rules.service",
      "prometheus-node-exporter.service",
      "cosyvoice-director-metrics.service",
    ]);
    assert.deepEqual(notified(layer), {
      "/etc/cosyvoice-lvs/watch.nft": ["reload:cosyvoice-watch-rules.service"],
      "/etc/systemd/system/cosyvoice-watch-rules.service": undefined,
      "/etc/tmpfiles.d/cosyvoice-metrics.conf": undefined,
      "/etc/systemd/system/prometheus-node-exporter.service.d/cosyvoice-lvs.conf": [
        "restart:prometheus-node-exporter.service",
      ],
      "/etc/cosyvoice-lvs/programs/exporter": ["restart:cosyvoice-director-metrics.service"],
      "/etc/systemd/system/cosyvoice-director-metrics.service": [
        "restart:cosyvoice-director-metrics.service",
      ],
      "/etc/cosyvoice-lvs/exporter.json": ["restart:cosyvoice-director-metrics.service"],
    });
    const rules = layer.files?.["/etc/cosyvoice-lvs/watch.nft"];
    assert.equal(rules?.check, "nft -c -f {}");
    assert.match(
      rules?.content ?? "",
      /tcp dport 19100 ip saddr \{ 10\.0\.0\.30 \} accept\n\s+tcp dport 19100 drop\n/,
    );
    assert.doesNotMatch(rules?.content ?? "", /9090|invalid|policy drop/);
  });

  it("brings a real server what reads its GPU, and the storage machine neither", async () => {
    const registered = await deploy(watched());
    const units = (name: string) => Object.keys(manifest(registered, name).units ?? {}).slice(2);
    assert.deepEqual(units("c-monitoring-rs-1"), ["cosyvoice-gpu-metrics.service"]);
    assert.deepEqual(units("c-monitoring-storage"), []);
    assert.deepEqual(units("c-monitoring-monitor"), []);
  });

  it("puts no text in place that the program which reads it has not accepted", async () => {
    const layer = manifest(await deploy(watched()), "c-monitoring-watcher");
    const checks = Object.fromEntries(
      Object.entries(layer.files ?? {})
        .filter(([path]) => path.endsWith(".yml"))
        .map(([path, { check, notify }]) => [path, [check, ...(notify ?? [])]]),
    );
    assert.deepEqual(checks, {
      "/etc/cosyvoice-lvs/alerts/cosyvoice.yml": ["promtool check rules {}", "reload:prometheus.service"],
      "/etc/cosyvoice-lvs/prometheus.yml": ["promtool check config {}", "reload:prometheus.service"],
      "/etc/cosyvoice-lvs/alertmanager.yml": [
        "amtool check-config {}",
        "reload:prometheus-alertmanager.service",
      ],
      "/etc/cosyvoice-lvs/prober.yml": [
        "prometheus-blackbox-exporter --config.check --config.file={}",
        "reload:prometheus-blackbox-exporter.service",
      ],
    });
    assert.deepEqual(Object.keys(layer.units ?? {}), [
      "prometheus-alertmanager.service",
      "prometheus-blackbox-exporter.service",
      "cosyvoice-sentence.service",
      "prometheus.service",
    ]);
  });

  it("looks at every machine but the client, at its own address", async () => {
    const layer = manifest(await deploy(watched()), "c-monitoring-watcher");
    const text = layer.files?.["/etc/cosyvoice-lvs/prometheus.yml"]?.content ?? "";
    for (const address of ["10.0.0.11", "10.0.0.12", "10.0.1.1", "10.0.1.2", "10.0.0.20", "10.0.0.30"])
      assert.match(text, new RegExp(`- ${address.replaceAll(".", "\\.")}:9100\n`));
    assert.doesNotMatch(text, /10\.0\.0\.50/);
  });

  it("refuses a disk that is not there before it changes anything", async () => {
    const { preflight } = manifest(await deploy(watched({ metrics: { disk: 7 } })), "c-monitoring-watcher");
    assert.equal(preflight?.length, 1);
    assert.match(preflight?.[0]?.run ?? "", /^wanted=7000000000 paths=\/var\/lib\/prometheus; taken=/);
    assert.match(preflight?.[0]?.fix ?? "", /monitoring\.metrics\.disk/);
  });

  it("opens its pages to the admins' networks, and without one to nobody", async () => {
    const texts = async (keys: Record<string, unknown>) => {
      const registered = await deploy(watched(keys));
      const command =
        manifest(registered, "c-monitoring-watcher").files?.[
          "/etc/systemd/system/prometheus.service.d/cosyvoice-lvs.conf"
        ]?.content ?? "";
      const rules =
        manifest(registered, "c-monitoring-monitor").files?.["/etc/cosyvoice-lvs/watch.nft"]?.content ?? "";
      return { command, rules };
    };
    const alone = await texts({});
    assert.match(alone.command, /--web\.listen-address=127\.0\.0\.1:9090\n/);
    assert.doesNotMatch(alone.rules, /tcp dport 909[03] ip saddr/);
    const open = await texts({ adminNetworks: ["10.9.0.0/16"] });
    assert.match(open.command, /--web\.listen-address=0\.0\.0\.0:9090\n/);
    for (const port of [9090, 9093])
      assert.match(
        open.rules,
        new RegExp(`tcp dport ${port} ip saddr \\{ 10\\.9\\.0\\.0/16 \\} accept\n\\s+tcp dport ${port} drop`),
      );
  });

  it("keeps receivers' secrets out of every manifest but their own", async () => {
    const raw = watched(
      {
        receivers: [
          { name: "robot", kind: "dingtalk" },
          { name: "open", kind: "webhook", url: "http://10.0.0.50/" },
        ],
      },
      { receiverSecrets: { robot: "https://example.org/planted SECplanted" } },
    );
    const registered = await deploy(raw);
    const where = registered.filter(({ inputs: given }) => JSON.stringify(given).includes("planted"));
    assert.deepEqual(
      where.map(({ name, secrets }) => [name, secrets]),
      [["c-monitoring-secrets", ["connection", "stdin"]]],
    );
    const { secret, files, directories } = manifest(registered, "c-monitoring-secrets");
    assert.deepEqual(
      { secret, directories },
      {
        secret: true,
        directories: { "/etc/cosyvoice-lvs/receivers": { mode: "0750", owner: "root:prometheus" } },
      },
    );
    assert.deepEqual(files, {
      "/etc/cosyvoice-lvs/receivers/robot": {
        mode: "0640",
        owner: "root:prometheus",
        content: "https://example.org/planted SECplanted",
        notify: ["restart:cosyvoice-alert-relay.service"],
      },
    });
    const { units } = manifest(registered, "c-monitoring-watcher");
    assert.deepEqual(Object.keys(units ?? {})[0], "cosyvoice-alert-relay.service");
  });

  it("asks by HTTPS where that is on, for the certificate that was deployed and with a key of its own file", async () => {
    const folder = mkdtempSync(join(tmpdir(), "monitoring-"));
    const made = makeCertificate(folder);
    const secrets = {
      tlsCertificate: readFileSync(made.certificate, "utf8"),
      tlsKey: readFileSync(made.key, "utf8"),
      apiKeys: "planted-key-of-thirty-two-letters,another-key-of-nobody",
    };
    rmSync(folder, { recursive: true });
    const https = { enabled: true, serverName: "speech.example.org", plainPort: "closed" };
    const registered = await deploy(watched({}, { https, ...secrets }));
    assert.deepEqual(manifest(registered, "c-monitoring-secrets").files, {
      "/etc/cosyvoice-lvs/front-door/certificate.pem": {
        mode: "0644",
        owner: "root:root",
        content: secrets.tlsCertificate,
      },
      "/etc/cosyvoice-lvs/front-door/asking-key": {
        mode: "0640",
        owner: "root:prometheus",
        content: "planted-key-of-thirty-two-letters",
      },
    });
    const where = registered.filter(
      ({ name, inputs: given }) =>
        name.startsWith("c-monitoring") && JSON.stringify(given).includes("planted-key"),
    );
    assert.deepEqual(
      where.map(({ name, secrets: hidden }) => [name, hidden]),
      [["c-monitoring-secrets", ["connection", "stdin"]]],
    );
    const server = manifest(registered, "c-monitoring-rs-1");
    const readers = ["gpu", "door"].map((name) => `cosyvoice-${name}-metrics.service`);
    assert.deepEqual(Object.keys(server.units ?? {}).slice(2), readers);
    assert.deepEqual(
      server.files?.["/etc/cosyvoice-lvs/programs/exporter"]?.notify,
      readers.map((unit) => `restart:${unit}`),
    );
    const { files } = manifest(registered, "c-monitoring-watcher");
    const { port, https: way } = JSON.parse(files?.["/etc/cosyvoice-lvs/sentence.json"]?.content ?? "");
    assert.deepEqual([port, way.key], [443, "/etc/cosyvoice-lvs/front-door/asking-key"]);
    assert.match(
      files?.["/etc/cosyvoice-lvs/prometheus.yml"]?.content ?? "",
      /- https:\/\/10\.0\.0\.100:443\/healthz/,
    );
  });

  const everything = { logs: { enabled: true }, grafana: { enabled: true } };
  const password = { monitoringPassword: "planted-password" };

  it("has layers of their own for logs and pictures, which nothing that serves changes with", async () => {
    const [without, with_] = [await deploy(watched()), await deploy(watched(everything, password))];
    const names = (registered: Registered[]) => registered.map(({ name }) => name);
    assert.deepEqual(
      names(with_)
        .filter((name) => !names(without).includes(name))
        .sort(),
      [
        "c-monitoring-director-1-logs",
        "c-monitoring-director-2-logs",
        "c-monitoring-grafana",
        "c-monitoring-loki",
        "c-monitoring-monitor-logs",
        "c-monitoring-rs-1-logs",
        "c-monitoring-rs-2-logs",
        "c-monitoring-secrets",
        "c-monitoring-storage-logs",
      ],
    );
    for (const { name, inputs: before } of without) {
      if (name.endsWith("-applier") || name.startsWith("c-monitoring-")) continue;
      assert.deepEqual(inputs(with_, name), before, name);
    }
  });

  it("fetches programs by their checksums, and another one restarts what runs", async () => {
    const sha256 = "a".repeat(64);
    const programs = { collector: { url: "http://10.0.0.9/c.tar.gz", sha256 } };
    const registered = await deploy(watched({ ...everything, programs }, password));
    const { steps, files, units, directories, around } = manifest(registered, "c-monitoring-rs-1-logs");
    assert.deepEqual(steps, [
      {
        name: "fetch collector",
        run: `/usr/local/lib/cosyvoice-lvs/fetch-program /opt/cosyvoice-watch/collector 'http://10.0.0.9/c.tar.gz' ${sha256}`,
        unless: '[ "$(readlink /opt/cosyvoice-watch/collector/current)" = aaaaaaaaaaaaaaaa ]',
        timeout: 1800,
      },
    ]);
    assert.deepEqual(notified({ files } as Manifest), {
      "/etc/cosyvoice-lvs/programs/collector": ["restart:cosyvoice-logs.service"],
      "/etc/cosyvoice-lvs/collector.yml": ["restart:cosyvoice-logs.service"],
      "/etc/systemd/system/cosyvoice-logs.service": ["restart:cosyvoice-logs.service"],
    });
    assert.deepEqual(units, { "cosyvoice-logs.service": { enabled: true, started: true } });
    assert.equal(directories?.["/opt/cosyvoice-watch/collector"]?.purge, true);
    assert.equal(around, undefined);
    for (const [name, unit] of [
      ["c-monitoring-loki", "cosyvoice-loki.service"],
      ["c-monitoring-grafana", "cosyvoice-grafana.service"],
    ] as const) {
      assert.deepEqual(Object.keys(manifest(registered, name).units ?? {}), [unit]);
      assert.equal(manifest(registered, name).checks?.length, 1);
    }
  });

  it("refuses a disk for logs that is not there", async () => {
    const { preflight } = manifest(
      await deploy(watched({ logs: { enabled: true, disk: 7 } })),
      "c-monitoring-loki",
    );
    assert.match(preflight?.[0]?.run ?? "", /^wanted=7000000000 .*wanted \+ 10000000000/);
    assert.match(preflight?.[0]?.fix ?? "", /monitoring\.logs\.disk/);
  });

  it("takes logs from the cluster's machines only, and shows pictures to the admins'", async () => {
    const keys = { ...everything, adminNetworks: ["10.9.0.0/16"] };
    const registered = await deploy(watched(keys, password));
    const rules = (name: string) =>
      manifest(registered, name).files?.["/etc/cosyvoice-lvs/watch.nft"]?.content ?? "";
    assert.match(
      rules("c-monitoring-monitor"),
      /tcp dport 3100 ip saddr \{ 10\.0\.0\.11, 10\.0\.0\.12, 10\.0\.1\.1, 10\.0\.1\.2, 10\.0\.0\.20, 10\.0\.0\.30 \} accept\n\s+tcp dport 3100 drop/,
    );
    assert.match(
      rules("c-monitoring-monitor"),
      /tcp dport 3000 ip saddr \{ 10\.9\.0\.0\/16 \} accept\n\s+tcp dport 3000 drop/,
    );
    assert.match(
      rules("c-monitoring-rs-1"),
      /tcp dport 8888 ip saddr \{ 10\.0\.0\.30 \} accept\n\s+tcp dport 8888 drop/,
    );
    assert.doesNotMatch(rules("c-monitoring-rs-1"), /3000|3100/);
  });

  it("keeps the password in its own files, and asks with it wherever it is asked", async () => {
    const registered = await deploy(watched(everything, password));
    const where = registered.filter(({ inputs: given }) => JSON.stringify(given).includes("planted"));
    assert.deepEqual(
      where.map(({ name, secrets }) => [name, secrets]),
      [["c-monitoring-secrets", ["connection", "stdin"]]],
    );
    const { files } = manifest(registered, "c-monitoring-secrets");
    const modes = Object.entries(files ?? {}).map(([path, { mode, owner }]) => [path, mode, owner]);
    assert.deepEqual(modes, [
      ["/etc/cosyvoice-lvs/watch/password", "0640", "root:prometheus"],
      ["/etc/cosyvoice-lvs/watch/web.yml", "0640", "root:prometheus"],
      ["/etc/cosyvoice-lvs/watch/curl", "0600", "root:root"],
    ]);
    const hash = /admin: (.*)\n/.exec(files?.["/etc/cosyvoice-lvs/watch/web.yml"]?.content ?? "")?.[1] ?? "";
    assert.ok(bcrypt.compareSync("planted-password", hash));
    assert.ok(!bcrypt.compareSync("planted-passwort", hash));
    const watcher = manifest(registered, "c-monitoring-watcher");
    for (const unit of ["prometheus", "prometheus-alertmanager"])
      assert.match(
        watcher.files?.[`/etc/systemd/system/${unit}.service.d/cosyvoice-lvs.conf`]?.content ?? "",
        /--web\.config\.file=\/etc\/cosyvoice-lvs\/watch\/web\.yml/,
      );
    for (const { run } of watcher.checks ?? [])
      assert.match(run, / --config \/etc\/cosyvoice-lvs\/watch\/curl /);
    const text = watcher.files?.["/etc/cosyvoice-lvs/prometheus.yml"]?.content ?? "";
    assert.equal(text.match(/password_file: \/etc\/cosyvoice-lvs\/watch\/password/g)?.length, 3);
    const again = manifest(await deploy(watched(everything, password)), "c-monitoring-secrets");
    assert.deepEqual(again.files, files, "the same hash every time");
  });

  it("warns when nobody is told, and when nothing is watched", async () => {
    const warn = pulumi.log.warn;
    const said: string[] = [];
    const log = pulumi.log as { warn: typeof warn };
    log.warn = async (text) => {
      said.push(text);
    };
    try {
      await deploy(watched());
      await deploy(rawConfig());
      await deploy(watched({ receivers: [{ name: "hook", kind: "webhook", url: "http://10.0.0.50/" }] }));
    } finally {
      log.warn = warn;
    }
    const own = said.filter((text) => text.startsWith("monitoring"));
    assert.equal(own.length, 2);
    assert.match(own[0] ?? "", /^monitoring\.receivers is empty/);
    assert.match(own[1] ?? "", /^monitoring is not set/);
  });

  it("needs one layer more for each real server", async () => {
    const count = async (servers: number) =>
      (await deploy({ ...watched(), realServers: rawConfig(servers).realServers })).length;
    assert.equal((await count(12)) - (await count(2)), 10 * 8);
  });
});
