/** Configurations for tests: made up, short, and valid unless a test says otherwise. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { type Problem, parseConfig, rawFromStack } from "../../config/load";
import type { ClusterConfig } from "../../config/schema";

/** A public key in shape only. */
export function madeUpHostKey(name: string): string {
  const letters = name.toUpperCase().replace(/[^A-Z0-9]/g, "");
  return `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${letters.padEnd(43, "x")}`;
}

function machine(name: string, address: string) {
  return { name, address, hostKey: madeUpHostKey(name) };
}

/** The cluster of the design document. A fresh copy every time. */
export function rawCluster() {
  return {
    platform: "hosts",
    vip: "192.168.1.100",
    directors: [machine("director-1", "192.168.1.11"), machine("director-2", "192.168.1.12")] as Record<
      string,
      unknown
    >[],
    realServers: [
      machine("rs-1", "192.168.1.101"),
      machine("rs-2", "192.168.1.102"),
      machine("rs-3", "192.168.1.103"),
    ] as Record<string, unknown>[],
    storage: machine("storage", "192.168.1.20") as Record<string, unknown>,
  };
}

/** Whatever a test wants to put on top of {@link rawCluster}. */
export type RawOverrides = Readonly<Record<string, unknown>>;

/** {@link rawCluster} with keys replaced, parsed; fails with the problems when it is not valid. */
export function cluster(overrides: RawOverrides = {}): ClusterConfig {
  const result = parseConfig({ ...rawCluster(), ...overrides });
  if (!result.ok) throw new Error(JSON.stringify(result.problems, null, 2));
  if (result.config.platform !== "hosts") throw new Error("not a cluster of hosts");
  return result.config;
}

/** The problems of a configuration; fails when there are none. */
export function problemsOf(raw: RawOverrides): readonly Problem[] {
  const result = parseConfig(raw);
  if (result.ok) throw new Error("the configuration was accepted");
  return result.problems;
}

/** A key by which real servers know each other, in shape only. */
export const madeUpPeerKey = "made-up-peer-key-of-32-characters";

/** The configuration that the article describes, with what keepalived itself and sessions demand. */
export const classicArticle: RawOverrides = {
  vrrpPassword: "made-up1",
  loadBalancer: {
    forwarding: "DR",
    scheduler: "rr",
    persistence: 300,
    check: { kind: "tcp", connectTimeout: 3, retry: 3, delayBeforeRetry: 3, delayLoop: 6 },
  },
  vrrp: {
    version: 2,
    virtualRouterId: 51,
    advertInterval: 1,
    authentication: "PASS",
  },
};

/** A committed stack file as the program is given it: through Pulumi every value is text. */
export function stackFile(stack: string): Record<string, unknown> {
  const file = fileURLToPath(new URL(`../../Pulumi.${stack}.yaml`, import.meta.url));
  const { config } = parse(readFileSync(file, "utf8")) as { config: Record<string, unknown> };
  return rawFromStack(
    Object.fromEntries(
      Object.entries(config).map(([key, value]) => [
        key,
        typeof value === "string" ? value : JSON.stringify(value),
      ]),
    ),
  );
}
