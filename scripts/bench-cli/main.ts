import { Command, InvalidArgumentError } from "commander";
import { benchmarkNames, benchmarks } from "../../bench/benchmarks";
import { report, runBenchmarks } from "../../bench/run";
import { failureText } from "../../lab/progress";
import { benchPreview } from "./preview";

const program = new Command("scripts/bench").description(
  "Runs the benchmarks; asserts nothing. docs/benchmark.md says what they measure and how.",
);
program
  .command("preview")
  .description("time and memory that the program takes for previews of many real servers, with mocks")
  .option("--runs <n>", "number of runs for each size", positive, 3)
  .option("--aws", "on the platform aws, up to 1,000 real servers")
  .action(({ runs, aws }: { runs: number; aws?: true }) => benchPreview(runs, aws ? "aws" : "hosts"));

interface Options {
  readonly quick?: boolean;
  readonly keep?: boolean;
  readonly minutes?: number;
}

for (const name of [...benchmarkNames, "all"] as const) {
  const command = program
    .command(name)
    .description(name === "all" ? "all benchmarks, one after the other" : benchmarks[name].description)
    .option("--quick", "a fast version, for trying out; its results are kept separately")
    .option("--keep", "leave the virtual machine running");
  if (name === "calm" || name === "all")
    command.option("--minutes <n>", "how long `calm` observes", positive, 30);
  command.action(({ quick = false, keep = false, minutes = 30 }: Options) =>
    runBenchmarks(name === "all" ? benchmarkNames : [name], { quick, keep, minutes }),
  );
}
program
  .command("report")
  .description("redraw the plots and rewrite the tables of docs/benchmark.md from bench/results")
  .action(() => report(false, (text) => console.error(text)));

try {
  await program.parseAsync();
} catch (error) {
  console.error(await failureText(error));
  process.exitCode = 1;
}

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("give a whole number above 0");
  return value;
}
