import type { ClusterConfig } from "../config/schema";
import { never } from "./text";

/** Kernel settings of a director. They exist once the modules of {@link kernelModules} are loaded. */
export function directorSysctls(config: ClusterConfig): Record<string, string> {
  const { forwarding, dropUnderPressure } = config.loadBalancer;
  const ipvs = {
    // A connection in the middle carries on through the other director, which has never seen its first packet.
    "net.ipv4.vs.sloppy_tcp": "1",
    // A packet for a server that left the pool ends its connection at once instead of vanishing until a timeout.
    "net.ipv4.vs.expire_nodest_conn": "1",
    // With persistence, a client of a drained server is given to another one.
    "net.ipv4.vs.expire_quiescent_template": "1",
    // The kernel itself makes it a 2 for as long as memory is short.
    ...(dropUnderPressure
      ? { "net.ipv4.vs.drop_entry": "1", "net.ipv4.vs.drop_packet": "1", "net.ipv4.vs.secure_tcp": "1" }
      : {}),
  };
  switch (forwarding) {
    case "DR":
    case "TUN":
      return ipvs;
    case "NAT":
      return {
        ...ipvs,
        "net.ipv4.ip_forward": "1",
        // Packet filters and SNAT see the connections that IPVS makes.
        "net.ipv4.vs.conntrack": "1",
        // The real servers must go on sending replies through the director, even where a shorter way exists.
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.default.send_redirects": "0",
      };
    default:
      return never(forwarding);
  }
}

/** Kernel settings of a real server, in force before the VIP is put on it. */
export function realServerSysctls(config: ClusterConfig): Record<string, string> {
  // A flood of connections that are never completed costs no memory.
  const flooded = { "net.ipv4.tcp_syncookies": "1" };
  const silent = {
    ...flooded,
    // Answer ARP for an address only on the interface that has it: lo has the VIP, and nobody asks there.
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.default.arp_ignore": "1",
    // Never name the VIP as the sender of an ARP question.
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.default.arp_announce": "2",
  };
  const { forwarding } = config.loadBalancer;
  switch (forwarding) {
    case "DR":
      return silent;
    case "TUN":
      return {
        ...silent,
        // What comes out of the tunnel has a client's address, and the way to the client is another interface.
        "net.ipv4.conf.all.rp_filter": "0",
        "net.ipv4.conf.tunl0.rp_filter": "0",
      };
    case "NAT":
      return flooded;
    default:
      return never(forwarding);
  }
}
