import assert from "node:assert/strict";
import { formatProblems, parseConfig, rawFromStack } from "../../config/load";
import { watchedMachines } from "../../config/schema";
import { cluster, madeUpHostKey, problemsOf, type RawOverrides, rawCluster } from "./config-fixture";
import { monitor, monitored } from "./monitoring-fixture";

/** {@link monitor} with keys replaced, and what else a test changes. */
function withMonitoring(keys: RawOverrides, others: RawOverrides = {}): RawOverrides {
  return { ...rawCluster(), ...others, monitoring: { ...monitor(), ...keys } };
}

const hook = { name: "hook", kind: "webhook", url: "http://192.168.1.50:8000/alerts" };
const mail = {
  name: "mail",
  kind: "email",
  to: "ops@example.org",
  from: "lvs@example.org",
  server: "mail:25",
};

const badInputs: readonly [mistake: string, raw: RawOverrides, path: string, message: RegExp, fix: RegExp][] =
  [
    [
      "no machine to watch from",
      { ...rawCluster(), monitoring: { address: "192.168.1.30", hostKey: madeUpHostKey("m") } },
      "monitoring.name",
      /^is missing$/,
      /a machine with no other role/,
    ],
    [
      "a machine that watches itself",
      withMonitoring({ address: "192.168.1.20" }),
      "monitoring.address",
      /^is the address of storage \(storage\) as well$/,
      /one machine has one role/,
    ],
    [
      "no host key",
      withMonitoring({ hostKey: undefined }),
      "monitoring.hostKey",
      /^is missing: nothing would tell monitor \(monitoring\) from an impostor$/,
      /ssh_host_ed25519_key.pub/,
    ],
    [
      "everybody as the admins' network",
      withMonitoring({ adminNetworks: ["0.0.0.0/0"] }),
      "monitoring.adminNetworks[0]",
      /^is not a network such as 192\.168\.1\.0\/24/,
      /192\.168\.1\.7\/32/,
    ],
    [
      "two things on one port",
      withMonitoring({ ports: { alertmanager: 9090 } }),
      "monitoring.ports.alertmanager",
      /^is the port of prometheus$/,
      /port of its own/,
    ],
    [
      "the exporters on the service's port",
      withMonitoring({ ports: { nodeExporter: 7860 } }),
      "monitoring.ports.nodeExporter",
      /^is the port of the service$/,
      /9100/,
    ],
    [
      "a receiver that nobody knows",
      withMonitoring({ receivers: [hook], routing: { critical: ["hok"] } }),
      "monitoring.routing.critical[0]",
      /^is not the name of a receiver: there are hook$/,
      /add this one to monitoring\.receivers/,
    ],
    [
      "a receiver that receives no alerts",
      withMonitoring({ receivers: [hook, mail], routing: { critical: ["hook"], warning: ["hook"] } }),
      "monitoring.receivers[1].name",
      /^receives no alerts$/,
      /monitoring\.routing/,
    ],
    [
      "two receivers of one name",
      withMonitoring({ receivers: [hook, { ...hook, url: "http://b.example.org" }] }),
      "monitoring.receivers[1].name",
      /^is the name of another receiver as well$/,
      /name of its own/,
    ],
    [
      "a kind of receiver that there is not",
      withMonitoring({ receivers: [{ ...hook, kind: "pager" }] }),
      "monitoring.receivers[0].kind",
      /^is not one of webhook, email, slack, dingtalk, wecom$/,
      /^write one of/,
    ],
    ...(["hooks.example.org/x", "https:/example.org", "ftp://example.org/x", "http://"] as const).map(
      (url) =>
        [
          `the broken URL ${url}`,
          withMonitoring({ receivers: [{ ...hook, url }] }),
          "monitoring.receivers[0].url",
          /^is not a URL that starts with http:\/\/ or https:\/\/$/,
          /https:\/\/alerts/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    [
      "a URL whose host is lost on all but Node",
      withMonitoring({ receivers: [{ ...hook, url: "http:///example.org/" }] }),
      "monitoring.receivers[0].url",
      /^has no host name or address after \/\/$/,
      /https:/,
    ],
    ...["http://example.org/{x}", "http://例.example.org/", "http://example.org/%zz"].map(
      (url) =>
        [
          `a URL that none is, ${url}`,
          withMonitoring({ receivers: [{ ...hook, url }] }),
          "monitoring.receivers[0].url",
          /^has a character that a URL may contain only as % and two hexadecimal digits$/,
          /https:/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    ...["{{ .Status }}@example.org", "a..b@example.org", "ops@example..org", "ops@a@example.org"].map(
      (to) =>
        [
          `the e-mail address ${to}`,
          withMonitoring({ receivers: [{ ...mail, to }] }),
          "monitoring.receivers[0].to",
          /^is not one e-mail address such as ops@example\.org, without blanks, quotes and braces$/,
          /^write one e-mail address/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    ...["mail:99999", "mail:0", "a..b:25", "mail"].map(
      (server) =>
        [
          `the SMTP server ${server}`,
          withMonitoring({ receivers: [{ ...mail, server }] }),
          "monitoring.receivers[0].server",
          /^is not an SMTP server as "host:port"/,
          /^write an SMTP server/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    ...["a\u2028b", "a\ufeffb", "a\uffff", "a\ud800b"].map(
      (user) =>
        [
          `the user ${JSON.stringify(user)}`,
          withMonitoring({ receivers: [{ ...mail, user }] }, { receiverSecrets: { mail: "planted" } }),
          "monitoring.receivers[0].user",
          /^is not a text of 1 to 200 characters on one line$/,
          /on one line$/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    [
      "a URL with a quote in it",
      withMonitoring({ receivers: [{ ...hook, url: 'http://example.org/"x' }] }),
      "monitoring.receivers[0].url",
      /^has blanks, quotes or backslashes$/,
      /https:/,
    ],
    [
      "a mail without its server",
      withMonitoring({ receivers: [{ ...mail, server: undefined }] }),
      "monitoring.receivers[0].server",
      /^is missing, but a receiver of kind email needs it$/,
      /write it/,
    ],
    [
      "a robot's URL for all to read",
      withMonitoring(
        { receivers: [{ name: "robot", kind: "wecom", url: "https://example.org/?key=1" }] },
        { receiverSecrets: { robot: "https://example.org/?key=1" } },
      ),
      "monitoring.receivers[0].url",
      /^does nothing for a receiver of kind wecom$/,
      /--secret --path receiverSecrets\.robot URL/,
    ],
    [
      "a robot without its URL",
      withMonitoring({ receivers: [{ name: "robot", kind: "dingtalk" }] }),
      "receiverSecrets.robot",
      /^is not set, but the receiver robot \(dingtalk\) needs it$/,
      /--path receiverSecrets\.robot URL/,
    ],
    [
      "a robot's URL without encryption",
      withMonitoring(
        { receivers: [{ name: "robot", kind: "slack" }] },
        { receiverSecrets: { robot: "http://example.org/planted" } },
      ),
      "receiverSecrets.robot",
      /^is not a URL that starts with https:\/\/ \(its text is not shown\)$/,
      /URL$/,
    ],
    [
      "a user without a password",
      withMonitoring({ receivers: [{ ...mail, user: "lvs" }] }),
      "receiverSecrets.mail",
      /^is not set, but the receiver mail \(email\) needs it$/,
      /PASSWORD$/,
    ],
    [
      "a secret of nobody",
      withMonitoring({ receivers: [hook] }, { receiverSecrets: { other: "https://example.org/planted" } }),
      "receiverSecrets.other",
      /^is not the secret of any receiver$/,
      /config rm --path receiverSecrets\.other/,
    ],
    [
      "secrets that are one text",
      withMonitoring({ receivers: [hook] }, { receiverSecrets: "https://example.org/planted" }),
      "receiverSecrets",
      /^does not have one value for each receiver$/,
      /--path receiverSecrets\.NAME/,
    ],
    [
      "secrets without monitoring",
      { ...rawCluster(), receiverSecrets: { hook: "https://example.org/planted" } },
      "receiverSecrets",
      /^is set, but there is no section monitoring$/,
      /config rm receiverSecrets/,
    ],
    [
      "a retention beyond the disk",
      withMonitoring({ metrics: { retention: 365, disk: 5 } }),
      "monitoring.metrics.retention",
      /^of 365 days takes about \d+ GB with 3 real servers, but monitoring\.metrics\.disk is 5 GB$/,
      /^set metrics\.disk to \d+, or retention to at most \d+$/,
    ],
    [
      "logs for longer than the disk holds",
      withMonitoring({ logs: { enabled: true, retention: 3650 } }),
      "monitoring.logs.retention",
      /^of 3650 days takes about \d+ GB with 3 real servers, but monitoring\.logs\.disk is 10 GB$/,
      /^set logs\.disk to \d+, or retention to at most \d+$/,
    ],
    [
      "Loki on Grafana's port",
      withMonitoring({ ports: { loki: 3000 } }),
      "monitoring.ports.loki",
      /^is the port of grafana$/,
      /port of its own/,
    ],
    [
      "the collectors on the service's port",
      withMonitoring({ ports: { collector: 7860 } }),
      "monitoring.ports.collector",
      /^is the port of the service$/,
      /8888/,
    ],
    ...[
      [443, "of HTTPS"],
      [80, "from which clients are sent to HTTPS"],
      [7862, "on which nginx answers the directors' health checks"],
    ].map(
      ([collector, whose]) =>
        [
          `the collectors on the port ${whose}`,
          withMonitoring(
            { ports: { collector } },
            { https: { enabled: true, serverName: "a.example.org" }, tlsCertificate: true, tlsKey: true },
          ),
          "monitoring.ports.collector",
          new RegExp(`^is the port ${whose}$`),
          /8888/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    [
      "the exporters on the port of one machine's SSH",
      withMonitoring(
        { ports: { nodeExporter: 2222 } },
        { storage: { ...rawCluster().storage, ssh: { port: 2222 } } },
      ),
      "monitoring.ports.nodeExporter",
      /^is the port of SSH on storage \(storage\)$/,
      /9100/,
    ],
    [
      "a robot's secret in two words",
      withMonitoring(
        { receivers: [{ name: "robot", kind: "dingtalk" }] },
        { receiverSecrets: { robot: "https://example.org/planted SEC\tplanted" } },
      ),
      "receiverSecrets.robot",
      /^has blanks, which a URL cannot contain$/,
      /URL$/,
    ],
    [
      "Grafana without a password",
      withMonitoring({ grafana: { enabled: true } }),
      "monitoringPassword",
      /^is not set, but monitoring\.grafana\.enabled is true$/,
      /openssl rand -hex 16 \| pulumi config set --secret monitoringPassword$/,
    ],
    ...(["planted", "planted with blanks", 'planted"planted"', "planted".repeat(11)] as const).map(
      (monitoringPassword) =>
        [
          `the password ${monitoringPassword}`,
          withMonitoring({}, { monitoringPassword }),
          "monitoringPassword",
          /^is not 12 to 72 letters, digits or \. _ \+ \/ = -$/,
          /openssl rand/,
        ] as [string, RawOverrides, string, RegExp, RegExp],
    ),
    [
      "a password without monitoring",
      { ...rawCluster(), monitoringPassword: "planted-and-long" },
      "monitoringPassword",
      /^is set, but there is no section monitoring$/,
      /config rm monitoringPassword/,
    ],
    [
      "a program from nowhere",
      withMonitoring({ programs: { loki: { url: "loki.zip" } } }),
      "monitoring.programs.loki.url",
      /^is not an address that starts with https:\/\/ or http:\/\/, without/,
      /https:/,
    ],
    [
      "a program's address that a shell would take for more",
      withMonitoring({ programs: { loki: { url: "https://example.org/';reboot;'" } } }),
      "monitoring.programs.loki.url",
      /without blanks, quotes/,
      /https:/,
    ],
    [
      "a checksum that is none",
      withMonitoring({ programs: { grafana: { sha256: "A1" } } }),
      "monitoring.programs.grafana.sha256",
      /^is not 64 hexadecimal digits/,
      /sha256sum/,
    ],
  ];

describe("bad configurations of monitoring", () => {
  for (const [mistake, raw, path, message, fix] of badInputs) {
    it(mistake, () => {
      const problems = problemsOf(raw);
      assert.deepEqual(
        problems.map((problem) => problem.path),
        [path],
      );
      assert.match(problems[0]?.message ?? "", message);
      assert.match(problems[0]?.fix ?? "", fix);
      assert.doesNotMatch(formatProblems(problems), /planted/);
    });
  }

  it("names a retention that would fit, and it does", () => {
    const metrics = { retention: 365, disk: 5 };
    const days = /at most (\d+)/.exec(problemsOf(withMonitoring({ metrics }))[0]?.fix ?? "")?.[1];
    assert.ok(days);
    assert.ok(parseConfig(withMonitoring({ metrics: { ...metrics, retention: Number(days) } })).ok);
    assert.ok(!parseConfig(withMonitoring({ metrics: { ...metrics, retention: Number(days) + 1 } })).ok);
  });

  it("comes all at once", () => {
    const raw = withMonitoring({
      address: "192.168.1.100",
      receivers: [{ ...hook, url: "nonsense" }],
      routing: { critical: ["nobody"] },
      metrics: { interval: 1 },
    });
    assert.deepEqual(
      problemsOf(raw).map(({ path }) => path),
      [
        "monitoring.metrics.interval",
        "monitoring.address",
        "monitoring.receivers[0].url",
        "monitoring.routing.critical[0]",
      ],
    );
  });
});

describe("good configurations of monitoring", () => {
  it("fill in what is left out", () => {
    const { monitoring } = monitored();
    assert.deepEqual(monitoring, {
      name: "monitor",
      role: "monitor",
      address: "192.168.1.30",
      hostKey: madeUpHostKey("monitor"),
      ssh: { user: "root", port: 22 },
      adminNetworks: [],
      metrics: { interval: 15, retention: 30, disk: 10 },
      logs: { enabled: false, retention: 14, disk: 10 },
      grafana: { enabled: false },
      programs: monitoring.programs,
      ports: {
        prometheus: 9090,
        alertmanager: 9093,
        nodeExporter: 9100,
        grafana: 3000,
        loki: 3100,
        collector: 8888,
      },
      receivers: [],
      routing: { critical: [], warning: [], watchdog: [] },
    });
  });

  it("tell everybody of everything but the watchdog, when nothing is said", () => {
    const { routing } = monitored({ receivers: [hook, mail] }).monitoring;
    assert.deepEqual(routing, { critical: ["hook", "mail"], warning: ["hook", "mail"], watchdog: [] });
  });

  it("fetch what is in no package from its vendors, by its checksum, or from where they are told", () => {
    const { programs } = monitored({
      programs: { loki: { url: "http://192.168.1.9/loki.zip" } },
    }).monitoring;
    for (const { url, sha256 } of Object.values(programs)) {
      assert.match(url, /^https?:\/\//);
      assert.match(sha256, /^[0-9a-f]{64}$/);
    }
    assert.equal(programs.loki.url, "http://192.168.1.9/loki.zip");
    assert.equal(programs.loki.sha256, monitored().monitoring.programs.loki.sha256);
  });

  it("watch nothing without the section, or when it is switched off", () => {
    assert.equal(cluster().monitoring, undefined);
    assert.equal(cluster({ monitoring: { enabled: false } }).monitoring, undefined);
    assert.equal(cluster({ monitoring: { ...monitor(), enabled: false } }).monitoring, undefined);
  });

  it("watch every machine but the client", () => {
    const client = { name: "client", address: "192.168.1.50", hostKey: madeUpHostKey("client") };
    const config = cluster({ verification: { client }, monitoring: monitor() });
    assert.deepEqual(
      watchedMachines(config).map(({ name }) => name),
      ["director-1", "director-2", "rs-1", "rs-2", "rs-3", "storage", "monitor"],
    );
  });

  it("keep the receivers' secrets out of what is made of them", () => {
    const receiverSecrets = {
      robot: "https://example.org/robot/send?access_token=planted SECplanted",
      hook: "https://example.org/planted",
      mail: "planted password",
    };
    const receivers = [
      { name: "robot", kind: "dingtalk" },
      { name: "hook", kind: "webhook" },
      { ...mail, user: "lvs" },
    ];
    const raw = rawFromStack({
      ...Object.fromEntries(
        Object.entries({ ...rawCluster(), monitoring: { ...monitor(), receivers } }).map(([key, value]) => [
          `cosyvoice-lvs:${key}`,
          typeof value === "string" ? value : JSON.stringify(value),
        ]),
      ),
      "cosyvoice-lvs:receiverSecrets": JSON.stringify(receiverSecrets),
    });
    const result = parseConfig(raw);
    assert.ok(result.ok, JSON.stringify(!result.ok && result.problems));
    assert.doesNotMatch(JSON.stringify(result.config), /planted/);
  });
});
