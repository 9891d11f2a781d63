/** What watches a cluster on aws, and HTTPS there: who may reach what, and what the machines get. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster } from "../../components/cluster";
import { AwsPlatform } from "../../components/platform/aws/platform";
import type { Manifest } from "../../components/remote/manifest";
import { fingerprintOf } from "../../config/certificate";
import { release } from "../components/fixture";
import { type Registered, settled } from "../components/mocks";
import { makeCertificate } from "../golden/nginx";
import { deploy, EGRESS, INGRESS, INSTANCE, INTERFACE, named, policyOf, rulesOf } from "./deploy";
import { parsedAws, rawAws, rawInternet, rawTwoZones } from "./fixture";
import { startAws } from "./mocks";

const ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm";

const watched = (monitoring: Record<string, unknown> = {}, section: Record<string, unknown> = {}) =>
  rawAws(section, { monitoring });

const mail = {
  name: "ops",
  kind: "email",
  to: "ops@example.org",
  from: "lvs@example.org",
  server: "mail.example.org:587",
};

/** A whole cluster on top of its platform. */
async function deployCluster(
  raw: Record<string, unknown>,
  frontDoor: { tlsCertificate: string; tlsKey: string } | undefined = undefined,
): Promise<readonly Registered[]> {
  const registered = await startAws();
  const config = parsedAws(raw);
  const platform = new AwsPlatform("c", { config, aws: config.aws, jumpDirector: "director-1" });
  new Cluster("c", { config, machines: platform.machines, cloud: platform, release, frontDoor });
  await settled();
  return registered;
}

const manifest = (registered: readonly Registered[], name: string) =>
  JSON.parse(String(named(registered, "command:remote:Command", name).stdin)) as Manifest;

