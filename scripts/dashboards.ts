/**
 * Writes the dashboards, each a file of JSON that Grafana imports or is provisioned with.
 *
 *     node --import tsx scripts/dashboards.ts DIRECTORY
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pages } from "../render/dashboards/pages";
import { renderDashboard } from "../render/dashboards/panels";

const [directory, ...more] = process.argv.slice(2);
if (directory === undefined || directory.startsWith("-") || more.length > 0) {
  console.error("dashboards: give one directory, into which the files are written");
  process.exitCode = 2;
} else {
  mkdirSync(directory, { recursive: true });
  for (const page of pages) {
    const file = join(directory, `${page.uid}.json`);
    writeFileSync(file, renderDashboard(page));
    console.log(file);
  }
}
