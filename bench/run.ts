import { join } from "node:path";
import { installMissingPackages } from "../lab/hostPackages";
import { withLock } from "../lab/lock";
import { Progress } from "../lab/progress";
import { repository, stateDir } from "../scripts/lib/paths";
import { type BenchmarkName, benchmarks, surroundings } from "./benchmarks";
import { drawPlots } from "./draw";
import { BenchMachine } from "./machine";
import { type Result, readResult, writeResult } from "./results";
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
export function resultsDirectory(quick: boolean): string {
  return quick ? join(stateDir(), "bench-quick") : join(repository, "bench/results");
}

/** Runs benchmarks one after the other, each in a virtual machine fresh from boot; writes results, tables and plots. */
export async function runBenchmarks(names: readonly BenchmarkName[], options: RunOptions): Promise<void> {
  await withLock(join(stateDir(), "bench.lock"), async () => {
    const progress = new Progress();
    const machine = new BenchMachine();
    const directory = resultsDirectory(options.quick);
    await progress.step("packages of this computer", () =>
      installMissingPackages((text) => progress.say(text)),
    );
    const image = await progress.step("image", (note) => machine.image(note));
    try {
      for (const name of names) {
        const { accelerator } = await progress.step("virtual machine", (note) => machine.start(image, note));
        await machine.send(await guestPrograms());
        const rows = await progress.step(name, (note) =>
          benchmarks[name].run({ machine, note, quick: options.quick, minutes: options.minutes }),
        );
        const on = await surroundings(machine, accelerator);
        await writeResult(directory, { name, quick: options.quick, on, rows });
      }
    } finally {
      if (options.keep) progress.say(`The virtual machine stays: ${machine.shell}`);
      else await machine.stop();
    }
    await progress.step("tables and plots", (note) => report(options.quick, note));
    for (const name of names) {
      const result = await readResult(directory, name);
      if (result) console.log(`\n${markdown(result)}`);
    }
    console.log(`\nResults and plots: ${directory}`);
  });
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
