/** The section `firewall`: the packet filter of all machines. */
import { flag, isNetwork, list, port, section, text } from "../leaves";

export const firewallSchema = section(
  {
    enabled: flag({
      text: "Whether every machine (but the client of the verification) drops what its role does not need: clients reach the service's ports, the machines of the cluster each other's, `admins` SSH.",
      why: "Off, unless you say so: it would close ports of other programs on your machines as well.",
    }).default(false),
    admins: list(
      text(isNetwork, "an IPv4 network or address such as 10.0.0.0/8", {
        text: "A network in CIDR notation, or an address.",
      }),
      {
        text: "From where SSH is let in. A deployment that would shut out somebody who is connected by SSH at that moment, such as itself, fails on that machine and puts the old rules back.",
        form: "a list of networks",
        derived: "everywhere, and a preview warns of it",
      },
    ).default(["0.0.0.0/0"]),
    openPorts: list(port({ text: "A TCP port." }), {
      text: "TCP ports of other programs on these machines that stay open for everybody.",
      form: "a list of ports",
    }).default([]),
  },
  { text: "The packet filter of all machines (nftables)." },
);
