/**
 * Monitoring without machines: the real Prometheus, Alertmanager, prober and node exporters with the texts that the machines
 * get, each at an address of this computer's loopback, around one real speech service. keepalived's and IPVS's readings are
 * made up here: they have their own tests, and the lab.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { passwordHash } from "../../components/passwordHash";
import { PROBER_PORT, RELAY_PORT } from "../../config/ports";
import type { ClusterConfig, MonitoringConfig } from "../../config/schema";
import { freePortFrom } from "../../lab/ports";
import {
  renderAlertmanagerConfig,
  renderAlertRules,
  renderProberConfig,
  renderPrometheusConfig,
  renderSentenceConfig,
  renderWebConfig,
} from "../../render";
import { DOOR_STATUS } from "../../render/frontDoor";
import { repository } from "../../scripts/lib/paths";
import { rawCluster } from "../unit/config-fixture";
import { startFrontDoor, stopFrontDoor } from "../unit/front-door-fixture";
import { monitored } from "../unit/monitoring-fixture";

/** One call of Alertmanager's. */
export interface Message {
  readonly receiver: string;
  readonly status: "firing" | "resolved";
  readonly alerts: readonly {
    readonly status: "firing" | "resolved";
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  }[];
}

/** Debian keeps its programs of this kind in /usr/bin; which package brings each. */
const packages: Readonly<Record<string, string>> = {
  prometheus: "prometheus",
  "prometheus-alertmanager": "prometheus-alertmanager",
  "prometheus-blackbox-exporter": "prometheus-blackbox-exporter",
  "prometheus-node-exporter": "prometheus-node-exporter",
};

const PASSWORD = "made-up-password";

/** How one who may is let in. */
const admin = { authorization: `Basic ${Buffer.from(`admin:${PASSWORD}`).toString("base64")}` };

export class World {
  readonly folder = mkdtempSync(join(tmpdir(), "watched-"));
  /** What the webhook got, oldest first. */
  readonly messages: Message[] = [];
  /** What the robot got. */
  readonly robot: { readonly msgtype: string; readonly markdown: { readonly content: string } }[] = [];
  config!: ClusterConfig & { readonly monitoring: MonitoringConfig };
  private readonly running = new Map<string, ChildProcess>();
  private readonly servers: Server[] = [];
  /** What writes the made-up readings of a machine. */
  private readonly readers = new Map<string, () => void>();
  private freshness: NodeJS.Timeout | undefined;
  private ports!: {
    readonly service: number;
    readonly node: number;
    readonly prometheus: number;
    readonly alertmanager: number;
  };

  /** Starts everything, with looks every second. */
  async start(): Promise<void> {
    // Also a run that is interrupted leaves nothing behind.
    process.once("exit", () => {
      for (const child of this.running.values()) child.kill("SIGKILL");
    });
    const port = async (from: number) => freePortFrom(from);
    const hook = await this.listen((body) => this.messages.push(body as Message));
    const robot = await this.listen((body) => this.robot.push(body as (typeof this.robot)[number]));
    const [service, node, prometheus, alertmanager, prober, relay] = [
      await port(27860),
      await port(29100),
      await port(29090),
      await port(29193),
      await port(29115),
      await port(29296),
    ];
    this.ports = { service, node, prometheus, alertmanager };
    this.config = monitored(
      {
        metrics: { interval: 5 },
        ports: { prometheus, alertmanager, nodeExporter: node },
        receivers: [
          { name: "hook", kind: "webhook", url: `http://127.0.0.1:${hook}/` },
          { name: "group", kind: "wecom" },
        ],
        routing: { critical: ["hook", "group"], warning: ["hook"], watchdog: ["hook"] },
      },
      {
        port: service,
        realServers: rawCluster().realServers.slice(0, 1),
        receiverSecrets: { group: "https://example.org/made-up" },
        monitoringPassword: PASSWORD,
      },
    );
    // The machines' addresses become addresses of this computer; what waits for minutes on machines waits for nothing here.
    const here = (text: string) =>
      text
        .replaceAll("192.168.1.", "127.0.1.")
        .replaceAll(`127.0.0.1:${PROBER_PORT}`, `127.0.0.1:${prober}`)
        .replaceAll(`127.0.0.1:${RELAY_PORT}`, `127.0.0.1:${relay}`)
        .replaceAll("/etc/cosyvoice-lvs/alerts/*", join(this.folder, "alerts*"))
        .replaceAll("/etc/cosyvoice-lvs/watch/", `${this.folder}/`)
        .replace(/(scrape_interval|scrape_timeout|evaluation_interval): \d+s/g, "$1: 1s")
        .replace(/group_wait: 15s/g, "group_wait: 3s")
        .replace(/group_interval: 1m/g, "group_interval: 1s")
        .replace(/for: \d+[sm]/g, "for: 2s")
        .replace(/(alertstate="firing"\})\[\d+m\]/g, "$1[10s]");
    this.write("alerts.yml", here(renderAlertRules(this.config)));
    this.write("prometheus.yml", here(renderPrometheusConfig(this.config)));
    this.write("alertmanager.yml", here(renderAlertmanagerConfig(this.config)));
    this.write("prober.yml", renderProberConfig(this.config));
    this.write("password", PASSWORD);
    this.write("web.yml", renderWebConfig(passwordHash(PASSWORD, "made-up")));
    this.write("receivers_group", `http://127.0.0.1:${robot}/`);

