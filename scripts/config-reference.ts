/**
 * Writes docs/configuration.md from the schema of the configuration, or checks that it says what the schema says.
 *
 *     node --import tsx scripts/config-reference.ts           write
 *     node --import tsx scripts/config-reference.ts --check   exit 1 when the file differs
 */
import { readFileSync, writeFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { renderConfigReference } from "../config/reference";

const file = fileURLToPath(new URL("../docs/configuration.md", import.meta.url));
const shown = relative(process.cwd(), file);
const wanted = renderConfigReference();
const args = process.argv.slice(2);

if (args.length === 0) {
  writeFileSync(file, wanted);
  console.log(`${shown}: written`);
} else if (args.length === 1 && args[0] === "--check") {
  let found = "";
  try {
    found = readFileSync(file, "utf8");
  } catch {
    // A file that is not there differs too.
  }
  if (found !== wanted) {
    const line = wanted.split("\n").findIndex((text, index) => text !== found.split("\n")[index]) + 1;
    console.error(
      `${shown} does not say what config/schema.ts and its sections say (first difference in line ${line}): run scripts/config-reference`,
    );
    process.exitCode = 1;
  } else {
    console.log(`${shown}: up to date`);
  }
} else {
  console.error(`config-reference: unknown arguments "${args.join(" ")}": give none, or --check`);
  process.exitCode = 2;
}
