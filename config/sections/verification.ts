/** The section `verification`: the question that a deployment ends with. */
import { list, printable, seconds, section } from "../leaves";
import { type MachineConfig, machineShape } from "./machines";

const clientSchema = section(machineShape("client"), {
  text: "A machine from which the cluster is asked: on the directors' segment, and none of the others. It gets the verifier and nothing else.",
  derived:
    "the computer that deploys asks itself; it then needs a route to the VIP, and cannot see who answers ARP for it",
});

export const verificationSchema = section(
  {
    sentence: printable(500, { text: "What the cluster is asked to say." }).default(
      "The cluster is up, and every voice has been heard.",
    ),
    client: clientSchema.optional(),
    sourceAddresses: list(
      printable(40, {
        form: 'an IPv4 address or a range such as "192.168.1.200-192.168.1.249"',
        text: "An IPv4 address, or a range with both ends included.",
      }),
      {
        text: "Addresses that the client machine holds and asks from, at most 256 in all.",
        why: "mh and sh send one client address to one real server: seeing the whole pool takes many addresses. Ten per real server are enough.",
      },
    ).default([]),
    timeout: seconds(5, 3600, {
      text: "How long the whole verification may take before `up` fails with what is still missing.",
    }).default(120),
  },
  { text: "The last step of a deployment: the cluster is asked through the VIP, and must answer." },
);

/** The machine from which a deployment is verified. */
export interface ClientConfig extends MachineConfig {
  readonly role: "client";
}

/** How a deployment is verified. */
export interface VerificationConfig {
  readonly sentence: string;
  readonly client: ClientConfig | undefined;
  /** Every address, ranges expanded. */
  readonly sourceAddresses: readonly string[];
  /** Seconds. */
  readonly timeout: number;
}
