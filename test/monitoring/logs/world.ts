/**
 * Logs without machines: the real collector and the real Loki with the texts that the machines get, at addresses of this
 * computer's loopback. What is shipped is what two real speech services and an nginx write, and journals of systemd's own making.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LOKI_INNER_PORT } from "../../../config/ports";
import type { MachineConfig } from "../../../config/schema";
import { freePortFrom } from "../../../lab/ports";
import { renderCollectorConfig, renderLokiConfig } from "../../../render";
import { repository } from "../../../scripts/lib/paths";
import { type LogPrograms, logPrograms } from "../../../scripts/toolchain/logPrograms";
import { rawCluster } from "../../unit/config-fixture";
import { type FrontDoor, startFrontDoor } from "../../unit/front-door-fixture";
import { monitored } from "../../unit/monitoring-fixture";

const JOURNAL_REMOTE = "/lib/systemd/systemd-journal-remote";

/** A line of a log, as Loki has it: its labels and what is beside it. */
export interface Line {
  readonly labels: Readonly<Record<string, string>>;
  readonly text: string;
}

export class LogWorld {
  readonly folder = mkdtempSync(join(tmpdir(), "logs-"));
  readonly config = monitored(
    { logs: { enabled: true } },
    { realServers: rawCluster().realServers.slice(0, 2) },
  );
  programs!: LogPrograms;
  private readonly running = new Map<string, ChildProcess>();
  private ports!: {
    readonly loki: number;
    readonly inner: number;
    readonly service: number;
    readonly telemetry: number;
  };

  async start(): Promise<void> {
    // Also a run that is interrupted leaves nothing behind.
    process.once("exit", () => {
      for (const [name, child] of this.running) child.kill(name === "nginx" ? "SIGTERM" : "SIGKILL");
    });
    this.programs = await logPrograms((line) => console.log(`      ${line}`));
    this.ports = {
      loki: await freePortFrom(23100),
      inner: await freePortFrom(29095),
      service: await freePortFrom(27860),
      telemetry: await freePortFrom(28888),
    };
    mkdirSync(this.file("outputs"));
    this.startLoki();
    for (const server of this.config.realServers) this.startService(server);
    await this.until("Loki is ready", 120, () => this.answers(`127.0.1.30:${this.ports.loki}/ready`));
    for (const server of this.config.realServers)
      await this.until(`${server.name} is ready`, 120, () => this.answers(`${this.service(server)}/readyz`));
  }

  /** The texts of the machines, with what is here in place of what is there. */
  private here(text: string, machine: string): string {
    return text
      .replaceAll("192.168.1.", "127.0.1.")
      .replaceAll("/var/lib/cosyvoice-logs", this.file(`${machine}-state`))
      .replaceAll("/var/lib/cosyvoice-loki", this.file("loki"))
      .replaceAll("/root/CosyVoice/outputs", this.file("outputs"))
      .replaceAll(":3100", `:${this.ports.loki}`)
      .replaceAll("http_listen_port: 3100", `http_listen_port: ${this.ports.loki}`)
      .replaceAll(`port: ${LOKI_INNER_PORT}`, `port: ${this.ports.inner}`)
      .replaceAll("port: 8888", `port: ${this.ports.telemetry}`)
      .replaceAll(
        "journald:\n    start_at: end",
        `journald:\n    directory: ${this.file(`${machine}-journal`)}\n    start_at: beginning`,
      );
  }

  startLoki(): void {
    writeFileSync(this.file("loki.yml"), this.here(renderLokiConfig(this.config), "monitor"));
    this.run("loki", this.programs.loki, [`-config.file=${this.file("loki.yml")}`]);
  }

  /** Starts the collector of a machine, over a journal of its own. */
  startCollector(machine: MachineConfig, journal: readonly Record<string, string>[]): void {
    const { name } = machine;
    mkdirSync(this.file(`${name}-state`), { recursive: true });
    this.says(name, journal);
    writeFileSync(this.file(`${name}.yml`), this.here(renderCollectorConfig(this.config, machine), name));
    this.run(`${name}-collector`, this.programs.collector, [`--config=${this.file(`${name}.yml`)}`]);
  }