describe("the machine that watches, on aws", () => {
  it("is one of its own beside the others, without rights and without a public address", async () => {
    const { registered } = await deploy(watched());
    const { userData: _, ...inputs } = named(registered, INSTANCE, "c-monitor-instance");
    assert.deepEqual(inputs, {
      ami: "what /aws/service/debian/release/12/latest/amd64 names",
      instanceType: "t3.small",
      primaryNetworkInterface: { networkInterfaceId: "c-monitor-interface.NetworkInterface" },
      rootBlockDevice: { volumeType: "gp3", volumeSize: 30, encrypted: true },
      metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
      tags: { Name: "c-monitor" },
    });
    assert.deepEqual(named(registered, INTERFACE, "c-monitor-interface"), {
      subnetId: "c-network-eu-central-1a.Subnet",
      privateIps: ["10.20.0.21"],
      securityGroups: ["c-firewall-monitor.SecurityGroup"],
      sourceDestCheck: true,
      tags: { Name: "c-monitor" },
    });
  });

  it("is not made where nothing is watched", async () => {
    for (const raw of [rawAws(), watched({ enabled: false })]) {
      const { registered } = await deploy(raw);
      assert.deepEqual(
        registered.filter(({ name }) => name.includes("monitor")),
        [],
      );
    }
  });

  it("alone sees readings, asks as a client does, and is reached through directors only", async () => {
    const { registered } = await deploy(watched({ receivers: [mail] }));
    assert.deepEqual(rulesOf(registered, "monitor", INGRESS), ["tcp 22 directors"]);
    assert.deepEqual(rulesOf(registered, "monitor", EGRESS), [
      "tcp 443 0.0.0.0/0",
      "tcp 587 0.0.0.0/0",
      "tcp 7860 10.255.0.100/32",
      "tcp 7860 realServers",
      "tcp 80 0.0.0.0/0",
      "tcp 9100 directors",
      "tcp 9100 realServers",
    ]);
    for (const group of ["directors", "realServers"]) {
      const rules = rulesOf(registered, group, INGRESS);
      assert.deepEqual(
        rules.filter((rule) => rule.startsWith("tcp 9100 ")),
        ["tcp 9100 monitor"],
      );
      assert.ok(rules.includes("tcp 7860 10.20.0.21/32"), "what DR forwards comes from an address");
    }
    assert.ok(rulesOf(registered, "realServers", INGRESS).includes("tcp 7860 monitor"));
    assert.ok(rulesOf(registered, "directors", EGRESS).includes("tcp 22 monitor"));
  });

  it("opens Prometheus and Alertmanager to private networks that were named", async () => {
    const { registered } = await deploy(watched({ adminNetworks: ["10.0.0.0/8"] }));
    assert.deepEqual(rulesOf(registered, "monitor", INGRESS), [
      "tcp 22 directors",
      "tcp 9090 10.0.0.0/8",
      "tcp 9093 10.0.0.0/8",
    ]);
  });

  it("takes logs from the other machines, where they are kept, and shows pictures where they are drawn", async () => {
    const raw = watched(
      { logs: { enabled: true, disk: 2 }, grafana: { enabled: true }, adminNetworks: ["10.0.0.0/8"] },
      { monitor: { disk: 40 } },
    );
    const { registered } = await deploy({ ...raw, monitoringPassword: "made-up-password" });
    assert.deepEqual(
      rulesOf(registered, "monitor", INGRESS).filter((rule) => /^tcp 3\d00 /.test(rule)),
      ["tcp 3000 10.0.0.0/8", "tcp 3100 directors", "tcp 3100 realServers"],
    );
    for (const group of ["directors", "realServers"]) {
      assert.ok(rulesOf(registered, group, EGRESS).includes("tcp 3100 monitor"), group);
      assert.ok(rulesOf(registered, group, INGRESS).includes("tcp 8888 monitor"), group);
      assert.ok(rulesOf(registered, "monitor", EGRESS).includes(`tcp 8888 ${group}`), group);
    }
  });

  it("is admitted as a client with TUN, and behind NAT", async () => {
    const two = await deploy({ ...rawTwoZones(), monitoring: {} });
    assert.ok(rulesOf(two.registered, "realServers", EGRESS).includes("tcp 1024 65535 10.20.0.21/32"));
    const { registered } = await deploy({ ...rawInternet(), monitoring: {} });
    assert.ok(rulesOf(registered, "directors", INGRESS).includes("tcp 7860 10.20.0.21/32"));
    assert.ok(!rulesOf(registered, "realServers", INGRESS).includes("tcp 7860 10.20.0.21/32"));
  });

  it("gets its programs, and closes the metadata service to all of them", async () => {
    const registered = await deployCluster(watched());
    const own = manifest(registered, "c-monitoring-monitor");
    assert.match(
      own.files?.["/etc/cosyvoice-lvs/rules.nft"]?.content ?? "",
      /169\.254\.169\.254 meta skuid != 0/,
    );
    assert.ok(own.units?.["cosyvoice-rules.service"]?.enabled);
    const prometheus = manifest(registered, "c-monitoring-watcher").files?.[
      "/etc/cosyvoice-lvs/prometheus.yml"
    ];
    for (const target of ["10.20.0.10:9100", "10.20.0.33:9100", "10.20.0.32:7860"])
      assert.ok(prometheus?.content.includes(target), target);
  });

  it("reads of machines what AWS's driver counts, and whether the mover runs", async () => {
    const registered = await deployCluster(watched());
    const { files } = manifest(registered, "c-monitoring-director-1");
    const texts = Object.values(files ?? {})
      .map(({ content }) => content)
      .join("\n");
    assert.match(texts, /--collector\.ethtool \\\n/);
    assert.match(texts, /--collector\.ethtool\.metrics-include=_allowance_exceeded\$\$/);
    assert.match(texts, /"cosyvoice-vip-mover\.service"/);
  });
});

describe("HTTPS on aws", () => {
  const https = { enabled: true, serverName: "speech.example.org" };
  let secrets: { tlsCertificate: string; tlsKey: string };

  before(() => {
    const folder = mkdtempSync(join(tmpdir(), "aws-https-"));
    const made = makeCertificate(folder);
    secrets = {
      tlsCertificate: readFileSync(made.certificate, "utf8"),
      tlsKey: readFileSync(made.key, "utf8"),
    };
    rmSync(folder, { recursive: true });
  });

  it("lets clients at its ports, and directors ask whether nginx lives", async () => {
    const { registered } = await deploy(rawAws({}, { https, ...secrets }));
    const clients = (group: string) =>
      rulesOf(registered, group, INGRESS).filter((rule) => rule.endsWith("10.20.0.0/16"));
    const ports = ["tcp 443 10.20.0.0/16", "tcp 7860 10.20.0.0/16", "tcp 80 10.20.0.0/16"];
    assert.deepEqual(clients("directors"), ports);
    assert.deepEqual(clients("realServers"), ports);
    assert.ok(rulesOf(registered, "realServers", INGRESS).includes("tcp 7862 directors"));
    assert.ok(rulesOf(registered, "directors", EGRESS).includes("tcp 7862 realServers"));
    assert.deepEqual(rulesOf(registered, "verifier", EGRESS), [
      "tcp 443 10.255.0.100/32",
      "tcp 7860 10.255.0.100/32",
      "tcp 80 10.255.0.100/32",
    ]);
  });

  it("closes the plain port to clients, and leaves it to the cluster", async () => {
    const raw = rawAws({}, { https: { ...https, plainPort: "closed" }, monitoring: {}, ...secrets });
    const { registered } = await deploy(raw);
    assert.ok(!rulesOf(registered, "directors", INGRESS).some((rule) => rule.startsWith("tcp 7860 ")));
    assert.deepEqual(
      rulesOf(registered, "realServers", INGRESS).filter((rule) => rule.startsWith("tcp 7860 ")),
      ["tcp 7860 directors", "tcp 7860 monitor", "tcp 7860 realServers"],
    );
  });

  it("puts nginx with the stack's certificate on every real server, and has it looked at", async () => {
    const registered = await deployCluster(rawAws({}, { https, ...secrets }), secrets);
    for (const name of ["rs-1", "rs-2"]) {
      const { packages, files } = manifest(registered, `c-front-door-${name}-config`);
      assert.deepEqual(packages, ["nginx"]);
      assert.match(
        files?.["/etc/cosyvoice-lvs/front-door/nginx.conf"]?.content ?? "",
        /server_name speech\.example\.org/,
      );
      const kept = registered.find((one) => one.name === `c-front-door-${name}-secrets`);
      assert.deepEqual(kept?.secrets, ["connection", "stdin"]);
      assert.ok(String(kept?.inputs.stdin).includes("END CERTIFICATE"));
    }
    const asked = JSON.parse(
      String(named(registered, "command:remote:Command", "c-verification-client").stdin),
    ) as { https: { port: number; fingerprint: string } };
    assert.deepEqual(
      [asked.https.port, asked.https.fingerprint],
      [443, fingerprintOf(secrets.tlsCertificate)],
    );
  });
});

