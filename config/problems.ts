/** What is wrong with a stack's configuration, for people. */

/** One mistake. */
export interface Problem {
  /** Where, as written in the stack file: `directors[1].priority`. */
  readonly path: string;
  /** What was found there; `undefined` when nothing was. Never the text of a secret. */
  readonly value: unknown;
  /** What is wrong with it, continuing a sentence that starts with the path. */
  readonly message: string;
  /** What to do. */
  readonly fix: string;
}

/** A value as a person would write it, short enough for one line. */
function showValue(value: unknown): string {
  if (value === undefined) return "nothing";
  let shown: string;
  try {
    shown = JSON.stringify(value) ?? String(value);
  } catch {
    // A BigInt or a cycle: not from a stack file, but a message about a mistake must not fail itself.
    shown = String(value);
  }
  return shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
}

/** All mistakes as text for a terminal: one paragraph each, path first. Empty when there is none. */
export function formatProblems(problems: readonly Problem[]): string {
  if (problems.length === 0) return "";
  const count = problems.length === 1 ? "1 mistake" : `${problems.length} mistakes`;
  const paragraphs = problems.map(
    ({ path, value, message, fix }) =>
      `  ${path} ${message}\n    found: ${showValue(value)}\n    fix:   ${fix}\n`,
  );
  return `The configuration has ${count}; nothing was touched.\n\n${paragraphs.join("\n")}`;
}
