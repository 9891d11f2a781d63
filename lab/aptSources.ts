import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** The Debian release of the images; the host may run another one. */
export const suite = "bookworm";

const ownSuites = new Set([suite, `${suite}-updates`, `${suite}-security`, `${suite}/updates`]);

/**
 * The host's own apt sources of the images' release, as one deb822 text: so the images come from where this computer
 * gets its packages, and no address is kept here. Third-party sources are left out.
 *
 * @returns undefined when the host has none (another release or distribution): mmdebstrap then uses its own default.
 */
export async function hostAptSources(directory = "/etc/apt"): Promise<string | undefined> {
  const files = [join(directory, "sources.list")];
  const parts = join(directory, "sources.list.d");
  for (const name of (await readdir(parts).catch(() => [])).sort()) {
    if (name.endsWith(".list") || name.endsWith(".sources")) files.push(join(parts, name));
  }
  const stanzas: string[] = [];
  for (const file of files) {
    const text = await readFile(file, "utf8").catch(() => "");
    stanzas.push(...(file.endsWith(".sources") ? deb822Stanzas(text) : oneLineStanzas(text)));
  }
  const own = [...new Set(stanzas)];
  return own.some((stanza) => suitesOf(stanza).includes(suite)) ? `${own.join("\n\n")}\n` : undefined;
}

/** The stanzas of a deb822 file that belong to the images' release, without comments. */
export function deb822Stanzas(text: string): string[] {
  const stanzas = text
    .split("\n")
    .filter((line) => !line.startsWith("#"))
    .join("\n")
    .split(/\n\s*\n/)
    .map((stanza) => stanza.trim());
  return stanzas.filter((stanza) => {
    const enabled = !/^Enabled:\s*(no|false|0)\s*$/im.test(stanza);
    const binary = /^Types:.*\bdeb\b(?!-)/im.test(stanza);
    const suites = suitesOf(stanza);
    const official = suites.length > 0 && suites.every((name) => ownSuites.has(name));
    return enabled && binary && official && /^Components:.*\bmain\b/im.test(stanza);
  });
}

/** The `deb` lines of a sources.list that belong to the images' release, as deb822 stanzas. */
export function oneLineStanzas(text: string): string[] {
  const stanzas: string[] = [];
  for (const line of text.split("\n")) {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$/.exec(line.trim());
    if (match === null) continue;
    const [, options = "", uri = "", name = "", components = ""] = match;
    if (!ownSuites.has(name) || !components.split(/\s+/).includes("main")) continue;
    const signedBy = /signed-by=(\S+)/.exec(options)?.[1];
    const fields = ["Types: deb", `URIs: ${uri}`, `Suites: ${name}`, "Components: main"];
    if (signedBy !== undefined) fields.push(`Signed-By: ${signedBy}`);
    stanzas.push(fields.join("\n"));
  }
  return stanzas;
}

function suitesOf(stanza: string): string[] {
  return /^Suites:\s*(.+)$/im.exec(stanza)?.[1]?.trim().split(/\s+/) ?? [];
}
