import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cached, type Say } from "./cache";
import { go, modules, requireGo } from "./goBuild";

const PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint";

/**
 * The linter of GitHub's workflows, built from its Go modules (once; a quarter of a minute). Always the pinned version: another one
 * finds other things.
 */
export async function resolveActionlint(say: Say): Promise<string> {
  const directory = join(modules, "actionlint");
  const hash = createHash("sha256").update(`${process.platform} ${process.arch}`);
  for (const name of ["go.mod", "go.sum"]) hash.update(readFileSync(join(directory, name)));
  const folder = await cached(`actionlint-${hash.digest("hex").slice(0, 16)}`, say, async (target) => {
    await requireGo("There is no actionlint here", "leave out what needs it: scripts/test lists its parts");
    say("building actionlint from its Go modules (once)");
    await go(["build", "-ldflags", "-s -w", "-o", join(target, "actionlint"), PACKAGE], directory);
  });
  return join(folder, "actionlint");
}
