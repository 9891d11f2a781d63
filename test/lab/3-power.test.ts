import assert from "node:assert/strict";
import { ask, holder, holders, lab, REAL_SERVERS, until, untilWell } from "./bench";

describe("a power-cut", () => {
  it("of the director that holds the VIP: the next sentence still comes, and exactly one holds it when both are back", async () => {
    const victim = await holder();
    await lab.powerCut(victim);
    const node = (await ask("192.168.1.220", 30)).trim();
    assert.ok(
      REAL_SERVERS.some((name) => name === node),
      `served by "${node}"`,
    );
    await lab.powerOn(victim);
    await untilWell(120);
    assert.equal((await holders()).length, 1);
    assert.notEqual(await holder(), victim, "no failback");
  });

  it("of a real server and of the storage: both come back by themselves", async () => {
    await Promise.all(["rs-1", "storage"].map((name) => lab.powerCut(name)));
    const others = async () => {
      const node = (await ask("192.168.1.221", 5)).trim();
      return node !== "" && node !== "rs-1";
    };
    await lab.powerOn("storage");
    await until("the others serve", 60, others);
    await lab.powerOn("rs-1");
    await untilWell(240);
  });
});
