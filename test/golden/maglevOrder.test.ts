/**
 * Why keepalived.conf has no `inhibit_on_failure`: how much the order of servers, which differs between directors after a
 * server has come back to one of them, moves in the table of the scheduler mh.
 *
 * The table is filled as the kernel does it (net/netfilter/ipvs/ip_vs_mh.c): servers take turns in the order of the list, each
 * takes the next free slot of its own permutation. What the kernel gets from a hash is drawn at random here.
 */
import assert from "node:assert/strict";

/** Slots of the table in Debian's kernels (CONFIG_IP_VS_MH_TAB_INDEX=12). */
const slots = 4093;

interface Permutation {
  readonly offset: number;
  readonly skip: number;
}

function fill(order: readonly number[], permutations: readonly Permutation[]): number[] {
  const table = new Array<number>(slots).fill(-1);
  const next = permutations.map(({ offset }) => offset);
  let filled = 0;
  for (;;) {
    for (const server of order) {
      const skip = permutations[server]?.skip ?? 1;
      let slot = next[server] ?? 0;
      while (table[slot] !== -1) slot = (slot + skip) % slots;
      table[slot] = server;
      next[server] = (slot + skip) % slots;
      filled += 1;
      if (filled === slots) return table;
    }
  }
}

/** Numbers from 0 to below 1, the same in every run. */
function* pseudoRandom(seed: number): Generator<number> {
  let state = seed;
  for (;;) {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    yield state / 2 ** 31;
  }
}

describe("the order of servers in an mh table", () => {
  for (const servers of [2, 3, 5, 10]) {
    it(`moves less than 1 % of the slots of ${servers} servers when one goes to the front`, () => {
      const random = pseudoRandom(servers);
      const draw = (below: number) => Math.floor((random.next().value as number) * below);
      const tables = 20;
      let moved = 0;
      for (let round = 0; round < tables; round++) {
        const permutations = Array.from({ length: servers }, () => ({
          offset: draw(slots),
          skip: 1 + draw(slots - 1),
        }));
        const asConfigured = Array.from({ length: servers }, (_, index) => index);
        const back = 1 + draw(servers - 1);
        const afterReturn = [back, ...asConfigured.filter((server) => server !== back)];
        const one = fill(asConfigured, permutations);
        const other = fill(afterReturn, permutations);
        moved += one.filter((server, slot) => server !== other[slot]).length;
      }
      const share = moved / (tables * slots);
      assert.ok(share > 0 && share < 0.01, `moved ${(100 * share).toFixed(2)} %`);
    });
  }
});
