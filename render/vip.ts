import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { renderSections } from "./text";

/** The unit that puts the VIP on a real server, where it is answered for but never announced. */
export function renderVipUnit(config: ClusterConfig): string {
  const { vip, loadBalancer } = config;
  return renderSections([
    [
      "Unit",
      [
        "Description=VIP of the speech service on this real server",
        // ARP must be silent before the address is there, at every boot.
        "After=systemd-sysctl.service systemd-modules-load.service networking.service",
        "Before=cosyvoice.service",
      ],
    ],
    [
      "Service",
      [
        "Type=oneshot",
        "RemainAfterExit=yes",
        `ExecStart=${paths.vipOnLo} up ${vip} ${loadBalancer.forwarding}`,
        `ExecStop=${paths.vipOnLo} down ${vip} ${loadBalancer.forwarding}`,
        ...sandbox(["AF_INET", "AF_NETLINK", "AF_UNIX"], ["CAP_NET_ADMIN"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
