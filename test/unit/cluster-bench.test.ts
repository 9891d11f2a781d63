import assert from "node:assert/strict";
import { stripVTControlCharacters } from "node:util";
import type { Attempt } from "../../lab/load/summary";
import { describe as about, renderBench, siblings, summarise } from "../../scripts/cluster-cli/bench";

const attempt = (start: number, took: number, changes: Partial<Attempt> = {}): Attempt => ({
  kind: "synthesis",
  source: "192.168.1.200",
  start,
  end: start + took,
  result: "ok",
  node: "rs-1",
  ...changes,
});

describe("scripts/cluster bench", () => {
  const attempts = [
    ...Array.from({ length: 98 }, (_, i) => attempt(i, 1 + i / 100)),
    attempt(98, 9, { node: "rs-2", result: "slow" }),
    attempt(99, 1, { result: "lost", why: "status: 503 full", node: "rs-1" }),
    attempt(5, 0.02, { kind: "request", node: "rs-2" }),
    attempt(6, 2, { kind: "request", result: "cut" }),
  ];
  const result = summarise({ attempts, stalls: [], whole: true }, "client", 50);

  it("counts what ended well, how long that took, and who answered", () => {
    const [sentences, light] = result.kinds;
    assert.deepEqual([sentences?.requests, sentences?.errors], [100, 1]);
    assert.deepEqual(sentences?.nodes, { "rs-1": 98, "rs-2": 1 });
    assert.deepEqual(sentences?.reasons, { "status: 503 full": 1 });
    assert.ok(Math.abs((sentences?.p50 ?? 0) - 1.49) < 0.02, String(sentences?.p50));
    assert.ok(Math.abs((sentences?.p95 ?? 0) - 1.94) < 0.02, String(sentences?.p95));
    assert.equal(sentences?.p99, 9);
    assert.deepEqual(light?.reasons, { "not done when the time was over": 1 });
    assert.equal(result.took, 107);
  });

  it("shows it, with the reasons of what did not end well", () => {
    const text = stripVTControlCharacters(renderBench(result));
    assert.match(text, /^107\.0 s, asked from client, 50 addresses\.$/m);
    assert.match(text, /^sentences +100 +1 +1\.\d\d s +1\.\d\d s +9\.00 s$/m);
    assert.match(text, /^light +2 +1 +20 ms +20 ms +20 ms$/m);
    assert.match(text, /^rs-1 +98 \(99 %\) +0 \(0 %\)$/m);
    assert.match(text, /^! 1 x status: 503 full$/m);
  });

  it("of nothing shows nothing", () => {
    const nothing = summarise({ attempts: [], stalls: [], whole: true }, null, 1);
    assert.deepEqual(nothing.kinds, []);
    assert.match(renderBench(nothing), /^0\.0 s, asked from this computer, 1 address\./);
  });

  it("says what it may come to before it asks", () =>
    assert.equal(
      about({ sentences: 20, atOnce: 2, characters: 120, rate: 5, seconds: 60 }),
      "At most 20 sentences of 120 characters, 2 at a time, 5 light requests a second, for at most 60 s",
    ));

  it("asks from every address of the client's own interface", () => {
    const said = `1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
2: eth0    inet 192.168.1.50/24 brd 192.168.1.255 scope global eth0\\       valid_lft forever
2: eth0    inet 192.168.1.200/24 scope global secondary eth0\\       valid_lft forever
3: docker0    inet 172.17.0.1/16 scope global docker0\\       valid_lft forever`;
    assert.deepEqual(siblings(said, "192.168.1.50"), ["192.168.1.50", "192.168.1.200"]);
    assert.deepEqual(siblings(said, "10.0.0.1"), []);
  });
});
