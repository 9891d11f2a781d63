/** The section `vrrp`: which director holds the VIP. */
import * as z from "zod";
import { about, choice, flag, hundredths, section, text, whole } from "../leaves";

const garpSchema = section(
  {
    delay: whole(0, 60, {
      text: "Time after taking the VIP until its address is announced a second time.",
      unit: "s",
      why: "The first announcement can be lost while a switch still learns. keepalived takes whole seconds here.",
    }).default(1),
    repeat: whole(1, 60, { text: "Gratuitous ARPs sent at each of these moments." }).default(3),
    refresh: whole(0, 86_400, {
      text: "How often the holder of the VIP announces it again. 0 = never.",
      unit: "s",
      why: "After a partition heals, both directors have announced the VIP and the last one to speak need not be the one that keeps it: whoever learned the wrong MAC is put right within this time.",
    }).default(10),
    refreshRepeat: whole(1, 60, { text: "Gratuitous ARPs sent at each refresh." }).default(1),
  },
  { text: "Gratuitous ARP: how the network learns which director holds the VIP." },
);

export const vrrpSchema = section(
  {
    virtualRouterId: whole(1, 255, {
      text: "VRRP virtual router id. Must be the same on both directors and differ from any other VRRP on the segment.",
    }).default(51),
    version: z
      .union([z.literal(2), z.literal(3)], "2 or 3")
      .register(about, {
        form: "2 or 3",
        text: "VRRP version.",
        why: "3 allows adverts faster than one a second. 2 has a password (plain text on the wire), 3 has none.",
      })
      .default(3),
    advertInterval: hundredths(0.01, 255, {
      text: "Time between two adverts of the director that holds the VIP.",
      why: "The other one takes over after about three of them: 0.1 gives an outage of 0.3 to 0.5 s, 1 gives 3 to 4 s. Version 2 takes whole seconds only, version 3 at most 40.",
    }).default(0.1),
    unicast: flag({
      text: "Adverts go straight to the other director instead of to the multicast group.",
      why: "Works where multicast is filtered or absent, and no third machine on the segment can join in.",
    }).default(true),
    label: text((value) => /^[A-Za-z0-9_-]{1,13}$/.test(value), "at most 13 letters, digits, '_' or '-'", {
      text: "The VIP shows up on the director as `<interface>:<label>`.",
      why: "Old tools (`ifconfig`) show labelled addresses only, and a label says at a glance whose address it is. The kernel allows 15 characters in all.",
    }).default("vip"),
    preempt: flag({
      text: "Whether the director with the higher priority takes the VIP back when it returns.",
      why: "Off: each move of the VIP is a short outage, and the director that serves is as good as the other.",
    }).default(false),
    authentication: choice(["none", "PASS"], {
      text: "PASS sends the secret `vrrpPassword` in every advert. Version 2 only.",
      why: "It keeps out misconfigured neighbours, not attackers: it travels in clear.",
    }).default("none"),
    garp: garpSchema.prefault({}),
  },
  { text: "VRRP: which director holds the VIP." },
);

/** Options of VRRP. */
export type VrrpConfig = z.output<typeof vrrpSchema>;
