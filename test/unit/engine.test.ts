import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findCommit } from "../../components/commits";
import { findEngine } from "../../components/speechEngine";
import { pinnedCommit } from "../../config/schema";
import { cluster } from "./config-fixture";

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "engine-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function engineOf(app: Record<string, unknown>) {
  const engine = await findEngine(cluster({ service: { engine: "cosyvoice" }, app }));
  assert.ok(!("problems" in engine), JSON.stringify(engine));
  return engine;
}

describe("the engine cosyvoice", () => {
  it("is upstream's pinned commit with the committed lock file, whose CUDA says which driver", async () => {
    const { commit, driver, environment, environmentSpace, lock, checksums } = await engineOf({});
    assert.deepEqual(
      { commit, driver, environmentSpace, checksums },
      { commit: pinnedCommit, driver: "525.60.13", environmentSpace: 12, checksums: undefined },
    );
    assert.match(environment, /^[0-9a-f]{16}-3\.11$/);
    assert.match(lock, /\/app\/engine\/cosyvoice\.txt$/);
  });

  it("has another name when a part of it is another", async () => {
    const lock = file("lock", "a==1 --hash=sha256:00\n");
    const sums = file("sums", `${"0".repeat(64)}  llm.pt\n`);
    const other = "0".repeat(40);
    const engines = await Promise.all(
      [
        {},
        { ref: other },
        { requirements: lock },
        { environment: "uv" },
        { model: { revision: "v1" } },
        { model: { hub: "modelscope" } },
        { model: { checksums: sums } },
        { model: { id: "a/b" } },
      ].map(engineOf),
    );
    assert.equal(new Set(engines.map(({ name }) => name)).size, engines.length);
    const [first] = engines;
    for (const same of [{ fp16: true }, { gpuMemory: 20 }, { wheels: "/srv/wheels" }]) {
      assert.equal((await engineOf(same)).name, first?.name, JSON.stringify(same));
    }
  });

  it("has the same weights wherever they come from, when their hashes are given", async () => {
    const sums = file("sums", `${"0".repeat(64)}  CosyVoice-BlankEN/config.json\n`);
    const [hub, directory] = await Promise.all([
      engineOf({ model: { checksums: sums } }),
      engineOf({ model: { checksums: sums, directory: "/srv/weights" } }),
    ]);
    assert.equal(hub.name, directory.name);
  });

  it("asks for no driver for a lock file without CUDA, and for that of the CUDA that is in it", async () => {
    const plain = await engineOf({ requirements: file("plain", "a==1 --hash=sha256:00\n") });
    assert.deepEqual([plain.driver, plain.environmentSpace], [undefined, 1]);
    const newer = file("newer", "nvidia-cuda-runtime==13.0.96 \\\n    --hash=sha256:00\n");
    assert.equal((await engineOf({ requirements: newer })).driver, "580.65.06");
  });

  it("is refused with all that is wrong with its files", async () => {
    const app = {
      source: join(folder, "nowhere"),
      ref: "0".repeat(40),
      requirements: file("lock", "a==1\n"),
      model: { checksums: file("sums", `${"0".repeat(64)}  ../out\nabc  llm.pt\n`) },
    };
    const found = await findEngine(cluster({ service: { engine: "cosyvoice" }, app }));
    assert.ok("problems" in found);
    assert.deepEqual(
      found.problems.map(({ path, message }) => `${path} ${message}`),
      [
        "app.requirements has no hashes",
        "app.model.checksums has a line that is not a hash and a path inside the model's directory, as sha256sum prints them",
        "app.model.checksums has a line that is not a hash and a path inside the model's directory, as sha256sum prints them",
      ],
    );
    const none = { requirements: "/nowhere/lock", model: { checksums: "/nowhere/sums" } };
    const missing = await findEngine(cluster({ service: { engine: "cosyvoice" }, app: none }));
    assert.ok("problems" in missing);
    assert.deepEqual(
      missing.problems.map(({ path, message }) => `${path} ${message}`),
      ["app.requirements cannot be read (ENOENT)", "app.model.checksums cannot be read (ENOENT)"],
    );
  });
});

describe("the commit that a ref means", () => {
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=made up", "-c", "user.email=made@up", ...args], {
      cwd: folder,
      encoding: "utf8",
    }).trim();

  beforeEach(() => {
    git("init", "--quiet", "--initial-branch=main");
    git("commit", "--quiet", "--allow-empty", "-m", "one");
    git("tag", "--annotate", "-m", "made up", "v1");
    git("commit", "--quiet", "--allow-empty", "-m", "two");
  });

  it("is asked of the repository for a branch and a tag, and not for a commit", async () => {
    assert.equal(await findCommit(folder, "main"), git("rev-parse", "HEAD"));
    assert.equal(await findCommit(folder, "v1"), git("rev-parse", "HEAD~1"));
    assert.equal(await findCommit("/nowhere", "0".repeat(40)), "0".repeat(40));
  });

  it("is not guessed", async () => {
    git("branch", "v1");
    const both = await findCommit(folder, "v1");
    assert.ok(typeof both !== "string");
    assert.match(both.message, /^is a branch \([0-9a-f]{40}\) and a tag \([0-9a-f]{40}\) of /);
    const none = await findCommit(folder, "v2");
    assert.ok(typeof none !== "string");
    assert.equal(none.path, "app.ref");
    assert.match(none.message, /^is neither a branch nor a tag of /);
    const nowhere = await findCommit(join(folder, "nowhere"), "main");
    assert.ok(typeof nowhere !== "string");
    assert.equal(nowhere.path, "app.source");
    assert.match(nowhere.message, /^cannot be asked which commit main is \(fatal: /);
  });
});
