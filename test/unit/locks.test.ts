import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { ago } from "../../scripts/lib/time";
import { fileBackend, judge, projectName, readLocks } from "../../scripts/toolchain/locks";

describe("the locks of a stack", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "locks-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const backends: [url: string, directory: string | undefined][] = [
    ["file://~", homedir()],
    ["file://~/state", join(homedir(), "state")],
    ["file:///srv/state?no_tmp_dir=true", "/srv/state"],
    ["file://./state", "/project/state"],
    ["file://~other", "/project/~other"],
    ["s3://bucket", undefined],
    ["https://api.pulumi.com", undefined],
  ];
  for (const [url, directory] of backends) {
    it(`${url} is ${directory === undefined ? "not kept in files" : `in ${directory}`}`, () =>
      assert.equal(fileBackend(url, "/project"), directory));
  }

  it("are read oldest first, of the one stack", async () => {
    const put = (stack: string, name: string, text: string) => {
      const locks = join(folder, ".pulumi", "locks", "organization", "project", stack);
      mkdirSync(locks, { recursive: true });
      writeFileSync(join(locks, name), text);
    };
    const lock = (pid: number, timestamp: string) =>
      JSON.stringify({ pid, username: "u", hostname: "h", timestamp });
    put("s", "b.json", lock(1, "2026-01-02T00:00:00.123456789Z"));
    put("s", "a.json", lock(2, "2026-01-02T00:00:00+01:00"));
    put("s", "a.json.attrs", "{}");
    put("other", "c.json", lock(3, "2026-01-01T00:00:00Z"));
    for (const name of ["s", "organization/project/s"]) {
      const locks = await readLocks(folder, "project", name);
      assert.deepEqual(
        locks.map(({ holder }) => holder?.pid),
        [2, 1],
      );
    }
    assert.deepEqual(await readLocks(folder, "project", "none"), []);
    put("cut", "d.json", '{"pid": 1');
    const [cut] = await readLocks(folder, "project", "cut");
    assert.ok(cut);
    assert.equal(judge(cut).state, "unknown");
  });

  describe("are judged by the processes of this computer", () => {
    const BOOT = 1_700_000_000;
    const since = (BOOT + 1000) * 1000;
    const holder = { pid: 7, username: "u", hostname: "here", since };
    const lock = { file: "lock.json", holder };

    /** A /proc with a computer that was started at BOOT. */
    const proc = (): string => {
      mkdirSync(join(folder, "self"), { recursive: true });
      writeFileSync(join(folder, "self", "stat"), "");
      writeFileSync(join(folder, "stat"), `cpu 1 2 3\nbtime ${BOOT}\n`);
      return folder;
    };
    /** A process there that was started so many seconds after the computer. */
    const start = (pid: number, name: string, seconds: number, state = "S", inside?: number) => {
      mkdirSync(join(folder, String(pid)), { recursive: true });
      const fields = [
        state,
        ..."1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0".split(" "),
        String(seconds * 100),
        "0",
      ];
      writeFileSync(join(folder, String(pid), "stat"), `${pid} (${name}) ${fields.join(" ")}\n`);
      const numbers = inside === undefined ? [pid] : [pid, inside];
      writeFileSync(join(folder, String(pid), "status"), `Name:\t${name}\nNSpid:\t${numbers.join("\t")}\n`);
    };
    const judged = () => judge(lock, { hostname: "here", proc: proc() });

    const cases: [what: string, prepare: () => void, state: string, because: RegExp][] = [
      ["a pulumi at work", () => start(7, "pulumi", 998), "alive", /^it is at work$/],
      ["a wrapped pulumi at work", () => start(7, ".pulumi-wrapped", 998), "alive", /at work/],
      ["nobody there", () => start(8, "pulumi", 998), "dead", /no such process/],
      ["a zombie", () => start(7, "pulumi", 998, "Z"), "dead", /^it has ended$/],
      [
        "another program with its number",
        () => start(7, "a (b) c", 1100),
        "dead",
        /"a \(b\) c", started at 2023-11-14 22:31:40 UTC$/,
      ],
      ["another pulumi with its number", () => start(7, "pulumi", 1100), "dead", /now belongs to "pulumi"/],
      ["a number of older date", () => start(7, "sshd", 5), "unknown", /was it in a container/],
      [
        "one in a container",
        () => start(900, "pulumi", 998, "S", 7),
        "unknown",
        /container here \(process 900\)/,
      ],
    ];
    for (const [what, prepare, state, because] of cases) {
      it(`${what}: ${state}`, () => {
        prepare();
        const verdict = judged();
        assert.equal(verdict.state, state, verdict.because);
        assert.match(verdict.because, because);
      });
    }
    it("one from before this computer was started: dead, whoever has its number now", () => {
      start(7, "pulumi", 1);
      const before = { file: "lock.json", holder: { ...holder, since: (BOOT - 60) * 1000 } };
      assert.match(judge(before, { hostname: "here", proc: proc() }).because, /started after that/);
    });
    it("another computer's: unknown", () => {
      assert.equal(judge(lock, { hostname: "there", proc: proc() }).state, "unknown");
    });
    it("this very process: not a pulumi, and older than a lock of now", () => {
      const own = { file: "lock.json", holder: { ...holder, pid: process.pid, since: Date.now() + 60_000 } };
      assert.equal(judge(own, { hostname: "here", proc: "/proc" }).state, "unknown");
    });
  });

  it("finds the project's name upwards", () => {
    const below = join(folder, "a", "b");
    mkdirSync(below, { recursive: true });
    writeFileSync(join(folder, "Pulumi.yaml"), "name: here\n");
    assert.equal(projectName(below), "here");
  });

  it("tells spans of time in one unit", () => {
    assert.deepEqual([0, 1000, 59_400, 61_000, 7_300_000, 172_800_000].map(ago), [
      "0 seconds ago",
      "1 second ago",
      "59 seconds ago",
      "1 minute ago",
      "2 hours ago",
      "2 days ago",
    ]);
  });
});
