import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  createWriteStream,
  existsSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { mkdir } from "node:fs/promises";
import { delimiter, dirname, join, sep } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { cached, remembered, type Say, sha256, toolchainDir } from "./cache";
import { go, modules, requireGo } from "./goBuild";
import { compareVersions } from "./versions";

const run = promisify(execFile);

/** A `pulumi` that works, and whether this resolver put it there. */
export interface Cli {
  readonly path: string;
  readonly version: string;
  readonly origin: "installed" | "official" | "built";
}

/** Older ones have not been tried with this SDK. */
const OLDEST = "3.185.0";

/**
 * The vendor's own build, and its checksums (as nixpkgs records them for `pulumi-bin`), so that nothing that was
 * changed on the way is ever run.
 */
const OFFICIAL = {
  version: "3.221.0",
  site: "https://get.pulumi.com",
  sha256: {
    "linux-x64": "fe736f91b4153f94f859870e34dda01e648552c25f702c8a42282acf3a5db9ad",
    "linux-arm64": "baaf077a8b851da4fd1f6434860b56fec43f877709fe5a22ed3bbd335af57a37",
  } as Readonly<Record<string, string>>,
};

/** What is built where the vendor's site is out of reach. */
const BUILT = {
  version: "3.185.0",
  cli: "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
  versionVariable: "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
  sdk: "github.com/pulumi/pulumi/sdk/v3",
  host: "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs",
  scripts: ["pulumi-analyzer-policy", "pulumi-resource-pulumi-nodejs"],
};

const DAY = 24 * 3600_000;

/** The first program of that name on the PATH that does not lie in our own cache. */
export function findOnPath(name: string): string | undefined {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = join(folder, name);
    if (folder === "" || !statSync(path, { throwIfNoEntry: false })?.isFile()) continue;
    if (!realpathSync(path).startsWith(toolchainDir() + sep)) return path;
  }
  return undefined;
}

async function installed(say: Say): Promise<Cli | undefined> {
  const path = findOnPath("pulumi");
  if (!path) return undefined;
  const { size, mtimeMs } = statSync(path);
  const key = createHash("sha256").update(`${path}\0${size}\0${mtimeMs}`).digest("hex").slice(0, 16);
  const version = await remembered(`installed-${key}`, 365 * DAY, async () => {
    const env = { ...process.env, PULUMI_SKIP_UPDATE_CHECK: "true" };
    return run(path, ["version"], { env, timeout: 20_000 }).then(
      ({ stdout }) => stdout.trim(),
      () => "",
    );
  });
  if (compareVersions(version, OLDEST) < 0) {
    say(`${path} is version ${version || "unknown"}, but ${OLDEST} or newer is needed: not used`);
    return undefined;
  }
  const host = join(dirname(realpathSync(path)), "pulumi-language-nodejs");
  if (!existsSync(host) && !findOnPath("pulumi-language-nodejs")) {
    say(`${path} comes without pulumi-language-nodejs, which runs TypeScript programs: not used`);
    return undefined;
  }
  return { path, version, origin: "installed" };
}

/** Whether the vendor's site answers. A refusal or a name that is not found is known at once, silence after 3 s. */
export async function vendorReachable(): Promise<boolean> {
  return remembered("vendor-reachable", DAY, async () => {
    try {
      const answer = await fetch(`${OFFICIAL.site}/`, { method: "HEAD", signal: AbortSignal.timeout(3000) });
      return answer.status < 500;
    } catch {
      return false;
    }
  });
}

async function official(say: Say): Promise<Cli | undefined> {
  const system = `${process.platform}-${process.arch}`;
  const expected = OFFICIAL.sha256[system];
  if (!expected) return undefined;
  const key = `pulumi-${OFFICIAL.version}-${expected.slice(0, 16)}`;
  const present = existsSync(join(toolchainDir(), key));
  if (!present && !(await vendorReachable())) return undefined;
  try {
    const folder = await cached(key, say, async (target) => {
      say(`downloading pulumi ${OFFICIAL.version} from its vendor`);
      const archive = join(target, "archive.tar.gz");
      const url = `${OFFICIAL.site}/releases/sdk/pulumi-v${OFFICIAL.version}-${system}.tar.gz`;
      const answer = await fetch(url, { signal: AbortSignal.timeout(10 * 60_000) });
      if (!answer.ok || !answer.body) throw new Error(`${url} answered ${answer.status}`);
      await pipeline(
        Readable.fromWeb(answer.body as Parameters<typeof Readable.fromWeb>[0]),
        createWriteStream(archive),
      );
      const found = await sha256(archive);
      if (found !== expected) {
        throw new Error(`${url} has the checksum ${found} instead of ${expected}: it is not what was pinned`);
      }
      await mkdir(join(target, "bin"));
      await run("tar", ["-xzf", archive, "--strip-components=1", "-C", join(target, "bin")]);
      await run("rm", [archive]);
    });
    return { path: join(folder, "bin", "pulumi"), version: OFFICIAL.version, origin: "official" };
  } catch (error) {
    say(`the vendor's pulumi could not be had: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
}

async function built(say: Say): Promise<Cli> {
  const hash = createHash("sha256").update(`${BUILT.version} ${process.platform} ${process.arch}`);
  for (const name of ["cli/go.mod", "cli/go.sum", "nodejs/go.mod", "nodejs/go.sum"]) {
    hash.update(readFileSync(join(modules, name)));
  }
  const folder = await cached(`built-${hash.digest("hex").slice(0, 16)}`, say, async (target) => {
    await requireGo(
      `There is no usable pulumi here: none on the PATH (${OLDEST} or newer), the vendor's site ${OFFICIAL.site} cannot be ` +
        "reached",
      "install pulumi from www.pulumi.com/docs/install and put it on the PATH",
    );
    const bin = join(target, "bin");
    const start = Date.now();
    say(`building pulumi ${BUILT.version} from its Go modules (once; 1 to 4 minutes)`);
    const flags = `-s -w -X ${BUILT.versionVariable}=v${BUILT.version}`;
    await go(["build", "-ldflags", flags, "-o", join(bin, "pulumi"), BUILT.cli], join(modules, "cli"));
    await go(
      ["build", "-ldflags", "-s -w", "-o", join(bin, "pulumi-language-nodejs"), BUILT.host],
      join(modules, "nodejs"),
    );
    const source = await go(["list", "-m", "-f", "{{.Dir}}", BUILT.sdk], join(modules, "nodejs"));
    for (const name of BUILT.scripts) {
      copyFileSync(join(source, "nodejs", "dist", name), join(bin, name));
      chmodSync(join(bin, name), 0o755);
    }
    say(`built pulumi ${BUILT.version} in ${Math.round((Date.now() - start) / 1000)} s`);
  });
  return { path: join(folder, "bin", "pulumi"), version: BUILT.version, origin: "built" };
}

/**
 * Finds or makes a `pulumi`: an installed one, the vendor's build, one built from its Go modules.
 *
 * @throws an Error that says what to install when none of the three can be had
 */
export async function resolveCli(say: Say): Promise<Cli> {
  return (await installed(say)) ?? (await official(say)) ?? (await built(say));
}