  /** What the program says of a machine's configuration. */
  validate(machine: MachineConfig, change = (text: string) => text) {
    writeFileSync(
      this.file("check.yml"),
      change(this.here(renderCollectorConfig(this.config, machine), "x")),
    );
    mkdirSync(this.file("x-state"), { recursive: true });
    return spawnSync(this.programs.collector, ["validate", `--config=${this.file("check.yml")}`], {
      encoding: "utf8",
    });
  }

  /** Writes entries into a machine's journal, by systemd's own program. */
  says(machine: string, entries: readonly Record<string, string>[]): void {
    const directory = this.file(`${machine}-journal`);
    mkdirSync(directory, { recursive: true });
    const now = Date.now() * 1000;
    const text = entries.map((fields, index) =>
      Object.entries({
        __REALTIME_TIMESTAMP: String(now + index),
        __MONOTONIC_TIMESTAMP: String(1000 + index),
        _BOOT_ID: "0123456789abcdef0123456789abcdef",
        ...fields,
      })
        .map(([key, value]) => `${key}=${value}\n`)
        .join(""),
    );
    const done = spawnSync(JOURNAL_REMOTE, [`--output=${join(directory, "made-up.journal")}`, "-"], {
      input: `${text.join("\n")}\n`,
      encoding: "utf8",
    });
    if (done.error !== undefined) throw new Error("cannot run it: apt-get install systemd-journal-remote");
    if (done.status !== 0) throw new Error(done.stderr);
  }

  private startService({ name, address }: MachineConfig): void {
    const peers = this.config.realServers.map((server) => ({
      name: server.name,
      url: `http://${this.service(server)}`,
    }));
    writeFileSync(this.file(`${name}.json`), JSON.stringify({ self: name, peers }));
    writeFileSync(this.file("key"), "0123456789abcdef0123456789abcdef");
    const app = join(repository, "app");
    const host = address.replace("192.168.1.", "127.0.1.");
    const flags = ["--host", host, "--port", String(this.ports.service), "--enable-queue"];
    this.run(name, join(app, "test"), ["--python", join(app, "app.py"), ...flags], {
      COSYVOICE_NODE: name,
      COSYVOICE_OUTPUTS: this.file("outputs"),
      COSYVOICE_PEERS: this.file(`${name}.json`),
      COSYVOICE_PEER_KEY_FILE: this.file("key"),
      GRADIO_TEMP_DIR: this.file(`${name}-uploads`),
    });
  }

  /** Starts the nginx of a real server, before its service. What it logs goes into the machine's journal by {@link says}. */
  async startFrontDoor({ address }: MachineConfig): Promise<FrontDoor> {
    mkdirSync(this.file("front-door"));
    // As root, nginx keeps what it buffers as another user.
    chmodSync(this.folder, 0o755);
    const { service } = this.ports;
    const own = address.replace("192.168.1.", "127.0.1.");
    const door = await startFrontDoor(this.file("front-door"), {}, { port: service }, (text) =>
      text.replace(`127.0.0.1:${service}`, `${own}:${service}`).replaceAll("192.168.1.", "127.0.1."),
    );
    this.running.set("nginx", door.nginx);
    return door;
  }

  /** Where a real server's service is found. */
  service({ address }: MachineConfig): string {
    return `${address.replace("192.168.1.", "127.0.1.")}:${this.ports.service}`;
  }

  /** What Loki finds, oldest first. */
  async find(query: string): Promise<Line[]> {
    const { result } = await this.ask("query_range", { query, limit: "1000", direction: "forward" });
    return result.flatMap(({ stream = {}, values = [] }) =>
      values.map(([, text]) => ({ labels: stream, text })),
    );
  }

  /** How many series or streams a query has. */
  async count(query: string): Promise<number> {
    const { result } = await this.ask("query_range", { query, limit: "1000" });
    return result.length;
  }

