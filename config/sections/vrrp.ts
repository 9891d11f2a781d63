/** The section `vrrp`: which director holds the VIP. */
import * as z from "zod";
import { about, choice, flag, hundredths, section, text, whole } from "../leaves";

const garpSchema = section(
  {
    delay: whole(0, 60, {
      text: "Time between taking the VIP and announcing it a second time.",
      unit: "s",
      why: "The first announcement can be lost while a switch is still learning. keepalived takes whole seconds only.",
    }).default(1),
    repeat: whole(1, 60, { text: "Gratuitous ARPs sent for each of these two announcements." }).default(3),
    refresh: whole(0, 86_400, {
      text: "How often the director with the VIP announces it again. 0 = never.",
      unit: "s",
      why: "When a network partition heals, both directors have announced the VIP, and the last announcement may have come from the one that gives it up. A neighbour that learned the wrong MAC address is corrected within this time.",
    }).default(10),
    refreshRepeat: whole(1, 60, { text: "Gratuitous ARPs sent at each refresh." }).default(1),
  },
  { text: "Gratuitous ARP: how the network learns which director holds the VIP." },
);

export const vrrpSchema = section(
  {
    virtualRouterId: whole(1, 255, {
      text: "VRRP virtual router id. It must differ from that of any other VRRP group on the segment.",
    }).default(51),
    version: z
      .union([z.literal(2), z.literal(3)], "2 or 3")
      .register(about, {
        form: "2 or 3",
        text: "VRRP version.",
        why: "Version 3 allows more than one advert per second. Version 2 has a password (in plain text on the wire), version 3 has none.",
      })
      .default(3),
    advertInterval: hundredths(0.01, 255, {
      text: "Time between two adverts of the director with the VIP.",
      why: "The other director takes over after about three intervals without an advert: 0.1 gives an outage of 0.3 to 0.5 s, 1 gives 3 to 4 s. Version 2 takes whole seconds only, version 3 at most 40.",
    }).default(0.1),
    unicast: flag({
      text: "Whether adverts go directly to the other director instead of to the multicast group.",
      why: "Unicast works where multicast is filtered or absent, and a third machine on the segment cannot take part by accident.",
    }).default(true),
    label: text((value) => /^[A-Za-z0-9_-]{1,13}$/.test(value), "at most 13 letters, digits, '_' or '-'", {
      text: "The VIP shows up on the director as `<interface>:<label>`.",
      why: "Old tools (`ifconfig`) show labelled addresses only, and the label shows at a glance which address is the VIP. The kernel allows 15 characters in all.",
    }).default("vip"),
    preempt: flag({
      text: "Whether the director with the higher priority takes the VIP back when it returns.",
      why: "Off by default: each move of the VIP is a short outage, and the director that serves is as good as the other.",
    }).default(false),
    authentication: choice(["none", "PASS"], {
      text: "VRRP authentication. PASS: every advert carries the secret `vrrpPassword`. Version 2 only.",
      why: "The password keeps out misconfigured neighbours, not attackers: it is sent in plain text.",
    }).default("none"),
    garp: garpSchema.prefault({}),
  },
  { text: "VRRP: which director holds the VIP." },
);

/** Options of VRRP. */
export type VrrpConfig = z.output<typeof vrrpSchema>;
