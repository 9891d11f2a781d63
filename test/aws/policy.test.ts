import assert from "node:assert/strict";
import { Cluster } from "../../components/cluster";
import { awsPlatform } from "../../components/platform/aws";
import type { Placed } from "../../policy/declared";
import { rules } from "../../policy/rules";
import { stackRules } from "../../policy/stackRules";
import { release } from "../components/fixture";
import { settled } from "../components/mocks";
import { stackFile } from "../unit/config-fixture";
import { parsedAws, rawGivenVpc, rawInternet, rawTwoZones } from "./fixture";
import { startAws } from "./mocks";

/** What a configuration makes, as the rules of policy/ get it. */
async function declaredFor(raw: Record<string, unknown>): Promise<Placed[]> {
  const registered = await startAws();
  const config = parsedAws(raw);
  const cloud = await awsPlatform(config, config.aws);
  new Cluster("cosyvoice", { config, machines: cloud.machines, cloud, release });
  await settled();
  const provider = registered.find(({ type }) => type === "pulumi:providers:aws")?.inputs;
  return registered.map(({ type, name, inputs }) => ({
    type,
    name,
    inputs,
    provider,
    urn: name,
    leadsTo: [],
  }));
}

function complaints(resources: readonly Placed[]): string[] {
  return [
    ...resources.flatMap((resource) =>
      rules.filter(({ types }) => types.includes(resource.type)).flatMap(({ broken }) => broken(resource)),
    ),
    ...stackRules.flatMap(({ broken }) => broken(resources).map(({ message }) => message)),
  ];
}

describe("the policy pack on aws", () => {
  for (const [name, raw] of [
    ["Pulumi.prod.yaml", () => stackFile("prod")],
    ["a service on the internet", rawInternet],
    ["two zones", rawTwoZones],
    ["a given VPC", rawGivenVpc],
  ] as const) {
    it(`has nothing against ${name}`, async () => assert.deepEqual(complaints(await declaredFor(raw())), []));
  }

  it("looks at something of Pulumi.prod.yaml with every rule, and sees what is wrong", async () => {
    const resources = await declaredFor(stackFile("prod"));
    const there = new Set(resources.map(({ type }) => type));
    for (const { name, types } of rules)
      assert.ok(
        types.some((type) => there.has(type)),
        name,
      );
    const opened = resources.map((resource) =>
      resource.inputs.fromPort === 22 && "cidrIpv4" in resource.inputs
        ? { ...resource, inputs: { ...resource.inputs, cidrIpv4: "0.0.0.0/0" } }
        : resource,
    );
    assert.deepEqual(complaints(opened), [
      "cosyvoice-firewall-directors-in-22-203.0.113.7_32 lets SSH in from 0.0.0.0/0. List your networks in aws.admins, such as 203.0.113.7/32.",
    ]);
  });
});
