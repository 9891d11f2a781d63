// Exits 0 when node_modules holds exactly what package-lock.json asks for, by npm's own record of what it installed.
// Plain JavaScript: it runs before there is anything that could run TypeScript.
import { readFileSync } from "node:fs";
import { join } from "node:path";

const repository = process.argv[2] ?? ".";

function packages(path) {
  return JSON.parse(readFileSync(join(repository, path), "utf8")).packages;
}

try {
  const wanted = packages("package-lock.json");
  const present = packages("node_modules/.package-lock.json");
  const wrong = Object.entries(wanted).filter(
    ([path, entry]) =>
      path !== "" && present[path]?.version !== entry.version && !(entry.optional && !present[path]),
  );
  process.exitCode = wrong.length === 0 ? 0 : 1;
} catch {
  process.exitCode = 1;
}
