/** The rules of the policy pack about resources together, as functions of plain data. */
import { isPrivate, parseCidr } from "../config/addresses";
import { layerOf } from "../scripts/lib/manifests";
import { at, type Placed } from "./declared";
import { dropsTheRest } from "./ssh";

/** A rule about resources together. */
export interface StackRule {
  readonly name: string;
  readonly description: string;
  readonly broken: (
    resources: readonly Placed[],
  ) => readonly { readonly urn: string; readonly message: string }[];
}

const INSTANCE = "aws:ec2/instance:Instance";

export const stackRules: readonly StackRule[] = [
  {
    name: "no-public-real-servers",
    description:
      "Real servers are reached through the directors: none has an address of its own on the internet.",
    broken: (resources) => {
      const realServers = resources
        .filter(({ type }) => type === "cosyvoice-lvs:index:RealServer")
        .map(({ name }) => name);
      return resources.flatMap(({ type, name, urn, inputs, leadsTo }) => {
        const say = (message: string) => [{ urn, message }];
        if (type === INSTANCE && at(inputs, "associatePublicIpAddress") === true) {
          return say(
            `${name} gets a public address. Remove associatePublicIpAddress: directors get an Elastic IP.`,
          );
        }
        if (type === "aws:ec2/subnet:Subnet" && at(inputs, "mapPublicIpOnLaunch") === true) {
          return say(`${name} gives every machine a public address. Set mapPublicIpOnLaunch to false.`);
        }
        if (type.startsWith("aws:ec2/eip")) {
          const whose = realServers.find((server) =>
            leadsTo.some((one) =>
              [`::${server}-interface`, `::${server}-instance`].some((end) => one.endsWith(end)),
            ),
          );
          return whose === undefined
            ? []
            : say(`${name} is an Elastic IP of the real server ${whose}. Remove it.`);
        }
        return layerOf(at(inputs, "delete"))?.layer === "real-server"
          ? exposedHost({ type, name, urn, inputs, leadsTo }, resources)
          : [];
      });
    },
  },
];

/** A real server in a rack that has an address on the internet needs a packet filter at least. */
function exposedHost({ urn, name, inputs }: Placed, resources: readonly Placed[]) {
  const host = at(inputs, "connection", "host");
  if (typeof host !== "string") return [];
  const range = parseCidr(`${host}/32`);
  const filtered = resources.some(
    (other) => at(other.inputs, "connection", "host") === host && dropsTheRest(other),
  );
  if (range === undefined || isPrivate(range) || filtered) return [];
  return [
    {
      urn,
      message: `${name} is at ${host}, a public address, without a packet filter. Set firewall.enabled to true, or use its private address.`,
    },
  ];
}