describe("alarms of aws", () => {
  const alarms = { emails: ["ops@example.org"] };

  it("tell people of machines that are ill", async () => {
    const { registered } = await deploy(rawAws({ alarms }));
    assert.deepEqual(named(registered, ALARM, "c-alarms-rs-1-status"), {
      alarmDescription: "rs-1 fails AWS's status checks: the machine or its host is ill",
      namespace: "AWS/EC2",
      metricName: "StatusCheckFailed",
      dimensions: { InstanceId: "c-rs-1-instance.Instance" },
      statistic: "Maximum",
      period: 60,
      evaluationPeriods: 3,
      comparisonOperator: "GreaterThanThreshold",
      threshold: 0,
      treatMissingData: "breaching",
      alarmActions: ["arn:aws:made-up:::c-alarms-topic"],
      okActions: ["arn:aws:made-up:::c-alarms-topic"],
    });
    const { protocol, endpoint } = named(
      registered,
      "aws:sns/topicSubscription:TopicSubscription",
      "c-alarms-ops@example.org",
    );
    assert.deepEqual([protocol, endpoint], ["email", "ops@example.org"]);
  });

  it("tell them of directors whose packets are held back, by what these send themselves", async () => {
    const { registered } = await deploy(rawAws({ alarms }));
    const allowances = registered.filter(({ type, name }) => type === ALARM && name.endsWith("-allowance"));
    assert.deepEqual(
      allowances.map(({ name }) => name),
      ["c-alarms-director-1-allowance", "c-alarms-director-2-allowance"],
    );
    const { namespace, metricName, dimensions, statistic, threshold, treatMissingData } =
      allowances[0]?.inputs ?? {};
    assert.deepEqual(
      { namespace, metricName, dimensions, statistic, threshold, treatMissingData },
      {
        namespace: "cosyvoice-lvs",
        metricName: "NetworkAllowanceExceeded",
        dimensions: { InstanceId: "c-director-1-instance.Instance" },
        statistic: "Sum",
        threshold: 100,
        treatMissingData: "missing",
      },
    );
    assert.deepEqual(policyOf(registered, "c-alarms-metric"), {
      Version: "2012-10-17",
      Statement: [
        {
          Sid: "SendNumbers",
          Effect: "Allow",
          Action: "cloudwatch:PutMetricData",
          Resource: "*",
          Condition: { StringEquals: { "cloudwatch:namespace": "cosyvoice-lvs" } },
        },
      ],
    });
    assert.equal(
      named(registered, "aws:iam/rolePolicy:RolePolicy", "c-alarms-metric").role,
      "c-directors.Role",
    );
  });

  it("have directors send, and nobody else, and nobody without alarms", async () => {
    const units = async (raw: Record<string, unknown>) => {
      const registered = await deployCluster(raw);
      return Object.keys(manifest(registered, "c-director-1-director").units ?? {});
    };
    assert.ok((await units(rawAws({ alarms }))).includes("cosyvoice-allowances.service"));
    assert.ok(!(await units(rawAws())).includes("cosyvoice-allowances.service"));
  });
});
