import { join } from "node:path";
import { installMissingPackages } from "../lab/hostPackages";
import { withLock } from "../lab/lock";
import { Progress } from "../lab/progress";
import { repository, stateDir } from "../scripts/lib/paths";
import { type BenchmarkName, benchmarks, nativeSurroundings, surroundings } from "./benchmarks";
import { drawPlots } from "./draw";
import { BenchMachine } from "./machine";
import { type Result, type Row, readResult, writeResult } from "./results";
import { markdown, writeDocument } from "./tables";
import { guestPrograms } from "./texts";

export interface RunOptions {
  /** A fast version of each, whose results are kept apart. */
  readonly quick: boolean;
  /** Whether the virtual machine goes on afterwards, to be looked at. */
  readonly keep: boolean;
  /** Of `calm`. */
  readonly minutes: number;
}

/** Where results are: the ones to quote in the repository, those of a quick run in the state directory. */
function resultsDirectory(quick: boolean): string {
  return quick ? join(stateDir(), "bench-quick") : join(repository, "bench/results");
}

/**
 * Runs benchmarks one after the other, each in a virtual machine fresh from boot or, after those, on this computer with no
 * virtual machine beside it; writes results, tables and plots.
 */
export async function runBenchmarks(names: readonly BenchmarkName[], options: RunOptions): Promise<void> {
  await withLock(join(stateDir(), "bench.lock"), async () => {
    const progress = new Progress();
    const directory = resultsDirectory(options.quick);
    const guests = names.filter((name) => !benchmarks[name].native);
    if (guests.length > 0) await measureInGuest(guests, options, progress);
    for (const name of names.filter((name) => benchmarks[name].native)) {
      const rows = await measure(name, new BenchMachine(), options, progress);
      await writeResult(directory, { name, quick: options.quick, on: await nativeSurroundings(), rows });
    }
    await progress.step("tables and plots", (note) => report(options.quick, note));
    for (const name of names) {
      const result = await readResult(directory, name);
      if (result) console.log(`\n${markdown(result)}`);
    }
    console.log(`\nResults and plots: ${directory}`);
  });
}

async function measureInGuest(
  names: readonly BenchmarkName[],
  options: RunOptions,
  progress: Progress,
): Promise<void> {
  const machine = new BenchMachine();
  await progress.step("packages of this computer", () =>
    installMissingPackages((text) => progress.say(text)),
  );
  const image = await progress.step("image", (note) => machine.image(note));
  try {
    for (const name of names) {
      const { accelerator } = await progress.step("virtual machine", (note) => machine.start(image, note));
      await machine.send(await guestPrograms());
      const rows = await measure(name, machine, options, progress);
      const on = await surroundings(machine, accelerator);
      await writeResult(resultsDirectory(options.quick), { name, quick: options.quick, on, rows });
    }
  } finally {
    if (options.keep) progress.say(`The virtual machine stays: ${machine.shell}`);
    else await machine.stop();
  }
}

function measure(
  name: BenchmarkName,
  machine: BenchMachine,
  { quick, minutes }: RunOptions,
  progress: Progress,
): Promise<Row[]> {
  return progress.step(name, (note) => benchmarks[name].run({ machine, note, quick, minutes }));
}

/** Draws the plots of the results that are there, and writes the tables of those to quote into the documentation. */
export async function report(quick: boolean, note: (text: string) => void): Promise<void> {
  const directory = resultsDirectory(quick);
  const results: Result[] = [];
  for (const name of Object.keys(benchmarks)) {
    const result = await readResult(directory, name);
    if (result) results.push(result);
  }
  await drawPlots(directory, note);
  if (!quick) await writeDocument(join(repository, "docs/benchmark.md"), results);
}
