import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { compareVersions } from "./versions";

const run = promisify(execFile);

const OLDEST_GO = "1.24";

/** The folder of the pinned Go modules. */
export const modules = join(dirname(fileURLToPath(import.meta.url)), "go");

/** Runs `go ARGS` in one of the pinned modules. @returns its output @throws an Error with its last words */
export async function go(args: string[], cwd: string): Promise<string> {
  const env = {
    ...process.env,
    GOFLAGS: "-mod=readonly -buildvcs=false -trimpath",
    GOWORK: "off",
    CGO_ENABLED: "0",
  };
  try {
    const { stdout } = await run("go", args, { cwd, env, maxBuffer: 64 * 1024 * 1024 });
    return stdout.trim();
  } catch (error) {
    const { stderr = "", message } = error as Error & { stderr?: string };
    const tail = (stderr || message).trim().split("\n").slice(-30).join("\n");
    throw new Error(
      `"go ${args.join(" ")}" failed in ${cwd}:\n${tail}\n` +
        "Can Go reach its module proxy (go env GOPROXY)? Otherwise install the program yourself and put it on the PATH.",
    );
  }
}

/**
 * @param lacking what is not there, continued by what a build needs
 * @param instead what to do instead of installing Go
 * @throws an Error with both when there is no Go that is new enough
 */
export async function requireGo(lacking: string, instead: string): Promise<void> {
  const version = await run("go", ["env", "GOVERSION"]).then(
    ({ stdout }) => stdout.trim(),
    () => "",
  );
  if (version !== "" && compareVersions(version, OLDEST_GO) >= 0) return;
  throw new Error(
    `${lacking}, and to build it from its modules, Go ${OLDEST_GO} or newer is needed (found: ${version || "none"}).\n` +
      "Do one of these, then run this again:\n" +
      "  - install Go from go.dev/dl or your distribution (package golang-go, if it is new enough)\n" +
      `  - ${instead}`,
  );
}
