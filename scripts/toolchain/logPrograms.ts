import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cached, type Say } from "./cache";
import { go, modules, requireGo } from "./goBuild";

/** What ships logs and what keeps them, as the machines get them from their vendors. */
export interface LogPrograms {
  readonly collector: string;
  readonly loki: string;
}

/**
 * Builds both of their Go modules, at the versions of config/sections/programs.ts and under the names that the vendors' archives have. Once;
 * they stay in the cache.
 */
export async function logPrograms(say: Say): Promise<LogPrograms> {
  const build = async (name: string, program: string, target: string) => {
    const hash = createHash("sha256").update(`${program} ${target} ${process.platform} ${process.arch}`);
    for (const file of ["go.mod", "go.sum", ...(target === "." ? ["main.go"] : [])])
      hash.update(readFileSync(join(modules, name, file)));
    const folder = await cached(`${name}-${hash.digest("hex").slice(0, 16)}`, say, async (into) => {
      await requireGo(`There is no ${name} here`, "leave out what needs it: scripts/test lists its parts");
      say(`building ${name} from its Go modules (once; 1 to 5 minutes)`);
      await go(["build", "-ldflags", "-s -w", "-o", join(into, program), target], join(modules, name));
    });
    return join(folder, program);
  };
  return {
    collector: await build("collector", "otelcol-contrib", "."),
    loki: await build("loki", "loki-linux-amd64", "github.com/grafana/loki/v3/cmd/loki"),
  };
}