  /** Names of labels that lines are kept by. */
  async labels(): Promise<string[]> {
    const answer = await fetch(`http://127.0.1.30:${this.ports.loki}/loki/api/v1/labels`);
    return ((await answer.json()) as { data: string[] }).data;
  }

  private async ask(what: string, parameters: Record<string, string>) {
    const url = `http://127.0.1.30:${this.ports.loki}/loki/api/v1/${what}?${new URLSearchParams(parameters)}`;
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${parameters.query}: ${answer.status} ${await answer.text()}`);
    const { data } = (await answer.json()) as {
      data: { result: { stream?: Record<string, string>; values?: [string, string][] }[] };
    };
    return data;
  }

  /** What scripts/cluster logs finds of a request in a machine's journal: its text, run on this computer. */
  journalOf(machine: string, request: string): string[] {
    const text = readFileSync(join(repository, "host", "journal.py"), "utf8").replace(
      '"--quiet"',
      `"--quiet", "--directory=${this.file(`${machine}-journal`)}"`,
    );
    const done = spawnSync("python3", ["-IS", "-", machine, "0", request], { input: text, encoding: "utf8" });
    if (done.status !== 0) throw new Error(done.stderr);
    return done.stdout.split("\n").filter((line) => line !== "");
  }

  /** What a collector tells of itself. */
  async telemetry(machine: MachineConfig): Promise<string> {
    const host = machine.address.replace("192.168.1.", "127.0.1.");
    return (await fetch(`http://${host}:${this.ports.telemetry}/metrics`)).text();
  }

  /** What Loki tells of itself. */
  async lokiTelemetry(): Promise<string> {
    return (await fetch(`http://127.0.1.30:${this.ports.loki}/metrics`)).text();
  }

  /** Sends Loki a line of some moment, as a collector would. */
  async send(at: number, text: string): Promise<void> {
    const record = { timeUnixNano: `${at}000000`, body: { stringValue: text } };
    const attributes = ["node", "unit"].map((key) => ({ key, value: { stringValue: "made-up" } }));
    const body = {
      resourceLogs: [{ resource: { attributes }, scopeLogs: [{ logRecords: [record] }] }],
    };
    await fetch(`http://127.0.1.30:${this.ports.loki}/otlp/v1/logs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** Seconds of processor that a program has used. */
  used(name: string): number {
    const stat = readFileSync(`/proc/${this.running.get(name)?.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  async stopProgram(name: string): Promise<void> {
    const child = this.running.get(name);
    this.running.delete(name);
    const ended = new Promise((resolve) => child?.once("exit", resolve));
    child?.kill("SIGTERM");
    await ended;
  }

  async stop(): Promise<void> {
    // Its workers outlive a master that is killed.
    if (this.running.has("nginx")) await this.stopProgram("nginx");
    for (const child of this.running.values()) child.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  /** @throws with what was waited for, and what the programs said last. */
  async until(what: string, seconds: number, test: () => Promise<boolean>): Promise<void> {
    for (const end = Date.now() + seconds * 1000; !(await test()); await sleep(500)) {
      if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}\n${this.said()}`);
    }
  }

  private said(): string {
    return [...this.running.keys()]
      .filter((name) => existsSync(this.file(`${name}.log`)))
      .map((name) => `--- ${name}\n${readFileSync(this.file(`${name}.log`), "utf8").slice(-1500)}`)
      .join("\n");
  }

  private file(name: string): string {
    return join(this.folder, name);
  }

  private run(name: string, program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
    const log = openSync(this.file(`${name}.log`), "a");
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", log, log] });
    closeSync(log);
    child.on("error", (error) => writeFileSync(this.file(`${name}.log`), `${program}: ${error.message}\n`));
    this.running.set(name, child);
  }

  private async answers(address: string): Promise<boolean> {
    const answer = await fetch(`http://${address}`).catch(() => undefined);
    return answer?.ok === true;
  }
}
