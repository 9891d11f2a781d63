import { readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import pc from "picocolors";
import type { OpenSsh } from "../../components/remote/openssh";
import { fingerprintOf } from "../../config/certificate";
import { type Attempt, type Log, parseLog, percentile } from "../../lab/load/summary";
import { repository } from "../lib/paths";
import type { Inventory } from "./inventory";
import type { ProgressLine } from "./progress";
import { startOf } from "./run";
import { columns } from "./table";

/** Seconds that what is under way when the time is over may still take. */
const FINISH = 30;

export interface BenchOptions {
  /** Sentences in all. */
  readonly sentences: number;
  /** Sentences at the same time. */
  readonly atOnce: number;
  /** Length of one. */
  readonly characters: number;
  /** Light requests a second besides, a new connection each. */
  readonly rate: number;
  /** s until it ends, whatever was done by then. */
  readonly seconds: number;
}

/** What became of one kind of request. Times in s. */
export interface KindResult {
  readonly kind: "sentence" | "light";
  readonly requests: number;
  readonly errors: number;
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
  /** Requests that ended well, by who answered. */
  readonly nodes: Readonly<Record<string, number>>;
  /** Why the others did not, each with how often. */
  readonly reasons: Readonly<Record<string, number>>;
}

export interface BenchResult {
  /** The machine from which was asked; null for this computer. */
  readonly from: string | null;
  /** How many addresses of it were used in turn: one address mostly meets one real server. */
  readonly addresses: number;
  /** s */
  readonly took: number;
  readonly kinds: readonly KindResult[];
}

/** What a run may come to at the most, for people. */
export function describe({ sentences, atOnce, characters, rate, seconds }: BenchOptions): string {
  return [
    `At most ${sentences} sentences of ${characters} characters, ${atOnce} at a time`,
    ...(rate > 0 ? [`${rate} light requests a second`] : []),
    `for at most ${seconds} s`,
  ].join(", ");
}

/**
 * Puts a bounded load on the cluster through its VIP, by HTTPS where the plain port is closed: from the client machine, from
 * all of its addresses in turn, where the stack has one, else from this computer.
 *
 * @throws when the load cannot be started.
 */
export async function bench(
  inventory: Inventory,
  ssh: OpenSsh,
  options: BenchOptions,
  progress: ProgressLine,
): Promise<BenchResult> {
  const { vip, port, servicePort = port, machines } = inventory;
  const https = servicePort === port ? undefined : inventory.https;
  const client = machines.find(({ role }) => role === "client");
  progress.show("looking for addresses to ask from");
  const sources = client ? await addressesOf(client, ssh) : [];
  const given: Record<string, string | number> = {
    target: `${vip}:${https?.port ?? port}`,
    sources: sources.join(","),
    syntheses: Math.min(options.atOnce, options.sentences),
    most: options.sentences,
    characters: options.characters,
    rate: options.rate,
    duration: options.seconds,
    pause: 0,
    kept: 0,
    streams: 0,
    // What takes longer than the whole run is cut off and counted as such.
    "synthesis-timeout": options.seconds + FINISH,
    finish: FINISH,
  };
  const args = [
    ...Object.entries(given).map(([name, value]) => `--${name}=${value}`),
    ...(https === undefined ? [] : ["--https"]),
  ];
  const program = readFileSync(join(repository, "lab/load/load-client.py"), "utf8");
  const start = startOf(program, "load-client.py");
  // On its standard input: an argument could be read by everybody on that machine.
  const input = program + JSON.stringify(https === undefined ? null : tlsOf(https));
  const timeout = options.seconds + FINISH + 60;
  progress.show(`asking, from ${client?.name ?? "this computer"}: at most ${options.seconds + FINISH} s`);
  const { exitCode, stdout, stderr } = client
    ? await ssh.run(client.name, [`python3 -c '${start}'`, ...args].join(" "), { input, timeout })
    : await execa("python3", ["-c", start, ...args], { input, reject: false, timeout: timeout * 1000 });
  const log = parseLog(stdout.split("\n"));
  if (exitCode !== 0 || !log.whole)
    throw new Error(`The load client failed (exit code ${exitCode}): ${stderr.trim()}`);
  return summarise(log, client?.name ?? null, Math.max(1, sources.length));
}

/** What lab/load/load-client.py has to know for HTTPS. */
function tlsOf({ serverName, certificate, apiKey }: NonNullable<Inventory["https"]>) {
  return { serverName, fingerprint: fingerprintOf(certificate), key: apiKey ?? null };
}

/** The addresses of the interface that a machine is reached by. */
async function addressesOf(client: Inventory["machines"][number], ssh: OpenSsh): Promise<string[]> {
  const { stdout } = await ssh.run(client.name, "ip -o -4 address show");
  return siblings(stdout, client.address);
}

/** The addresses of the interface that has that one, by what `ip -o -4 address show` says. Pure. */
export function siblings(said: string, address: string): string[] {
  const found = [...said.matchAll(/^\d+: (\S+)\s+inet ([\d.]+)/gm)];
  const own = found.find(([, , other]) => other === address)?.[1];
  return found.filter(([, name]) => name === own).map(([, , other]) => other as string);
}

/** Counts what a load client has written. Pure. */
export function summarise(log: Log, from: string | null, addresses: number): BenchResult {
  const starts = log.attempts.map(({ start }) => start);
  const ends = log.attempts.map(({ end }) => end);
  return {
    from,
    addresses,
    took: starts.length === 0 ? 0 : Math.max(...ends) - Math.min(...starts),
    kinds: [
      kindResult(
        "sentence",
        log.attempts.filter(({ kind }) => kind === "synthesis"),
      ),
      kindResult(
        "light",
        log.attempts.filter(({ kind }) => kind === "request"),
      ),
    ].filter(({ requests }) => requests > 0),
  };
}

function kindResult(kind: KindResult["kind"], attempts: readonly Attempt[]): KindResult {
  const good = attempts.filter(({ result }) => result === "ok" || result === "slow");
  const took = good.map(({ start, end }) => end - start).sort((a, b) => a - b);
  const at = (part: number) => (took.length === 0 ? null : percentile(took, part));
  const tally = (words: readonly string[]) =>
    Object.fromEntries(
      [...new Set(words)].sort().map((word) => [word, words.filter((other) => other === word).length]),
    );
  return {
    kind,
    requests: attempts.length,
    errors: attempts.length - good.length,
    p50: at(0.5),
    p95: at(0.95),
    p99: at(0.99),
    nodes: tally(good.map(({ node }) => node ?? "unnamed")),
    reasons: tally(
      attempts
        .filter((attempt) => !good.includes(attempt))
        .map(({ why }) => (why ?? "not done when the time was over").slice(0, 100)),
    ),
  };
}

/** A run for people. */
export function renderBench({ from, addresses, took, kinds }: BenchResult): string {
  const time = (value: number | null) =>
    value === null ? "-" : value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(2)} s`;
  const names = [...new Set(kinds.flatMap(({ nodes }) => Object.keys(nodes)))].sort();
  const share = ({ nodes }: KindResult, name: string) => {
    const all = Object.values(nodes).reduce((sum, count) => sum + count, 0);
    const own = nodes[name] ?? 0;
    return `${own} (${all === 0 ? 0 : Math.round((100 * own) / all)} %)`;
  };
  const label = ({ kind }: KindResult) => (kind === "sentence" ? "sentences" : "light");
  const where = `${from ?? "this computer"}, ${addresses} address${addresses === 1 ? "" : "es"}`;
  return [
    `${took.toFixed(1)} s, asked from ${where}.`,
    "",
    ...columns([
      ["KIND", "REQUESTS", "ERRORS", "P50", "P95", "P99"],
      ...kinds.map((result) => [
        label(result),
        String(result.requests),
        result.errors === 0 ? "0" : pc.red(String(result.errors)),
        ...[result.p50, result.p95, result.p99].map(time),
      ]),
    ]),
    "",
    ...columns([
      ["REAL SERVER", ...kinds.map((result) => label(result).toUpperCase())],
      ...names.map((name) => [name, ...kinds.map((result) => share(result, name))]),
    ]),
    ...kinds.flatMap(({ reasons }) =>
      Object.entries(reasons).map(([reason, count]) => `${pc.red("!")} ${count} x ${reason}`),
    ),
  ].join("\n");
}
