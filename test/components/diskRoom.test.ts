import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { roomFor, type Store } from "../../components/diskRoom";

describe("room on a disk", () => {
  const folder = mkdtempSync(join(tmpdir(), "disk-room-"));
  after(() => rmSync(folder, { recursive: true }));
  const { bavail, bsize } = statfsSync(folder);
  const free = (bavail * bsize) / 1e9;
  const store = (what: string, share: number, on = folder): Store => ({
    what,
    path: join(on, what),
    on,
    gigabytes: Math.ceil(free * share),
    key: `made.${what}`,
  });
  const fits = (...[first, ...others]: [Store, ...Store[]]) =>
    spawnSync("/bin/sh", ["-c", roomFor(first, others).run]).status === 0;

  it("is there for what fits, and not for what does not", () => {
    assert.ok(fits(store("logs", 0.5)));
    assert.ok(!fits(store("logs", 1.5)));
  });

  it("is shared by those on one file system", () => {
    const [one, other] = [store("logs", 0.6), store("measurements", 0.6)];
    mkdirSync(one.path);
    assert.ok(fits(one) && fits(other));
    assert.ok(!fits(one, other) && !fits(other, one));
    assert.ok(fits(one, { ...other, on: "/proc" }), "another file system is another matter");
  });

  it("is asked for in words that name both keys", () => {
    const { name, fix } = roomFor({ ...store("logs", 1), gigabytes: 30 }, [
      { ...store("measurements", 1), gigabytes: 20 },
    ]);
    assert.equal(name, "there are 30 GB for logs, and 20 for measurements");
    assert.match(fix, /^set made\.logs and made\.measurements to what/);
  });
});
