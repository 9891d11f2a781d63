import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { cacheDir, repository } from "../scripts/lib/paths";

/** Draws an SVG for every result in `directory`, in a Python environment that is made once for each state of the lock file. */
export async function drawPlots(directory: string, note: (text: string) => void): Promise<void> {
  const python = join(await environment(note), "bin/python");
  await execa(python, [join(repository, "bench/plots.py"), directory], { stdin: "ignore" });
}

async function environment(note: (text: string) => void): Promise<string> {
  const lock = join(repository, "bench/requirements.txt");
  const version = (await execa("python3", ["-V"])).stdout;
  const hash = createHash("sha256")
    .update(version)
    .update(await readFile(lock));
  const directory = join(cacheDir(), "python", `bench-${hash.digest("hex").slice(0, 16)}`);
  const complete = join(directory, ".complete");
  if (existsSync(complete)) return directory;
  note("making the environment for the plots");
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(cacheDir(), "python"), { recursive: true });
  await execa("python3", ["-m", "venv", directory]);
  const install = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes"];
  await execa(join(directory, "bin/pip"), [...install, "--only-binary", ":all:", "-r", lock]);
  await writeFile(complete, "");
  return directory;
}
