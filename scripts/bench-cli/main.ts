import { Command, InvalidArgumentError } from "commander";
import { benchmarkNames, benchmarks } from "../../bench/benchmarks";
import { report, runBenchmarks } from "../../bench/run";
import { failureText } from "../../lab/progress";
import { benchPreview } from "./preview";

const program = new Command("scripts/bench").description(
  "Measures; asserts nothing. docs/benchmark.md says what and how.",
);
program
  .command("preview")
  .description("the program's time and memory for previews of many real servers, under mocks")
  .option("--runs <n>", "processes for each size", positive, 3)
  .option("--aws", "on the platform aws, up to 1,000")
  .action(({ runs, aws }: { runs: number; aws?: true }) => benchPreview(runs, aws ? "aws" : "hosts"));

interface Options {
  readonly quick?: boolean;
  readonly keep?: boolean;
  readonly minutes?: number;
}

for (const name of [...benchmarkNames, "all"] as const) {
  const command = program
    .command(name)
    .description(name === "all" ? "all of these, one after the other" : benchmarks[name].description)
    .option("--quick", "a fast version, to try it out; its results are kept apart")
    .option("--keep", "leave the virtual machine running");
  if (name === "calm" || name === "all")
    command.option("--minutes <n>", "how long `calm` looks on", positive, 30);
  command.action(({ quick = false, keep = false, minutes = 30 }: Options) =>
    runBenchmarks(name === "all" ? benchmarkNames : [name], { quick, keep, minutes }),
  );
}
program
  .command("report")
  .description("draw the plots and write the tables of docs/benchmark.md anew from bench/results")
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
