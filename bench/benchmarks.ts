import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, release, tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { paths } from "../render";
import { repository } from "../scripts/lib/paths";
import { type BenchMachine, guestDirectory } from "./machine";
import type { Row } from "./results";
import { clusterSpec } from "./texts";

/** One benchmark: what is run, in the virtual machine or beside it. */
export interface Benchmark {
  readonly name: BenchmarkName;
  /** For `--help`. */
  readonly description: string;
  /** Whether it runs on this computer alone and no virtual machine is started for it. */
  readonly native?: true;
  run(context: Context): Promise<Row[]>;
}

/** The benchmarks, in the order in which `all` runs them. */
export const benchmarkNames = [
  "throughput",
  "outages",
  "weights",
  "connections",
  "fleet",
  "calm",
  "app",
  "peers",
] as const;
export type BenchmarkName = (typeof benchmarkNames)[number];

/** What a benchmark gets. */
export interface Context {
  readonly machine: BenchMachine;
  /** A fast version, to try it out. */
  readonly quick: boolean;
  /** Of `calm`. */
  readonly minutes: number;
  readonly note: (text: string) => void;
}

type Options = Readonly<Record<string, string | number>>;

/** Runs a program of bench/guest and collects what it prints. `limit`: seconds. */
async function guest(context: Context, program: string, options: Options, limit: number): Promise<Row[]> {
  const rows: Row[] = [];
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const command = ["python3", `${guestDirectory}/${program}.py`, ...words];
  await context.machine.run(command, (line) => take(line, rows, context.note), limit);
  return rows;
}

function take(line: string, rows: Row[], note: (text: string) => void): void {
  if (!line.startsWith("{")) return;
  const row = JSON.parse(line) as Row;
  if (typeof row.note === "string") note(row.note);
  else rows.push(row);
}

function specs(clusters: Readonly<Record<string, ReturnType<typeof clusterSpec>>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(clusters).map(([name, spec]) => [`specs/${name}.json`, JSON.stringify(spec)]),
  );
}

const throughput: Benchmark = {
  name: "throughput",
  description:
    "requests, connections, latency and processor time of LVS, nginx and haproxy in the same place",
  async run(context) {
    await context.machine.send(specs({ defaults3: clusterSpec("defaults", 3), nat3: clusterSpec("nat", 3) }));
    const [rounds, seconds] = context.quick ? [1, 2] : [4, 5];
    return guest(context, "throughput", { rounds, seconds }, 120 + rounds * 7 * (seconds * 3 + 30));
  },
};

/** Real servers of the pool whose members are broken one by one. */
const poolSize = 8;

const outages: Benchmark = {
  name: "outages",
  description: "what clients notice when a director loses power, or a real server is black-holed or hangs",
  async run(context) {
    const [cuts, holes] = context.quick ? [3, 2] : [50, 32];
    const clusters = {
      // The interval of 5 ms and 50 client addresses: each address asks every 250 ms, each server is asked every 40 ms.
      defaults: { spread: 1, failover: 3, patience: 4, batch: 1, wedges: context.quick ? 2 : 12 },
      // A check every 6 s, four tries of 3 s with 3 s between them: up to 27 s. No hash: four may break together. A wedged
      // app still takes connections, which is all that this check asks: a few of them show it.
      classic: {
        spread: 6,
        failover: 5,
        patience: 28,
        batch: context.quick ? 2 : 4,
        wedges: context.quick ? 2 : 4,
      },
    } as const;
    const rows: Row[] = [];
    for (const [name, timing] of Object.entries(clusters)) {
      await context.machine.send(specs({ [name]: clusterSpec(name as keyof typeof clusters, poolSize) }));
      const limit =
        300 +
        cuts * (timing.failover + 25) +
        ((holes + timing.wedges) / timing.batch) * (timing.patience + timing.spread + 40);
      const found = await guest(context, "outages", { spec: name, cuts, holes, ...timing }, limit);
      rows.push(...found.map((row) => ({ cluster: name, ...row })));
    }
    return rows;
  },
};

const weights: Benchmark = {
  name: "weights",
  description: "one slow real server: weights that follow the queues, compared with fixed weights",
  async run(context) {
    await context.machine.send(
      specs({ fixed: clusterSpec("fixed", 3), following: clusterSpec("following", 3) }),
    );
    const [rounds, seconds] = context.quick ? [1, 30] : [3, 45];
    const rows: Row[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      for (const spec of ["fixed", "following"])
        rows.push(...(await guest(context, "weights", { spec, round, seconds }, seconds + 200)));
    }
    return rows;
  },
};

const connections: Benchmark = {
  name: "connections",
  description: "memory and time that up to a million connections cost a director",
  async run(context) {
    await context.machine.send(specs({ defaults3: clusterSpec("defaults", 3) }));
    return guest(context, "connections", { most: context.quick ? 100_000 : 1_000_000 }, 1800);
  },
};

/** Real servers of the fleet, and of the small pool it is compared with. */
const [fleetSize, fewSize] = [300, 30];

/**
 * Seconds between two polls of a server in the emulated fleet. An emulated processor runs Python some twenty times slower:
 * at the default's pace the poller would have no processor left for what is measured. The default is measured natively.
 */
