import assert from "node:assert/strict";
import { hostMachines } from "../../components/platform/hosts";
import type { Machine } from "../../components/platform/machine";
import type { Release } from "../../components/release";
import type { Engine } from "../../components/speechEngine";
import { parseConfig } from "../../config/load";
import type { ClusterConfig } from "../../config/schema";

const KEY = `ssh-ed25519 ${"A".repeat(68)}`;

/** A small, valid stack: short values that are obviously made up. */
export function rawConfig(realServers = 2): Record<string, unknown> {
  const host = (name: string, last: number) => ({ name, address: `10.0.0.${last}`, hostKey: KEY });
  return {
    platform: "hosts",
    vip: "10.0.0.100",
    directors: [host("director-1", 11), host("director-2", 12)],
    realServers: Array.from({ length: realServers }, (_, index) => ({
      name: `rs-${index + 1}`,
      address: `10.0.${1 + Math.floor(index / 200)}.${1 + (index % 200)}`,
      hostKey: KEY,
    })),
    storage: host("storage", 20),
    verification: { client: host("client", 50), sourceAddresses: ["10.0.0.200-10.0.0.203"] },
  };
}

export function parsed(raw: Record<string, unknown>): ClusterConfig {
  const result = parseConfig(raw);
  assert.ok(result.ok, `the fixture must be valid: ${JSON.stringify(!result.ok && result.problems)}`);
  assert.equal(result.config.platform, "hosts");
  return result.config as ClusterConfig;
}

export function machinesFor(config: ClusterConfig): Machine[] {
  const found = hostMachines({ config, privateKey: "made-up key" });
  assert.ok("machines" in found);
  return found.machines;
}

export const release: Release = {
  digest: "feedfeedfeedfeed",
  archive: "/nowhere/feedfeedfeedfeed.json.gz",
};

export const engine: Engine = {
  name: "beefbeefbeefbeef",
  commit: "c".repeat(40),
  lock: "/nowhere/lock.txt",
  environment: "abcabcabcabcabca-3.11",
  environmentSpace: 12,
  driver: "525.60.13",
  model: "0a0a0a0a0a0a0a0a",
  checksums: undefined,
};
