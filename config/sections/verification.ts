/** The section `verification`: the question that a deployment ends with. */
import { list, printable, seconds, section } from "../leaves";
import { type MachineConfig, machineShape } from "./machines";

const clientSchema = section(machineShape("client"), {
  text: "A machine from which the cluster is tested: on the directors' segment, with no other role. Only the verifier is installed on it.",
  derived:
    "none: the computer that deploys is the client; it then needs a route to the VIP, and can check who answers ARP for the VIP only as root on that segment",
});

export const verificationSchema = section(
  {
    sentence: printable(500, { text: "Sentence that the cluster is asked to speak." }).default(
      "The cluster is up, and every voice has been heard.",
    ),
    client: clientSchema.optional(),
    sourceAddresses: list(
      printable(40, {
        form: 'an IPv4 address or a range such as "192.168.1.200-192.168.1.249"',
        text: "An IPv4 address, or a range with both ends included.",
      }),
      {
        text: "Addresses that the client machine asks from, at most 256 in all. It must already have them.",
        why: "mh and sh send one client address to one real server, so reaching the whole pool takes many addresses. Ten per real server are enough.",
      },
    ).default([]),
    timeout: seconds(5, 3600, {
      text: "How long the whole verification may take. After that `up` fails and says what is still missing.",
    }).default(120),
  },
  {
    text: "The last step of a deployment: a client asks for sentences through the VIP. If they do not come, `up` fails.",
  },
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
