import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The text of a file in `host/`: what goes to machines as it is. */
export function hostFile(name: string): string {
  return readFileSync(fileURLToPath(new URL(`../../host/${name}`, import.meta.url)), "utf8");
}
