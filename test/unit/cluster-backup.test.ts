import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { compare, pack, unpack } from "../../scripts/cluster-cli/archive";
import { refuseTarget } from "../../scripts/cluster-cli/backup";
import { compareFiles, compareStates, partsOf, renderPlans } from "../../scripts/cluster-cli/restore";

describe("an archive of scripts/cluster backup", () => {
  let directory: string;
  const at = (...names: string[]) => join(directory, ...names);
  const about = {
    project: "made-up",
    stack: "lab",
    made: "2026-01-31T18:05:09.000Z",
    share: "voices",
  } as const;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "cosyvoice-archive-"));
    await mkdir(at("content", "share", "voices"), { recursive: true });
    await mkdir(at("out"));
    await writeFile(at("content", "state.json"), '{"deployment":{}}');
    await writeFile(at("content", "share", "voices", "a b.wav"), "one");
  });
  afterEach(() => rm(directory, { recursive: true }));

  it("has every file, its hash, and no reader but its owner", async () => {
    const manifest = await pack(at("content"), about, at("archive"));
    assert.deepEqual(Object.keys(manifest.files), ["share/voices/a b.wav", "state.json"]);
    assert.equal((await stat(at("archive"))).mode & 0o777, 0o600);
    assert.deepEqual(await unpack(at("archive"), at("out")), manifest);
    assert.equal(await readFile(at("out", "share", "voices", "a b.wav"), "utf8"), "one");
  });

  it("overwrites no other one", async () => {
    await writeFile(at("archive"), "another");
    await assert.rejects(pack(at("content"), about, at("archive")), /EEXIST/);
    assert.equal(await readFile(at("archive"), "utf8"), "another");
  });

  it("is refused when it is not what was packed, with everything that is wrong", async () => {
    await pack(at("content"), about, at("archive"));
    await writeFile(at("content", "state.json"), '{"deployment":{"resources":[]}}');
    await writeFile(at("content", "new.json"), "{}");
    await rm(at("content", "share", "voices", "a b.wav"));
    await execa("tar", ["-czf", at("other"), "-C", at("content"), "."]);
    await assert.rejects(unpack(at("other"), at("out")), (error: Error) => {
      assert.match(error.message, /differs from what was packed\. Nothing was restored\./);
      assert.match(error.message, /^ {2}new\.json is not in the manifest$/m);
      assert.match(error.message, /^ {2}share\/voices\/a b\.wav is missing$/m);
      assert.match(error.message, /^ {2}state\.json does not match its SHA-256/m);
      return true;
    });
  });

  it("is refused when it is cut off, or something else", async () => {
    await pack(at("content"), about, at("archive"));
    const bytes = await readFile(at("archive"));
    await writeFile(at("short"), bytes.subarray(0, bytes.length / 2));
    await assert.rejects(unpack(at("short"), at("out")), /cannot be read: .*unexpected end/i);
    await assert.rejects(unpack(at("away"), at("out")), /cannot be read: .*No such file or directory$/);
    await execa("tar", ["-czf", at("strange"), "-C", at("content"), "state.json"]);
    await mkdir(at("out2"));
    await assert.rejects(unpack(at("strange"), at("out2")), /is not a backup of scripts\/cluster/);
  });

  it("is refused a place before anything is read for it", async () => {
    await writeFile(at("archive"), "another");
    assert.throws(() => refuseTarget(at("archive")), /is there already: name another file with --output/);
    assert.throws(() => refuseTarget(at("no", "archive")), /There is no directory .*\/no: /);
    refuseTarget(at("archive.new"));
  });

  it("compares hash by hash", () => {
    assert.deepEqual(compare({ a: "1" }, { a: "1" }), []);
    assert.equal(compare({ a: "1", b: "1" }, { a: "2", c: "1" }).length, 3);
  });
});

describe("scripts/cluster restore", () => {
  const state = (time: string, ...urns: string[]) => ({
    deployment: { manifest: { time }, resources: urns.map((urn) => ({ urn })) },
  });

  it("says what would become of the state", () => {
    const [now, then] = [state("2026-02-01T00:00:00Z", "a", "b"), state("2026-01-31T18:05:09Z", "a")];
    assert.deepEqual(compareStates(now, then), {
      now: "2 resources, of 2026-02-01 00:00:00 UTC",
      after: "overwritten by 1 resource, of 2026-01-31 18:05:09 UTC",
      changes: true,
    });
    // Written again, with nothing new in it.
    assert.equal(compareStates(now, state("2026-01-31T18:05:09Z", "a", "b")).changes, false);
    // What is encrypted is another text each time.
    const encrypted = (ciphertext: string) => ({
      deployment: { resources: [{ urn: "a", inputs: { key: { ciphertext } } }] },
    });
    assert.equal(compareStates(encrypted("made"), encrypted("up")).changes, false);
  });
  it("says what would become of the share", () => {
    const there = { "voices/a": "1", "voices/b": "1", "voices/mine": "1" };
    const found = compareFiles(there, [
      ["voices/a", "1"],
      ["voices/b", "2"],
      ["voices/c", "1"],
    ]);
    assert.deepEqual(found, {
      missing: ["voices/c"],
      other: ["voices/b"],
      text: "1 come back, 1 overwritten, 1 the same",
    });
  });
  it("takes the parts that there are, or some of them", () => {
    assert.deepEqual(partsOf({ share: "voices" }, undefined), ["config", "state", "share"]);
    assert.deepEqual(partsOf({ share: null }, undefined), ["config", "state"]);
    assert.deepEqual(partsOf({ share: "all" }, ["share"]), ["share"]);
    assert.throws(
      () => partsOf({ share: null }, ["share"]),
      /The archive has no share\. It has: config, state\./,
    );
  });
  it("shows them", () => {
    const plan = { part: "config", now: "Pulumi.lab.yaml", after: "the same", changes: false } as const;
    assert.match(renderPlans([plan]), /PART +NOW +AFTER\nconfig +Pulumi\.lab\.yaml +the same/);
  });
});
