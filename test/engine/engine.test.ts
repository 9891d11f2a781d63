import assert from "node:assert/strict";
import { ask, inside, lab, ownLab, REAL_SERVERS, script, untilWell, up, withSettings } from "../lab/bench";
import { EngineKit } from "./engineKit";

const SETS = "/opt/cosyvoice/engine/sets";

/** What a real server's service runs: the commit, and the command of the process that holds the model. */
async function running(name: string): Promise<{ commit: string; worker: string }> {
  const source = await inside(
    name,
    "readlink $(sed -n 's/^COSYVOICE_SOURCE=//p' /etc/cosyvoice/cosyvoice.env)",
  );
  const worker = await inside(name, "pgrep -u cosyvoice -af cosyvoice_app.engines.worker_process");
  return { commit: source.trim().split("/").at(-1) ?? "", worker };
}

const started = (name: string) => inside(name, "systemctl show -P ActiveEnterTimestampMonotonic cosyvoice");

describe("the engine cosyvoice, on machines that reach nothing", () => {
  let kit: EngineKit;

  before(async () => {
    if (!(await lab.status()).running) assert.equal((await script("lab", "up")).exitCode, 0);
    kit = await EngineKit.make();
    for (const name of REAL_SERVERS) await kit.bring(name);
  });

  after(async () => {
    await kit.remove(REAL_SERVERS);
    if (ownLab) await script("lab", "down");
  });

  it("is refused where there is no GPU, before anything is touched there, and the cluster goes on", async () => {
    for (const name of REAL_SERVERS.slice(0, 2)) await kit.pretendGpu(name);
    const before = await started("rs-3");
    await withSettings(kit.settings(kit.commits[0]), async () => {
      const { exitCode, output } = await up();
      assert.notEqual(exitCode, 0);
      assert.match(output, /GPU, driver and disk are as the engine cosyvoice needs them/);
      assert.match(output, /no GPU: nvidia-smi cannot be run/);
    });
    await inside("rs-3", "! command -v git && test ! -e /opt/cosyvoice/engine");
    assert.equal(await started("rs-3"), before);
    assert.notEqual((await ask("192.168.1.202")).trim(), "");
  });

  it("is installed from a checkout, a folder of packages and a folder of weights, and speaks on every node", async () => {
    for (const name of REAL_SERVERS) await kit.pretendGpu(name);
    await withSettings(kit.settings(kit.commits[0]), async () => {
      // It ends with sentences that every real server has spoken.
      assert.equal((await up()).exitCode, 0);
      for (const name of REAL_SERVERS) {
        const { commit, worker } = await running(name);
        assert.equal(commit, kit.commits[0]);
        assert.match(worker, new RegExp(`${SETS}/[0-9a-f]{16}/env/bin/python -m cosyvoice_app`));
        assert.match(await inside(name, "ls /opt/cosyvoice/engine/models/*/checksums.sha256"), /models/);
      }
      await untilWell(120);
    });
  });

  it("in another commit is shown by a preview, staged beside the one that runs, and then takes its place", async () => {
    await withSettings(kit.settings(kit.commits[1]), async () => {
      const { output } = await script("lab", "pulumi", "preview", "--diff", "--non-interactive");
      assert.match(output, new RegExp(`engine source ${kit.commits[0]} .*engine source ${kit.commits[1]} `));
      assert.equal((await up()).exitCode, 0);
      for (const name of REAL_SERVERS) {
        assert.equal((await running(name)).commit, kit.commits[1]);
        assert.equal(
          (await inside(name, `ls ${SETS}`)).trim().split("\n").length,
          2,
          "the one before is kept",
        );
      }
    });
  });

  it("that cannot be imported is found while it is staged, and no node is taken out for it", async () => {
    await withSettings(kit.settings(kit.commits[2]), async () => {
      const before = await Promise.all(REAL_SERVERS.map(started));
      const { exitCode, output } = await up();
      assert.notEqual(exitCode, 0);
      assert.match(output, /No module named 'no_such_package'/);
      assert.deepEqual(await Promise.all(REAL_SERVERS.map(started)), before);
      for (const name of REAL_SERVERS) assert.equal((await running(name)).commit, kit.commits[1]);
    });
  });

  it("is gone when the cluster speaks by the cpu again", async () => {
    assert.equal((await up()).exitCode, 0);
    for (const name of REAL_SERVERS) {
      await inside(
        name,
        "test ! -e /opt/cosyvoice/engine && ! grep -q COSYVOICE_SOURCE /etc/cosyvoice/cosyvoice.env",
      );
    }
    await untilWell(120);
  });
});
