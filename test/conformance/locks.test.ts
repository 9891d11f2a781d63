import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { repository } from "../../scripts/lib/paths";
import { resolveToolchain } from "../../scripts/toolchain";

const here = dirname(fileURLToPath(import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly text: string;
}

interface Command {
  readonly create: string;
  readonly delete?: string;
  readonly after?: string;
}

/** What `scripts/pulumi` and `scripts/cluster unlock` do about a `pulumi` that was killed: with the real one. */
describe("a killed pulumi", () => {
  let folder: string;
  let env: NodeJS.ProcessEnv;
  const children = new Set<ChildProcess>();
  const left = new Set<number>();

  before(async () => {
    // What it prepares, if anything, is not part of the tests' time.
    await resolveToolchain();
  });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "locks-"));
    mkdirSync(join(folder, "backend"));
    const project = join(folder, "project");
    cpSync(join(here, "program"), project, { recursive: true });
    symlinkSync(join(repository, "node_modules"), join(project, "node_modules"));
    // The name of this project: `scripts/cluster` knows no other.
    const file = join(project, "Pulumi.yaml");
    writeFileSync(file, readFileSync(file, "utf8").replace(/^name: .*$/m, "name: cosyvoice-lvs"));
    env = {
      ...process.env,
      PULUMI_BACKEND_URL: `file://${join(folder, "backend")}`,
      PULUMI_CONFIG_PASSPHRASE: "locks",
      PULUMI_STACK: "s",
      CONFORMANCE_PROGRAM: join(folder, "program.json"),
      NO_COLOR: "1",
    };
    program({});
    assert.equal((await ended(pulumi("stack", "init", "s", "--no-select"))).code, 0);
  });
  afterEach(() => {
    // What a killed pulumi started outlives it; and a test that failed may have left one at work.
    for (const child of children) if (child.pid) for (const { pid } of descendants(child.pid)) left.add(pid);
    for (const pid of left) tryKill(pid);
    for (const child of children) child.kill("SIGKILL");
    left.clear();
    children.clear();
    rmSync(folder, { recursive: true, force: true });
  });

  const program = (commands: Record<string, Command>) => {
    const resources = Object.entries(commands).map(([name, { create, delete: remove, after }]) => ({
      name,
      type: "local.Command",
      args: { create, ...(remove === undefined ? {} : { delete: remove }), dir: folder },
      options: { dependsOn: after === undefined ? [] : [after] },
    }));
    writeFileSync(join(folder, "program.json"), JSON.stringify({ resources }));
  };
  const script = (name: string, cwd: string, args: readonly string[]) => {
    const stdio = ["ignore", "pipe", "pipe"] as const;
    const child = spawn(join(repository, "scripts", name), args, { cwd, env, stdio: [...stdio] });
    children.add(child);
    child.on("exit", () => children.delete(child));
    return child;
  };
  const pulumi = (...args: string[]) => script("pulumi", join(folder, "project"), args);
  const up = () => pulumi("up", "--yes", "--non-interactive", "--skip-preview", "--color", "never");
  const unlock = (...args: string[]) => script("cluster", folder, ["unlock", "--stack", "s", ...args]);
  const log = () => (existsSync(join(folder, "log")) ? readFileSync(join(folder, "log"), "utf8") : "");
  const checkpoint = () => {
    const file = join(folder, "backend", ".pulumi", "stacks", "cosyvoice-lvs", "s.json");
    return JSON.parse(readFileSync(file, "utf8")).checkpoint.latest;
  };
  const pending = () => (checkpoint().pending_operations ?? []).map(({ type }: { type: string }) => type);

  /** Kills the `pulumi` below a wrapper, or with it everything it has started, when the log has a line. */
  async function killAt(wrapper: ChildProcess, line: string, all: boolean): Promise<void> {
    const end = ended(wrapper);
    await until(() => log().includes(line), `"${line}" in the log`);
    // The state is written a moment after the step begins.
    await until(() => pending().length > 0, "a pending operation");
    const [cli, ...others] = descendants(wrapper.pid ?? 0);
    assert.ok(cli, "pulumi runs below its wrapper");
    for (const { pid } of others) left.add(pid);
    for (const { pid } of all ? [...others, cli] : [cli]) tryKill(pid);
    assert.notEqual((await end).code, 0);
  }

  it("has its lock explained and lifted, and the next up finishes the job", async () => {
    program({
      slow: { create: "echo slow >>log; sleep 2; echo done" },
      next: { create: "echo next >>log", after: "slow" },
    });
    await killAt(up(), "slow", false);

    const refused = await ended(up());
    assert.notEqual(refused.code, 0);
    assert.match(
      refused.text,
      /The stack "s" is locked, so that nobody else changes it at the same time, by\n/,
    );
    const who = new RegExp(`@${hostname()}, process \\d+, since .* UTC \\(\\d+ seconds? ago\\): (.*)\n`);
    // Where nobody collects orphans it stays as a zombie, which the kernel shows as one that has ended.
    assert.match(
      who.exec(refused.text)?.[1] ?? refused.text,
      /^there is no such process any more$|^it has ended$/,
    );
    assert.match(refused.text, /which finishes what was begun:\n {2}scripts\/cluster unlock --stack s\n$/);

    const unlocked = await ended(unlock());
    assert.equal(unlocked.code, 0, unlocked.text);
    assert.match(unlocked.text, /^Lifted: /m);
    assert.match(unlocked.text, /^ {2}slow, creating$/m);

    const finished = await ended(up());
    assert.equal(finished.code, 0, finished.text);
    assert.doesNotMatch(finished.text, /pending operations/);
    assert.equal(log(), "slow\nslow\nnext\n");
    assert.deepEqual(pending(), []);
  });

  it("in the middle of a change that is then taken back: what was there before is put back", async () => {
    const before = { file: { create: "echo before >>log" } };
    program(before);
    assert.equal((await ended(up())).code, 0);
    program({ file: { create: "echo after >>log; sleep 30" } });
    await killAt(up(), "after", true);
    program(before);

    const unlocked = await ended(unlock());
    assert.match(unlocked.text, /^ {2}file, updating$/m);
    assert.equal((await ended(up())).code, 0);
    assert.equal(log(), "before\nafter\nbefore\n");
    const again = await ended(up());
    assert.match(again.text, /2 unchanged/, "and the state is as if nothing had happened");
    assert.doesNotMatch(JSON.stringify(checkpoint()), /INTERRUPTED/);
  });

  it("in the middle of a removal: the next up removes it", async () => {
    program({ file: { create: "true", delete: "echo removing >>log; sleep 2; echo removed >>log" } });
    assert.equal((await ended(up())).code, 0);
    program({});
    await killAt(up(), "removing", true);
    assert.equal((await ended(unlock())).code, 0);
    assert.equal((await ended(up())).code, 0);
    assert.equal(log(), "removing\nremoving\nremoved\n");
    assert.ok(!JSON.stringify(checkpoint()).includes("::file"));
  });

  it("is not taken for one that is at work, which the second up names and unlock leaves alone", async () => {
    program({ slow: { create: "echo slow >>log; while ! test -e go; do sleep 0.1; done; echo done >>log" } });
    const first = ended(up());
    await until(() => log().includes("slow"), "the first up at work");

    const second = await ended(up());
    assert.notEqual(second.code, 0);
    assert.match(second.text, /process \d+, since .*: it is at work\nWait until it has ended/);
    for (const args of [[], ["--force"]]) {
      const refused = await ended(unlock(...args));
      assert.equal(refused.code, 1, refused.text);
      assert.match(refused.text, /^Kept: .*: it is at work$/m);
    }
    writeFileSync(join(folder, "go"), "");
    const { code, text } = await first;
    assert.equal(code, 0, text);
    assert.equal(log(), "slow\ndone\n");
    assert.match((await ended(unlock())).text, /The stack "s" is not locked/);
  });

  it("is not looked for on a stack that does not exist", async () => {
    const { code, text } = await ended(script("cluster", folder, ["unlock", "--stack", "nowhere"]));
    assert.equal(code, 2, text);
    assert.match(text, /The backend that Pulumi is logged in to has no such stack \(pulumi stack ls\)/);
    assert.doesNotMatch(text, /is not locked/);
  });

  it("on another computer: only with --force, after somebody has looked", async () => {
    const locks = join(folder, "backend", ".pulumi", "locks", "organization", "cosyvoice-lvs", "s");
    mkdirSync(locks, { recursive: true });
    const lock = {
      pid: 1,
      username: "anna",
      hostname: "other-computer",
      timestamp: new Date().toISOString(),
    };
    writeFileSync(join(locks, "0.json"), JSON.stringify(lock));

    const refused = await ended(unlock());
    assert.equal(refused.code, 1);
    assert.match(refused.text, /^Kept: anna@other-computer, process 1, .*: that is another computer/m);
    assert.match(refused.text, /ps -p NUMBER.*\n {2}scripts\/cluster unlock --stack s --force$/m);
    assert.equal((await ended(unlock("--force"))).code, 0);
    assert.deepEqual(readdirSync(locks), []);
  });

  it("adds nothing to a failure that has another reason", async () => {
    program({ wrong: { create: "exit 3" } });
    const { code, text } = await ended(up());
    assert.notEqual(code, 0);
    assert.doesNotMatch(text, /locked/);
  });
});

function ended(child: ChildProcess): Promise<Ended> {
  const output: Buffer[] = [];
  child.stdout?.on("data", (chunk: Buffer) => output.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => output.push(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    // Not "close": what a killed pulumi has started keeps the pipes.
    child.on("exit", (code) =>
      setTimeout(() => resolve({ code, text: Buffer.concat(output).toString() }), 50),
    );
  });
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const start = Date.now(); !condition(); ) {
    if (Date.now() - start > 60_000) throw new Error(`after a minute there is no ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A process' children, their children and so on, parents first. */
function descendants(root: number): { pid: number }[] {
  const parents = readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((entry) => {
      try {
        const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
        return [{ pid: Number(entry), parent: Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) }];
      } catch {
        return [];
      }
    });
  const below = (pid: number): { pid: number }[] =>
    parents
      .filter(({ parent }) => parent === pid)
      .flatMap((child) => [{ pid: child.pid }, ...below(child.pid)]);
  return below(root);
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
