import { execa } from "execa";
import { ensurePackages } from "../lib/debianPackages";
import { repository } from "../lib/paths";
import { type Counts, count } from "./count";
import { failures } from "./failures";
import { chooseSteps, type Step } from "./steps";

interface Outcome extends Counts {
  readonly step: Step;
  readonly seconds: number;
  /** What failed, in a few lines. */
  readonly failures: readonly string[];
}

const chosen = chooseSteps(process.argv.slice(2));
if (typeof chosen === "string") {
  console.error(`scripts/test: ${chosen}`);
  process.exit(2);
}
await ensurePackages([...new Set(chosen.flatMap(({ packages }) => packages ?? []))]);
const outcomes: Outcome[] = [];
for (const step of chosen) outcomes.push(await run(step));

console.log(`\n${"=".repeat(72)}`);
for (const { step, passed, failed, seconds } of outcomes) {
  const mark = failed === 0 ? "ok    " : "FAILED";
  console.log(
    `${mark} ${step.name.padEnd(38)} ${String(passed).padStart(5)} passed ${String(failed).padStart(3)} failed ${seconds.toFixed(0).padStart(5)} s`,
  );
}
// Where runs are read from their end, the reason has to be there.
for (const { step, failures } of outcomes.filter(({ failed }) => failed > 0))
  console.log([`\nFAILED ${step.name}`, ...failures].join("\n  "));
const sum = (key: keyof Counts) => outcomes.reduce((total, outcome) => total + outcome[key], 0);
console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
process.exitCode = sum("failed") === 0 ? 0 : 1;

async function run(step: Step): Promise<Outcome> {
  console.log(`\n=== ${step.name}: ${step.command.join(" ")}`);
  const start = performance.now();
  const [program, ...args] = step.command;
  const result = await execa(program, args, {
    cwd: repository,
    reject: false,
    env: step.environment ?? {},
    stdin: "ignore",
    all: true,
    stdout: ["pipe", "inherit"],
    stderr: ["pipe", "inherit"],
    maxBuffer: 64 * 1024 * 1024,
  });
  const exitCode = result.exitCode ?? 1;
  if (result.failed && result.exitCode === undefined) console.error(`${step.command[0]}: ${result.message}`);
  const seconds = (performance.now() - start) / 1000;
  const counts = count(step.counts, result.all ?? "", exitCode);
  // A runner that ran nothing has not passed.
  const failed = counts.passed + counts.failed === 0 ? 1 : counts.failed;
  const reasons = failed === 0 ? [] : failures(step.counts, result.all || result.message || "");
  return { step, passed: counts.passed, failed, seconds, failures: reasons };
}
