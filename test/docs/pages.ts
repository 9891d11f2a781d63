import { readFileSync } from "node:fs";
import { join } from "node:path";
import { execaSync } from "execa";
import { repository } from "../../scripts/lib/paths";
import { type Block, type Command, commandsOf, type Page, parsePage } from "./markdown";
import { needOf, type Way, wayOf } from "./ways";

/** Every file of the repository, those that are new and not ignored too. */
export const files: readonly string[] = execaSync(
  "git",
  ["ls-files", "--cached", "--others", "--exclude-standard"],
  { cwd: repository },
).stdout.split("\n");

/** What people read. */
export const pages: readonly Page[] = files
  .filter((file) => /^(README|CONTRIBUTING)[\w.-]*\.md$|^docs\/.*\.md$/.test(file))
  .map((file) => parsePage(file, readFileSync(join(repository, file), "utf8")));

/** A command of a page, and how it is run; undefined where nobody knows. */
export interface Known {
  readonly page: string;
  readonly command: Command;
  readonly way: Way | { readonly in: "nowhere"; readonly needs: string } | undefined;
}

export function knownCommands(page: Page): Known[] {
  return page.blocks
    .filter(({ language }) => language === "console")
    .flatMap((block) =>
      commandsOf(block).map((command) => ({ page: page.path, command, way: wayIn(page, block, command) })),
    );
}

function wayIn({ path }: Page, { needs }: Block, { text }: Command): Known["way"] {
  const need = needs ?? needOf(path, text);
  return need === undefined ? wayOf(text) : { in: "nowhere", needs: need };
}
