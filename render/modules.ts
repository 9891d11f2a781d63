import type { ClusterConfig } from "../config/schema";
import { never } from "./text";

/** Kernel modules to load on a machine, now and at every boot. */
export function kernelModules(config: ClusterConfig, role: "director" | "realServer"): string[] {
  const { forwarding, scheduler } = config.loadBalancer;
  switch (role) {
    case "director":
      return ["ip_vs", `ip_vs_${scheduler}`, ...(forwarding === "NAT" ? ["nf_conntrack"] : [])];
    case "realServer":
      return forwarding === "TUN" ? ["ipip"] : [];
    default:
      return never(role);
  }
}
