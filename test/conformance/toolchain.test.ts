import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { globToRegExp } from "../../lab/plugins/command/local";
import { cached, remembered, toolchainDir } from "../../scripts/toolchain/cache";
import { resolveCli } from "../../scripts/toolchain/cli";
import { compareVersions } from "../../scripts/toolchain/versions";

/** The resolver's decisions and its cache, without building or fetching anything. */
describe("the toolchain", () => {
  const { PATH, COSYVOICE_LVS_CACHE } = process.env;
  const { fetch } = globalThis;
  let folder: string;
  const said: string[] = [];
  const say = (line: string) => said.push(line);

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "toolchain-"));
    process.env.COSYVOICE_LVS_CACHE = join(folder, "cache");
    process.env.PATH = join(folder, "bin");
    mkdirSync(join(folder, "bin"));
    globalThis.fetch = () => Promise.reject(new Error("getaddrinfo ENOTFOUND"));
    said.length = 0;
  });
  afterEach(() => {
    process.env.PATH = PATH;
    if (COSYVOICE_LVS_CACHE === undefined) delete process.env.COSYVOICE_LVS_CACHE;
    else process.env.COSYVOICE_LVS_CACHE = COSYVOICE_LVS_CACHE;
    globalThis.fetch = fetch;
    rmSync(folder, { recursive: true, force: true });
  });

  const program = (name: string, text: string) => {
    const path = join(folder, "bin", name);
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
    return path;
  };

  it("compares versions by their numbers", () => {
    assert.ok(compareVersions("v3.185.0", "3.99.1") > 0);
    assert.ok(compareVersions("go1.26.8", "1.24") > 0);
    assert.equal(compareVersions("3.185", "v3.185.0"), 0);
    assert.ok(compareVersions("", "3.185.0") < 0);
  });

  it("takes an installed pulumi that is new enough", async () => {
    const path = program("pulumi", "echo v3.190.0");
    program("pulumi-language-nodejs", "");
    assert.deepEqual(await resolveCli(say), { path, version: "v3.190.0", origin: "installed" });
  });

  it("passes over one that is too old, and says what to install when there is nothing else", async () => {
    const path = program("pulumi", "echo v3.100.0");
    await assert.rejects(
      resolveCli(say),
      /Go 1\.24 or newer is needed \(found: none\)\.\n.*\n {2}- install Go from/,
    );
    assert.deepEqual(said, [`${path} is version v3.100.0, but 3.185.0 or newer is needed: not used`]);
  });

  it("passes over one without the language host", async () => {
    program("pulumi", "echo v3.190.0");
    await assert.rejects(resolveCli(say), /There is no usable pulumi here/);
    assert.match(said.join(), /comes without pulumi-language-nodejs/);
  });

  it("names a Go that is too old", async () => {
    program("go", "echo go1.19.8");
    await assert.rejects(resolveCli(say), /Go 1\.24 or newer is needed \(found: go1\.19\.8\)/);
  });

  it("never runs a download that is not what was pinned", async () => {
    globalThis.fetch = () => Promise.resolve(new Response("not the vendor's archive"));
    await assert.rejects(resolveCli(say), /There is no usable pulumi here/);
    assert.match(
      said.join("\n"),
      /has the checksum [0-9a-f]{64} instead of [0-9a-f]{64}: it is not what was pinned/,
    );
  });

  it("asks for the vendor's site once a day", async () => {
    let asked = 0;
    const ask = async () => ++asked;
    assert.equal(await remembered("question", 60_000, ask), 1);
    assert.equal(await remembered("question", 60_000, ask), 1);
    assert.equal(await remembered("question", -1, ask), 2);
  });

  describe("cache", () => {
    let made = 0;
    const make = async (target: string) => {
      made++;
      writeFileSync(join(target, "file"), `content ${made}`);
    };
    beforeEach(() => {
      made = 0;
    });

    it("makes a folder once", async () => {
      const path = await cached("key", say, make);
      assert.equal(await cached("key", say, make), path);
      assert.equal(made, 1);
      assert.equal(readFileSync(join(path, "file"), "utf8"), "content 1");
    });
    it("makes it again when a file is not what was recorded", async () => {
      const path = await cached("key", say, make);
      // The same size, so that only its checksum gives it away.
      writeFileSync(join(path, "file"), "tampered!");
      utimesSync(join(path, "file"), 1, 1);
      await cached("key", say, make);
      assert.equal(made, 2);
      assert.match(said.join(), /is damaged and is made again/);
    });
    it("accepts a file that was only touched", async () => {
      const path = await cached("key", say, make);
      utimesSync(join(path, "file"), 1, 1);
      await cached("key", say, make);
      assert.equal(made, 1);
    });
    it("leaves nothing behind when making fails", async () => {
      const fail = async (target: string) => {
        writeFileSync(join(target, "half"), "");
        throw new Error("no");
      };
      await assert.rejects(cached("key", say, fail), /^Error: no$/);
      assert.ok(!existsSync(join(toolchainDir(), "key")));
      await cached("key", say, make);
      assert.equal(made, 1);
    });
    it("lets only one make it, and the others wait", async () => {
      const slow = async (target: string) => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        await make(target);
      };
      await Promise.all([cached("key", say, slow), cached("key", say, slow), cached("key", say, slow)]);
      assert.equal(made, 1);
    });
    it("takes the lock of a process that is gone", async () => {
      mkdirSync(join(toolchainDir(), "lock"), { recursive: true });
      writeFileSync(join(toolchainDir(), "lock", "pid"), "999999999");
      await cached("key", say, make);
      assert.equal(made, 1);
    });
  });
});

describe("the stand-in's path patterns", () => {
  const cases: [glob: string, path: string, matches: boolean][] = [
    ["a/*.txt", "a/one.txt", true],
    ["a/*.txt", "a/b/one.txt", false],
    ["a/**.txt", "a/b/one.txt", true],
    ["**", "any/thing", true],
    ["?.js", "x.js", true],
    ["?.js", "/.js", false],
    ["{a,b}.js", "b.js", true],
    ["{a,b}.js", "c.js", false],
    ["[!a]x", "bx", true],
    ["[!a]x", "ax", false],
    ["a+b(1).txt", "a+b(1).txt", true],
  ];
  for (const [glob, path, matches] of cases) {
    it(`${glob} ${matches ? "takes" : "leaves"} ${path}`, () =>
      assert.equal(globToRegExp(glob).test(path), matches));
  }
});
