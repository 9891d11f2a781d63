import { join } from "node:path";
import { execa } from "execa";
import { repository } from "../../scripts/lib/paths";

const read = new Map<string, Promise<string>>();

/** What a program of scripts/ says of itself, or of one of its commands. Asked once, one after the other. */
export function helpOf(program: string, ...command: readonly string[]): Promise<string> {
  const key = [program, ...command].join(" ");
  const asked = read.get(key) ?? ask(program, command);
  read.set(key, asked);
  return asked;
}

async function ask(program: string, command: readonly string[]): Promise<string> {
  const { stdout } = await execa(join(repository, program), [...command, "--help"], { stdin: "ignore" });
  return stdout;
}

/** The commands that a help lists. */
export function commandsIn(help: string): string[] {
  const list = /^Commands:\n((?: +.*\n?)+)/m.exec(help)?.[1] ?? "";
  return [...list.matchAll(/^ {2}([\w-]+)/gm)].map(([, name]) => name ?? "");
}

/** The options that a help lists, with both their spellings. */
export function optionsIn(help: string): string[] {
  const list = /^Options:\n((?: +.*\n?)+)/m.exec(help)?.[1] ?? "";
  return [...list.matchAll(/(?<=\s)(--?[a-z][\w-]*)/g)].map(([, name]) => name ?? "");
}
