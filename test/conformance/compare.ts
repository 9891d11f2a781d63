/**
 * Compares what two plugins made of the same programs:
 *
 *   CONFORMANCE_RECORD=a.json npx mocha --config test/conformance/.mocharc.json
 *   CONFORMANCE_RECORD=b.json COMMAND_PLUGIN=FOLDER npx mocha --config test/conformance/.mocharc.json
 *   node --import tsx test/conformance/compare.ts a.json b.json
 *
 * Steps, errors, state and outputs have to be the same; lines that were shown and the text of a preview, too, but for
 * their order, which is left to chance where things run at the same time.
 */
import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { Outcome } from "./harness/stack";

type Outcomes = Record<string, Outcome>;

const [a, b] = process.argv.slice(2, 4).map((path): Outcomes => JSON.parse(readFileSync(path, "utf8")));
if (!a || !b) throw new Error("needs the paths of two records");

const short = (value: unknown): string => {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > 240 ? `${text.slice(0, 240)}...` : text;
};

/** Names of what belongs to each part of an outcome, so that a difference is told where it is. */
function parts(outcome: Outcome | undefined): Map<string, unknown> {
  const found = new Map<string, unknown>();
  if (!outcome) return found;
  const { text, failed, lines, ...rest } = outcome;
  found.set("text", text.split("\n").sort());
  found.set("failed", failed);
  for (const [name, shown] of Object.entries(lines)) found.set(`lines of ${name}`, [...shown].sort());
  for (const [part, map] of Object.entries(rest)) {
    for (const [name, value] of Object.entries(map)) found.set(`${part} of ${name}`, value);
  }
  return found;
}

let compared = 0;
let different = 0;
for (const run of new Set([...Object.keys(a), ...Object.keys(b)])) {
  const [left, right] = [parts(a[run]), parts(b[run])];
  for (const name of new Set([...left.keys(), ...right.keys()])) {
    compared++;
    if (isDeepStrictEqual(left.get(name), right.get(name))) continue;
    different++;
    console.log(`${run}: ${name}\n  first:  ${short(left.get(name))}\n  second: ${short(right.get(name))}`);
  }
}
console.log(`${compared} outcomes in ${Object.keys(a).length} runs compared, ${different} different`);
