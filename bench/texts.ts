import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ClusterConfig } from "../config/schema";
import {
  directorSysctls,
  paths,
  realServerSysctls,
  renderGuardConfig,
  renderHealthConfig,
  renderKeepalivedAuth,
  renderKeepalivedConfig,
  renderPacketRules,
} from "../render";
import { repository } from "../scripts/lib/paths";
import { classicArticle, cluster, type RawOverrides } from "../test/unit/config-fixture";

/** Prefix length of the network in the virtual machine: room for hundreds of real servers. */
export const prefix = 16;

/** A cluster as the programs in the virtual machine get it: addresses, and every text as our renderers make it. */
export interface ClusterSpec {
  readonly vip: string;
  readonly port: number;
  readonly forwarding: string;
  /** Seconds after which a real server that came has its whole weight. */
  readonly rampUp: number;
  /** Texts by absolute path; modules come with the kernel. */
  readonly directors: readonly {
    readonly name: string;
    readonly address: string;
    readonly files: Readonly<Record<string, string>>;
  }[];
  readonly realServers: readonly { readonly name: string; readonly address: string }[];
  readonly directorSysctls: Readonly<Record<string, string>>;
  readonly realServerSysctls: Readonly<Record<string, string>>;
}

/**
 * One of the clusters that are measured, made from a configuration as a stack file has it.
 *
 * @param more further keys. @default none
 */
export function clusterSpec(
  kind: "defaults" | "classic" | "nat" | "fixed" | "following",
  realServers: number,
  more: RawOverrides = {},
): ClusterSpec {
  const overrides: Record<typeof kind, RawOverrides> = {
    defaults: {},
    classic: classicArticle,
    nat: { loadBalancer: { forwarding: "NAT" } },
    // A client stays with its server for a second: as good as not at all.
    fixed: { loadBalancer: { scheduler: "wlc", persistence: 1 } },
    following: { loadBalancer: { scheduler: "wlc", persistence: 1, agentWeights: true, rampUp: 10 } },
  };
  const config = cluster({ ...overrides[kind], ...more, realServers: pool(realServers) });
  const { forwarding, agentWeights, rampUp } = config.loadBalancer;
  return {
    vip: config.vip,
    port: config.port,
    forwarding,
    rampUp: agentWeights ? rampUp : 0,
    directors: config.directors.map(({ name, address }) => ({
      name,
      address,
      files: {
        ...directorFiles(config, name),
        // The article knows neither guard nor packet filter.
        ...(kind === "classic"
          ? {}
          : {
              [paths.vrrpGuardConfig]: renderGuardConfig(config, name),
              [paths.packetRules]: renderPacketRules(config),
            }),
      },
    })),
    realServers: config.realServers.map(({ name, address }) => ({ name, address })),
    // Nor does it set these.
    directorSysctls: kind === "classic" ? {} : directorSysctls(config),
    realServerSysctls: realServerSysctls(config),
  };
}

/** The programs of ours that run there, as machines get them: path below the guest's directory, text. */
export async function guestPrograms(): Promise<Record<string, string>> {
  const host = (name: string) => readFile(join(repository, "host", name), "utf8");
  const files: Record<string, string> = {
    "programs/health-poller": await host("health-poller.py"),
    "programs/vrrp-guard": await host("vrrp-guard.py"),
    "programs/vip-on-lo": await host("vip-on-lo"),
  };
  for (const name of guestFiles) files[name] = await readFile(join(repository, "bench/guest", name), "utf8");
  return files;
}

const guestFiles = [
  "common.h",
  "responder.c",
  "pulse.c",
  "flood.c",
  "director",
  "director-inside",
  "world.py",
  "throughput.py",
  "outages.py",
  "connections.py",
  "fleet.py",
  "calm.py",
  "weights.py",
  "node.py",
];

function directorFiles(config: ClusterConfig, name: string): Record<string, string> {
  const { check } = config.loadBalancer;
  return {
    [paths.keepalivedConfig]: renderKeepalivedConfig(config, name),
    ...(config.vrrp.authentication === "PASS"
      ? { [paths.keepalivedAuth]: renderKeepalivedAuth("made-up1") }
      : {}),
    ...(check.kind === "poller" ? { [paths.healthConfig]: renderHealthConfig(config, name) } : {}),
  };
}

/** Real servers rs-1, rs-2, ... at 192.168.2.1 and up. */
function pool(size: number) {
  const [example] = cluster().realServers;
  return Array.from({ length: size }, (_, i) => ({
    name: `rs-${i + 1}`,
    address: `192.168.${2 + Math.floor(i / 250)}.${(i % 250) + 1}`,
    hostKey: example?.hostKey,
  }));
}