    this.run("relay", "/usr/bin/python3", ["-IS", join(repository, "host/alert-relay.py"), String(relay)], {
      CREDENTIALS_DIRECTORY: this.folder,
    });
    this.run("alertmanager", "prometheus-alertmanager", [
      `--config.file=${this.file("alertmanager.yml")}`,
      `--storage.path=${this.file("alertmanager")}`,
      "--cluster.listen-address=",
      `--web.listen-address=127.0.0.1:${alertmanager}`,
      `--web.config.file=${this.file("web.yml")}`,
    ]);
    this.run("prober", "prometheus-blackbox-exporter", [
      `--config.file=${this.file("prober.yml")}`,
      `--web.listen-address=127.0.0.1:${prober}`,
    ]);
    for (const { name, address } of [
      ...this.config.directors,
      ...this.config.realServers,
      { name: "storage", address: "192.168.1.20" },
      this.config.monitoring,
    ]) {
      mkdirSync(this.file(name));
      this.nodeExporter(name, here(address));
    }
    this.startService();
    this.run("prometheus", "prometheus", [
      `--config.file=${this.file("prometheus.yml")}`,
      `--storage.tsdb.path=${this.file("tsdb")}`,
      `--web.listen-address=127.0.0.1:${prometheus}`,
      `--web.config.file=${this.file("web.yml")}`,
    ]);
    for (const director of this.config.directors) this.readings(director.name, {});
    this.sentence(1);
    this.gpu();
    await this.door();
    // Real readings are written again and again, and their counters go on.
    this.freshness = setInterval(() => {
      for (const write of this.readers.values()) write();
    }, 2000);
    await this.until("the service is ready", 120, async () => this.answers(`127.0.1.101:${service}/readyz`));
    await this.until("Prometheus is ready", 60, async () => this.answers(`127.0.0.1:${prometheus}/-/ready`));
  }

  nodeExporter(name: string, address: string): void {
    this.run(name, "prometheus-node-exporter", [
      "--collector.disable-defaults",
      ...[
        "cpu",
        "filesystem",
        "loadavg",
        "meminfo",
        "netdev",
        "stat",
        "time",
        "uname",
        "vmstat",
        "diskstats",
      ].map((collector) => `--collector.${collector}`),
      "--collector.textfile",
      `--collector.textfile.directory=${this.file(name)}`,
      "--web.disable-exporter-metrics",
      `--web.listen-address=${address}:${this.ports.node}`,
    ]);
  }

  /** The real service, with espeak-ng; it answers at every address of the loopback, so also at the VIP. */
  startService(): void {
    mkdirSync(this.file("outputs"), { recursive: true });
    const app = join(repository, "app");
    const flags = ["--host", "0.0.0.0", "--port", String(this.ports.service), "--enable-queue"];
    this.run("service", join(app, "test"), ["--python", join(app, "app.py"), ...flags], {
      COSYVOICE_NODE: "rs-1",
      COSYVOICE_OUTPUTS: this.file("outputs"),
      COSYVOICE_DRAIN_DELAY: "0.2",
      GRADIO_TEMP_DIR: this.file("uploads"),
    });
  }

  /** Made-up readings of a director: it holds the VIP or not, and sends to rs-1 with a weight. */
  readings(director: string, { held = director === "director-1", weight = 1, keepalived = 1 }): void {
    const backend = 'remote_address="192.168.1.101",remote_port="7860"';
    this.reader(director, "director", () => [
      `lvs_vip_held ${Number(held)}`,
      "lvs_expected_real_servers 1",
      'lvs_real_server_info{server="rs-1",remote_address="192.168.1.101"} 1',
      `node_ipvs_backend_weight{${backend}} ${weight}`,
      `node_ipvs_backend_connections_active{${backend}} 3`,
      `node_ipvs_backend_connections_inactive{${backend}} 1`,
      "node_ipvs_connections_total 100",
      `keepalived_up ${keepalived}`,
      `keepalived_vrrp_state{iname="cosyvoice"} ${held ? 2 : 1}`,
      'keepalived_become_master_total{iname="cosyvoice"} 1',
      "lvs_vip_taken_total 0",
      `keepalived_advertisements_received_total{iname="cosyvoice"} ${Date.now()}`,
      `keepalived_advertisements_sent_total{iname="cosyvoice"} ${Date.now()}`,
      'lvs_unit_active{unit="keepalived.service"} 1',
      'lvs_unit_restarts_total{unit="keepalived.service"} 0',
    ]);
  }

  /** A made-up reading of the sentence through the VIP. */
  sentence(success: 0 | 1): void {
    this.reader("monitor", "sentence", () => [
      `tts_probe_success ${success}`,
      "tts_probe_duration_seconds 0.5",
      `tts_probe_timestamp_seconds ${Date.now() / 1000}`,
    ]);
  }

  /** What the real program says of a sentence that it asks of the real service, in the place of the VIP. */
  askSentence(): string {
    const programs = this.file("programs");
    mkdirSync(programs);
    for (const name of ["exporter", "verify"])
      copyFileSync(join(repository, `host/${name}.py`), join(programs, name));
    const config = renderSentenceConfig(this.config).replaceAll("192.168.1.", "127.0.1.");
    const program = [
      "import json, runpy, sys",
      "exporter = runpy.run_path(sys.argv[1] + '/exporter', run_name='x')",
      "exporter['Sentence'].read.__globals__['__file__'] = sys.argv[1] + '/exporter'",
      "print(exporter['Sentence'](json.loads(sys.argv[2])).read(), end='')",
    ].join("\n");
    return execFileSync("/usr/bin/python3", ["-IS", "-c", program, programs, config], { encoding: "utf8" });
  }

  /** What the real program makes of a made-up nvidia-smi: no GPU is behind it. */
  private gpu(): void {
    mkdirSync(this.file("bin"));
    const card =
      "GPU-AAAA0000, 00000000:01:00.0, 0, Made-up GPU, 999.99, 42, 7, 1024, 4096, 61, 123.50, 300.00";
    writeFileSync(this.file("bin/nvidia-smi"), `#!/bin/sh\necho "${card}"\n`, { mode: 0o755 });
    this.realServer("gpu", "Gpu", "/nowhere");
  }

  /** What the real program makes of a real nginx. */
  private async door(): Promise<void> {
    mkdirSync(this.file("front-door"));
    const door = await startFrontDoor(this.file("front-door"));
    try {
      this.realServer("door", "Door", `http://127.0.0.1:${door.health}${DOOR_STATUS}`);
    } finally {
      await stopFrontDoor(door);
    }
  }

  /** Has one of the real program's readers read once for the real server. */
  private realServer(name: string, reader: string, argument: string): void {
    const program = [
      "import runpy, sys",
      "exporter = runpy.run_path(sys.argv[1], run_name='x')",
      "print(exporter[sys.argv[2]](sys.argv[3]).read(), end='')",
    ].join("\n");
    const text = execFileSync(
      "/usr/bin/python3",
      ["-IS", "-c", program, join(repository, "host/exporter.py"), reader, argument],
      {
        encoding: "utf8",
        env: { ...process.env, PATH: `${this.file("bin")}:${process.env.PATH}` },
      },
    );
    this.reader("rs-1", name, () => [text.trimEnd()]);
  }

  private reader(machine: string, name: string, lines: () => readonly string[]): void {
    const file = `${machine}/${name}.prom`;
    const write = () => this.write(file, `${lines().join("\n")}\n`);
    this.readers.set(file, write);
    write();
  }

  /** The values of a query, by their labels. */
  async query(expr: string): Promise<{ labels: Record<string, string>; value: number }[]> {
    const url = `http://127.0.0.1:${this.ports.prometheus}/api/v1/query?query=${encodeURIComponent(expr)}`;
    const answer = (await (await fetch(url, { headers: admin })).json()) as {
      status: string;
      error?: string;
      data: { result: { metric: Record<string, string>; value: [number, string] }[] };
    };
    if (answer.status !== "success") throw new Error(`${expr}: ${answer.error}`);
    return answer.data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** What Prometheus and Alertmanager answer to somebody: HTTP statuses. */
  async letIn(headers: Record<string, string>): Promise<number[]> {
    const { prometheus, alertmanager } = this.ports;
    const answers = [prometheus, alertmanager].map(async (port) => {
      const answer = await fetch(`http://127.0.0.1:${port}/-/ready`, { headers });
      return answer.status;
    });
    return Promise.all(answers);
  }

  /** Names of all metrics that were ever seen. */
  async names(): Promise<ReadonlySet<string>> {
    const url = `http://127.0.0.1:${this.ports.prometheus}/api/v1/label/__name__/values`;
    const { data } = (await (await fetch(url, { headers: admin })).json()) as { data: string[] };
    return new Set(data);
  }

  /** Messages about an alert that came since a moment, as the webhook got them. */
  about(alertname: string, since = 0, status = "firing"): Message["alerts"] {
    return this.messages
      .slice(since)
      .flatMap(({ alerts }) => alerts)
      .filter((alert) => alert.labels.alertname === alertname && alert.status === status);
  }

  /** Ends a program, as a machine that dies would. */
  async kill(name: string): Promise<void> {
    const process = this.running.get(name);
    if (process === undefined) throw new Error(`${name} does not run`);
    this.running.delete(name);
    const ended = new Promise((resolve) => process.once("exit", resolve));
    process.kill("SIGKILL");
    await ended;
  }

  async stop(): Promise<void> {
    clearInterval(this.freshness);
    for (const name of [...this.running.keys()]) await this.kill(name);
    for (const server of this.servers) server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** @throws with what was waited for, and what the programs said last. */
  async until(what: string, seconds: number, test: () => boolean | Promise<boolean>): Promise<void> {
    for (const end = Date.now() + seconds * 1000; !(await test()); await sleep(250)) {
      if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}\n${this.logs()}`);
    }
  }

  write(name: string, text: string): void {
    writeFileSync(`${this.file(name)}.new`, text);
    renameSync(`${this.file(name)}.new`, this.file(name));
  }

  file(name: string): string {
    return join(this.folder, name);
  }

  private logs(): string {
    return [...this.running.keys()]
      .map((name) => `--- ${name}\n${readFileSync(this.file(`${name}.log`), "utf8").slice(-600)}`)
      .join("\n");
  }

  private run(name: string, program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
    const log = openSync(this.file(`${name}.log`), "w");
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", log, log] });
    closeSync(log);
    child.on("error", (error) => {
      const hint = packages[program] === undefined ? "" : `: apt-get install ${packages[program]}`;
      writeFileSync(this.file(`${name}.log`), `cannot run ${program} (${error.message})${hint}\n`);
    });
    this.running.set(name, child);
  }

  private async answers(address: string): Promise<boolean> {
    const answer = await fetch(`http://${address}`, { headers: admin }).catch(() => undefined);
    return answer?.ok === true;
  }

  /** A receiver: its port. Answers as a robot does, which a webhook may as well. */
  private async listen(got: (body: unknown) => void): Promise<number> {
    const server = createServer(async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      got(JSON.parse(text));
      response.end('{"errcode": 0, "errmsg": "ok"}');
    });
    this.servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return address.port;
  }
}
