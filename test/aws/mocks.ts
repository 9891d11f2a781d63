/** AWS as Pulumi's mocks have it: ids that can be read, and answers to what the preview asks. */
import * as pulumi from "@pulumi/pulumi";
import { forgetStacks, type Registered } from "../components/mocks";

/** What every question of the preview is answered with, unless a test says otherwise. */
export const answers: Readonly<Record<string, (args: Record<string, unknown>) => Record<string, unknown>>> = {
  "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": ({ filters }) => {
    const types = (filters as { values: string[] }[])[0]?.values ?? [];
    const zones = ["eu-central-1a", "eu-central-1b"];
    return {
      instanceTypes: types.flatMap((type) => zones.map(() => type)),
      locations: types.flatMap(() => zones),
    };
  },
  "aws:ec2/getInstanceType:getInstanceType": () => ({ defaultVcpus: 4 }),
  "aws:servicequotas/getServiceQuota:getServiceQuota": () => ({ value: 10_000 }),
  "aws:ec2/getEips:getEips": () => ({ publicIps: [] }),
  "aws:ec2/getInstances:getInstances": () => ({ privateIps: [] }),
  "aws:ec2/getVpc:getVpc": () => ({ cidrBlock: "10.20.0.0/16" }),
  "aws:ec2/getSubnet:getSubnet": () => ({
    cidrBlock: "10.20.0.0/20",
    availabilityZone: "eu-central-1a",
    vpcId: "vpc-0123456789abcdef0",
  }),
  "aws:index/getPartition:getPartition": () => ({ partition: "aws" }),
  "aws:index/getCallerIdentity:getCallerIdentity": () => ({ accountId: "123456789012" }),
  "aws:ssm/getParameter:getParameter": ({ name }) => ({ insecureValue: `what ${name} names` }),
};

export type Answers = typeof answers;

/**
 * Starts Pulumi's mocks with an AWS that has room for everything.
 *
 * @param changed answers that a test wants to be others.
 * @param keep whether inputs are kept and come back as outputs. With thousands of machines that is gigabytes, which in a real
 * preview are the engine's.
 * @returns the list in which every resource appears as it is registered.
 */
export async function startAws(changed: Answers = {}, keep = true): Promise<Registered[]> {
  forgetStacks();
  const registered: Registered[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource: async ({ type, name, inputs }) => {
        if (!keep) {
          registered.push({ type, name, inputs: {}, secrets: [] });
          return { id: idOf(type, name), state: state(type, name) };
        }
        const secrets = Object.keys(inputs).filter((key) =>
          JSON.stringify(inputs[key] ?? null).includes(SECRET),
        );
        registered.push({ type, name, inputs: revealed(inputs) as Record<string, unknown>, secrets });
        return { id: idOf(type, name), state: { ...inputs, ...state(type, name) } };
      },
      call: ({ token, inputs }) => {
        const answer = changed[token] ?? answers[token];
        if (answer === undefined) throw new Error(`no test knows what to answer to ${token}`);
        return answer(inputs);
      },
    },
    "cosyvoice-lvs",
    "made-up",
  );
  return registered;
}

/** The engine's mark on a secret (`@pulumi/pulumi/runtime/rpc`, specialSecretSig). */
const SECRET = "1b47061264138c4ac30d75fd1eb44270";

function revealed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(revealed);
  if (typeof value !== "object" || value === null) return value;
  if (Object.values(value).includes(SECRET) && "value" in value) return revealed(value.value);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revealed(inner)]));
}

function idOf(type: string, name: string): string {
  return `${name}.${type.split(":").at(-1)}`;
}

/** What AWS would have said of a resource that was made. */
function state(type: string, name: string): Record<string, unknown> {
  const common = { arn: `arn:aws:made-up:::${name}`, stdout: "", stderr: "" };
  switch (type) {
    case "tls:index/privateKey:PrivateKey":
      return {
        privateKeyOpenssh: { [SIGNATURE]: SECRET, value: `private ${name}\n` },
        publicKeyOpenssh: `ssh-ed25519 ${name}\n`,
      };
    case "aws:ec2/eip:Eip":
      return { ...common, publicIp: "198.51.100.7", allocationId: `${name}.allocation` };
    case "aws:iam/role:Role":
    case "aws:ec2/placementGroup:PlacementGroup":
    case "aws:iam/instanceProfile:InstanceProfile":
      return { ...common, name };
    default:
      return common;
  }
}

/** The key under which the engine's marks stand (`specialSigKey`). */
const SIGNATURE = "4dabf18193072939515e22adb298388d";
