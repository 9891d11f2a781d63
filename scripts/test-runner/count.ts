import type { Step } from "./steps";

export interface Counts {
  readonly passed: number;
  readonly failed: number;
}

/** How many tests a step's program ran, by what it printed. A program that fails without a failed test counts as one. */
export function count(kind: Step["counts"], output: string, exitCode: number): Counts {
  const found = kind === "one" ? { passed: exitCode === 0 ? 1 : 0, failed: 0 } : read(kind, plain(output));
  return exitCode !== 0 && found.failed === 0 ? { ...found, failed: 1 } : found;
}

function read(kind: "mocha" | "pytest", output: string): Counts {
  const words = kind === "mocha" ? (["passing", "failing"] as const) : (["passed", "failed"] as const);
  const [passed, failed] = words.map((word) => last(output, word));
  const errors = kind === "pytest" ? last(output, "errors?") : 0;
  return { passed: passed ?? 0, failed: (failed ?? 0) + errors };
}

/** The number before the last `N word` of the summary. */
function last(output: string, word: string): number {
  const hits = [...output.matchAll(new RegExp(`(?:^|\\s|=)(\\d+) ${word}\\b`, "g"))];
  return Number(hits.at(-1)?.[1] ?? 0);
}

/** A program's output without colours. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  return text.replace(/\u001b\[[0-9;]*m/g, "");
}
