/** The programs that read on a machine what is rendered here. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { paths } from "../../render";

const packages: Readonly<Record<string, string>> = {
  keepalived: "keepalived",
  "systemd-analyze": "systemd",
  bash: "bash",
  shellcheck: "shellcheck",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
  python3: "python3",
  // nft itself runs inside it: checking rules takes the rights of a network namespace.
  unshare: "util-linux nftables",
};

// Debian keeps keepalived where the PATH of an unprivileged user does not lead.
export const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, LC_ALL: "C.UTF-8" };

/** Runs a program and gives what it said, both streams together. */
export function run(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
) {
  const result = spawnSync(program, args, {
    encoding: "utf8",
    cwd: options.cwd,
    env: { ...env, ...options.env },
  });
  if (result.error !== undefined) {
    throw new Error(`cannot run ${program} (${result.error.message}): apt-get install ${packages[program]}`);
  }
  return { status: result.status, said: result.stdout + result.stderr };
}

// They are not on the machine that tests; all else that systemd-analyze verify says is a mistake.
const ownPrograms = [
  paths.healthPoller,
  paths.turns,
  paths.vrrpGuard,
  paths.vipOnLo,
  paths.keepMounted,
  paths.engineProgram,
  paths.vipMover,
  paths.allowances,
  paths.exporter,
  paths.alertRelay,
  `${paths.fetched}/collector/current/otelcol-contrib`,
  `${paths.fetched}/loki/current/loki-linux-amd64`,
  `${paths.fetched}/grafana/current/bin/grafana`,
  "/usr/sbin/nginx",
  join(paths.service, "run.sh"),
];

/** What systemd has to say about a unit in a folder of units. */
export function verifyUnit(folder: string, ...units: readonly string[]): string {
  const { said } = run(
    "systemd-analyze",
    ["verify", "--man=no", "--recursive-errors=no", ...units.map((unit) => join(folder, unit))],
    {
      // Our units first; the empty entry at the end stands for the system's own.
      env: { SYSTEMD_UNIT_PATH: `${folder}:` },
    },
  );
  return said
    .split("\n")
    .filter((line) => !ownPrograms.some((program) => line.includes(`Command ${program} is not executable: `)))
    .join("\n")
    .trim();
}

/** The distribution's units, by the names of our files that add to them. */
const packaged: Readonly<Record<string, string>> = {
  keepalived: "keepalived",
  prometheus: "prometheus",
  alertmanager: "prometheus-alertmanager",
  prober: "prometheus-blackbox-exporter",
  "node-exporter": "prometheus-node-exporter",
  "node-exporter-director": "prometheus-node-exporter",
};

/** A unit of the distribution with what a golden file adds to it. */
export function withPackaged(file: string, added: string): { readonly unit: string; readonly text: string } {
  const name = packaged[file.replace(".service.d.conf", "")];
  if (name === undefined) throw new Error(`no package is known whose unit ${file} is added to`);
  const unit = `${name}.service`;
  return { unit, text: `${readFileSync(join("/lib/systemd/system", unit), "utf8")}\n${added}` };
}
