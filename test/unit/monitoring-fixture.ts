/** Configurations with monitoring, for tests: made up, short and valid. */
import type { ClusterConfig, MonitoringConfig } from "../../config/schema";
import { cluster, madeUpHostKey, type RawOverrides } from "./config-fixture";

/** The least that the section `monitoring` takes. A fresh copy every time. */
export function monitor(): Record<string, unknown> {
  return { name: "monitor", address: "192.168.1.30", hostKey: madeUpHostKey("monitor") };
}

/** The cluster of the tests, watched. */
export function monitored(
  keys: RawOverrides = {},
  others: RawOverrides = {},
): ClusterConfig & { readonly monitoring: MonitoringConfig } {
  const config = cluster({ ...others, monitoring: { ...monitor(), ...keys } });
  if (config.monitoring === undefined) throw new Error("not watched");
  return { ...config, monitoring: config.monitoring };
}
