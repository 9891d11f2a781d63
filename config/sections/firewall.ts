/** The section `firewall`: the packet filter of all machines. */
import { flag, isNetwork, list, port, section, text } from "../leaves";

export const firewallSchema = section(
  {
    enabled: flag({
      text: "Whether every machine (except `verification.client`) drops traffic that its role does not need. Clients can then reach the service's ports, the cluster's machines each other, and `admins` SSH.",
      why: "Off by default, because it also closes the ports of other programs on your machines.",
    }).default(false),
    admins: list(
      text(isNetwork, "an IPv4 network or address such as 10.0.0.0/8", {
        text: "A network in CIDR notation, or an address.",
      }),
      {
        text: "Networks that SSH is accepted from. A deployment that would shut out somebody connected by SSH at that moment, such as itself, fails on that machine and puts the old rules back.",
        form: "a list of networks",
        derived: "everywhere, and a preview warns of it",
      },
    ).default(["0.0.0.0/0"]),
    openPorts: list(port({ text: "A TCP port." }), {
      text: "TCP ports of other programs on these machines that stay open to everybody.",
      form: "a list of ports",
    }).default([]),
  },
  { text: "The packet filter of all machines (nftables)." },
);
