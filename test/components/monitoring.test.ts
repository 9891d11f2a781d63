import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
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
  const { receiverSecrets, tlsCertificate, tlsKey, apiKeys } = raw as Record<string, never>;
  const frontDoor = { tlsCertificate, tlsKey, apiKeys };
  new Cluster("c", { config, machines: machinesFor(config), release, receiverSecrets, frontDoor });
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
    assert.match(preflight?.[0]?.run ?? "", / -ge 7000000000 \]$/);
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
    const { files } = manifest(registered, "c-monitoring-watcher");
    const { port, https: way } = JSON.parse(files?.["/etc/cosyvoice-lvs/sentence.json"]?.content ?? "");
    assert.deepEqual([port, way.key], [443, "/etc/cosyvoice-lvs/front-door/asking-key"]);
    assert.match(
      files?.["/etc/cosyvoice-lvs/prometheus.yml"]?.content ?? "",
      /- https:\/\/10\.0\.0\.100:443\/healthz/,
    );
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
