import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const texts = new Map<string, string>();

/** The text of a file in `host/`: what goes to machines as it is. Read once, whatever the number of machines. */
export function hostFile(name: string): string {
  const text =
    texts.get(name) ?? readFileSync(fileURLToPath(new URL(`../../host/${name}`, import.meta.url)), "utf8");
  texts.set(name, text);
  return text;
}
