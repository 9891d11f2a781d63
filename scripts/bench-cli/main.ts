import { Command, InvalidArgumentError } from "commander";
import { benchPreview } from "./preview";

const program = new Command("scripts/bench").description("Measures speed; asserts nothing.");
program
  .command("preview")
  .description("the program's time for previews of 25 to 200 real servers, under mocks")
  .option("--runs <n>", "processes for each size", positive, 3)
  .action(({ runs }: { runs: number }) => benchPreview(runs));
await program.parseAsync();

function positive(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("give a whole number above 0");
  return value;
}
