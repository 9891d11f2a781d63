// What an operator is told of a cluster that is not well, on the lab that is up: scripts/test cli --state existing
import assert from "node:assert/strict";
import { ask, holder, inside, REAL_SERVERS, script, until, untilWell, VIP } from "../lab/bench";

describe("scripts/cluster status", () => {
  it("does not say that all is well while the storage exports nothing", async () => {
    await untilWell(120);
    await inside("storage", "exportfs -ua");
    try {
      let output = "";
      // The service looks at the share every ten seconds, and gives it five to answer.
      await until("every real server says it", 120, async () => {
        const { exitCode, output: said } = await script("cluster", "status");
        output = said;
        return exitCode === 1 && /^! rs-1, rs-2, rs-3: the share cannot be used/m.test(said);
      });
      assert.match(output, /^share 192\.168\.1\.20:\/ on 3 of 3, no use on 3 /m);
      assert.doesNotMatch(output, /All is well/);
      for (const name of REAL_SERVERS) assert.match(output, new RegExp(`^${name} .* serving 1 `, "m"));
    } finally {
      await inside("storage", "exportfs -ra");
    }
    await untilWell(120);
  });
});

describe("scripts/cluster where", () => {
  it("shows what ipvsadm -Lnc has of a client, with the real server that it computes", async () => {
    const client = "192.168.1.221";
    const node = (await ask(client)).trim();
    const { exitCode, stdout, output } = await script("cluster", "where", client, "--json");
    assert.equal(exitCode, 0, output);
    const found = JSON.parse(stdout);
    assert.equal(found.realServer.name, node);
    assert.equal(found.director, await holder());
    const lines = (await inside(found.director, "ipvsadm -Lnc"))
      .split("\n")
      .filter((line) => line.includes(` ${client}:`) && line.includes(` ${VIP}:7860 `));
    assert.ok(lines.length > 0, "the kernel keeps a connection for a while after its end");
    for (const line of lines) assert.match(line, new RegExp(` ${found.realServer.address}:7860\\s*$`));
    assert.deepEqual(
      found.connections.map(({ name }: { name: string }) => name),
      [node],
    );
  });
});
