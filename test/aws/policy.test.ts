import assert from "node:assert/strict";
import { Cluster } from "../../components/cluster";
import { awsPlatform } from "../../components/platform/aws";
import { rules, stackRules } from "../../policy/rules";
import { release } from "../components/fixture";
import { type Registered, settled } from "../components/mocks";
import { stackFile } from "../unit/config-fixture";
import { parsedAws, rawGivenVpc, rawInternet, rawTwoZones } from "./fixture";
import { startAws } from "./mocks";

/** Everything that the rules of policy/ have against what a configuration makes. */
async function complaints(raw: Record<string, unknown>): Promise<string[]> {
  const registered = await startAws();
  const config = parsedAws(raw);
  const cloud = await awsPlatform(config, config.aws);
  new Cluster("cosyvoice", { config, machines: cloud.machines, cloud, release });
  await settled();
  const provider = registered.find(({ type }) => type === "pulumi:providers:aws")?.inputs;
  const declared = registered.map(({ type, name, inputs }) => ({
    type,
    name,
    inputs,
    provider: parsedTags(provider),
  }));
  return [
    ...declared.flatMap((resource) =>
      rules.filter(({ types }) => types.includes(resource.type)).flatMap(({ broken }) => broken(resource)),
    ),
    ...stackRules.flatMap(({ broken }) =>
      broken(declared.map((resource) => ({ ...resource, urn: resource.name, leadsTo: [] }))).map(
        ({ message }) => message,
      ),
    ),
  ];
}

/** A provider's inputs are texts of JSON. */
function parsedTags(provider: Registered["inputs"] = {}) {
  const { defaultTags } = provider;
  return {
    ...provider,
    defaultTags: typeof defaultTags === "string" ? JSON.parse(defaultTags) : defaultTags,
  };
}

describe("the policy pack on aws", () => {
  for (const [name, raw] of [
    ["Pulumi.prod.yaml", () => stackFile("prod")],
    ["a service on the internet", rawInternet],
    ["two zones", rawTwoZones],
    ["a given VPC", rawGivenVpc],
  ] as const) {
    it(`has nothing against ${name}`, async () => assert.deepEqual(await complaints(raw()), []));
  }

  // The configuration refuses 0.0.0.0/0 by itself.
  it("would have, were SSH let in from half of everywhere", async () => {
    const found = await complaints(rawInternet({ admins: ["128.0.0.0/1"] }));
    assert.match(found.join("\n"), /lets SSH in from 128\.0\.0\.0\/1/);
  });
});