const emulatedInterval = 2;

const fleet: Benchmark = {
  name: "fleet",
  description:
    "300 real servers: processor time of health checks, how soon the pool follows, time of a reload",
  async run(context) {
    const [size, few, died] = context.quick ? [60, 10, 20] : [fleetSize, fewSize, 100];
    const check = { kind: "poller", interval: emulatedInterval, timeout: emulatedInterval };
    await context.machine.send(
      specs({
        fleet: clusterSpec("defaults", size, { loadBalancer: { check } }),
        "fleet-few": clusterSpec("defaults", few, { loadBalancer: { check } }),
      }),
    );
    const counts = context.quick
      ? { seconds: 5, deaths: 1, reloads: 2 }
      : { seconds: 30, deaths: 5, reloads: 10 };
    const emulated = await guest(context, "fleet", { spec: "fleet", died, ...counts }, 1800);
    context.note("the poller on this computer");
    const native = await nativePoller(context, size, died);
    return [
      ...emulated.map((row) => ({ where: "emulated", ...row })),
      ...native.map((row) => ({ where: "native", ...row })),
    ];
  },
};

/** The poller with our defaults on this very computer, against addresses of 127.0.0.0/8. */
async function nativePoller(context: Context, size: number, died: number): Promise<Row[]> {
  const scratch = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-bench-"));
  try {
    const [director] = clusterSpec("defaults", size).directors;
    const config = join(scratch, "health.json");
    await writeFile(config, director?.files[paths.healthConfig] ?? "");
    const [seconds, deaths] = context.quick ? [5, 2] : [50, 10];
    const program = join(repository, "bench/native_fleet.py");
    const poller = join(repository, "host/health-poller.py");
    const options = [program, poller, config, ...[seconds, deaths, died].map(String)];
    return await native(context, "python3", options, 300);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Runs a program on this very computer and collects what it prints. `limit`: seconds. */
async function native(
  context: Context,
  program: string,
  options: readonly string[],
  limit: number,
): Promise<Row[]> {
  const rows: Row[] = [];
  const child = execa(program, options, { stdin: "ignore", timeout: limit * 1000 });
  for await (const line of child.iterable()) take(String(line), rows, context.note);
  return rows;
}

const calm: Benchmark = {
  name: "calm",
  description: "both cores busy and nothing broken: does the VIP or the pool move?",
  async run(context) {
    await context.machine.send(specs({ defaults3: clusterSpec("defaults", 3) }));
    const minutes = context.quick ? 1 : context.minutes;
    return guest(context, "calm", { minutes }, 180 + minutes * 75);
  },
};

const app: Benchmark = {
  name: "app",
  description: "the speech app on one core: time, requests/s and memory for results that exist already",
  native: true,
  run(context) {
    const counts = context.quick
      ? { rounds: 1, seconds: 1, requests: 1000, results: 10_000 }
      : { rounds: 5, seconds: 4, requests: 10_000, results: 100_000 };
    const options = Object.entries(counts).flatMap(([name, value]) => [`--${name}`, String(value)]);
    const program = join(repository, "bench/app_speed.py");
    return native(context, join(repository, "app/test"), ["--python", program, ...options], 900);
  },
};

const peers: Benchmark = {
  name: "peers",
  description:
    "how long 100 users behind one address wait on three real servers, compared with one queue for three engines",
  native: true,
  run(context) {
    const [rounds, ...seconds] = context.quick ? [1, 0.25] : [3, 2, 1, 0.5, 0.25, 0.1];
    const options = ["--rounds", String(rounds), "--seconds", ...seconds.map(String)];
    const program = join(repository, "bench/app_peers.py");
    return native(context, join(repository, "app/test"), ["--python", program, ...options], 3000);
  },
};

/** Every benchmark by name. */
export const benchmarks: Readonly<Record<BenchmarkName, Benchmark>> = {
  throughput,
  outages,
  weights,
  connections,
  fleet,
  calm,
  app,
  peers,
};

/** What a result was measured on. */
export async function surroundings(
  machine: BenchMachine,
  accelerator: string,
): Promise<Record<string, string | number>> {
  const found: Record<string, string> = {};
  const questions = [
    "echo kernel $(uname -r)",
    "echo cores $(nproc)",
    "dpkg-query -W keepalived ipvsadm nginx-light haproxy wrk | tr '\\t' ' '",
  ];
  await machine.run(
    ["sh", "-c", questions.join("; ")],
    (line) => {
      const [name = "", ...rest] = line.split(" ");
      found[name] = rest.join(" ");
    },
    60,
  );
  return { accelerator, processor: processor(), ...found };
}

/** What a native benchmark was measured on: this computer. */
export async function nativeSurroundings(): Promise<Record<string, string>> {
  const versions = "import gradio, platform; print(platform.python_version(), gradio.__version__)";
  const { stdout } = await execa(join(repository, "app/test"), ["--python", "-c", versions]);
  const [python = "", gradio = ""] = stdout.split(" ");
  const load = loadavg()[0]?.toFixed(1) ?? "unknown";
  return { processor: processor(), kernel: release(), cores: String(cpus().length), python, gradio, load };
}

function processor(): string {
  return cpus()[0]?.model ?? "unknown";
}
