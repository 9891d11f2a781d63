import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import * as pulumi from "@pulumi/pulumi";
import { Cluster } from "../../components/cluster";
import { awsPlatform } from "../../components/platform/aws";
import { quotaOf } from "../../components/platform/aws/facts";
import { answeringDirector } from "../../components/platform/aws/jump";
import { release } from "../components/fixture";
import { settled } from "../components/mocks";
import { stackFile } from "../unit/config-fixture";
import { parsedAws, rawAws, rawGivenVpc, rawTwoZones } from "./fixture";
import { type Answers, startAws } from "./mocks";

/** What a deployment says when AWS will not give what it asks for, and whether anything but the provider was registered. */
async function refusal(raw: Record<string, unknown>, answers: Answers): Promise<string> {
  const registered = await startAws(answers);
  const config = parsedAws(raw);
  const error: unknown = await awsPlatform(config, config.aws).then(
    () => assert.fail("it was not refused"),
    (reason: unknown) => reason,
  );
  assert.ok(pulumi.RunError.isInstance(error));
  assert.deepEqual(
    registered.map(({ type }) => type),
    ["pulumi:providers:aws"],
  );
  return error.message;
}

const OFFERINGS = "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings";
const QUOTA = "aws:servicequotas/getServiceQuota:getServiceQuota";

describe("what AWS is asked before anything is made", () => {
  it("refuses a type that the zone does not have, and a quota that is too small, at once", async () => {
    const said = await refusal(rawAws(), {
      [OFFERINGS]: () => ({
        instanceTypes: ["g5.xlarge", "c6i.large", "t3.micro"],
        locations: ["eu-central-1b", "eu-central-1a", "eu-central-1a"],
      }),
      [QUOTA]: ({ quotaCode }) => ({ value: quotaCode === "L-DB2E81BA" ? 0 : 64 }),
    });
    assert.match(said, /The configuration has 2 mistakes; nothing was touched\./);
    assert.match(
      said,
      /aws\.realServers\.instanceType is not offered in eu-central-1a\n.*"g5\.xlarge"\n.*zone that has it: eu-central-1b/,
    );
    assert.match(said, /need 8 vCPUs, but the quota L-DB2E81BA of this account allows 0 in eu-central-1/);
    assert.match(
      said,
      /request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA --desired-value 8/,
    );
  });

  it("refuses a type that the region does not have", async () => {
    const said = await refusal(rawAws(), { [OFFERINGS]: () => ({ instanceTypes: [], locations: [] }) });
    assert.match(said, /aws\.directors\.instanceType is not offered in eu-central-1\n/);
  });

  it("refuses a second zone without the type", async () => {
    const said = await refusal(rawTwoZones(), {
      [OFFERINGS]: ({ filters }) => {
        const types = (filters as { values: string[] }[])[0]?.values ?? [];
        return { instanceTypes: types, locations: types.map(() => "eu-central-1a") };
      },
    });
    assert.match(said, /is not offered in eu-central-1b/);
  });

  it("refuses a given VPC that is another than the file says", async () => {
    const said = await refusal(rawGivenVpc(), {
      "aws:ec2/getVpc:getVpc": () => ({ cidrBlock: "10.30.0.0/16" }),
      "aws:ec2/getSubnet:getSubnet": () => ({
        cidrBlock: "10.30.0.0/20",
        availabilityZone: "eu-central-1b",
        vpcId: "vpc-fedcba9876543210f",
      }),
    });
    for (const [path, is] of [
      ["aws.network.cidr", "10.30.0.0/16"],
      ["aws.network.zones[0].cidr", "10.30.0.0/20"],
      ["aws.network.zones[0].name", "eu-central-1b"],
    ] as const) {
      assert.ok(said.includes(`${path} is ${is} in AWS`), said);
    }
    assert.match(said, /zones\[0\]\.subnetId is a subnet of vpc-fedcba9876543210f/);
  });

  it("says how to log in when AWS cannot be asked", async () => {
    const said = await refusal(rawAws(), {
      [OFFERINGS]: () => {
        throw new Error("no valid credential sources");
      },
    });
    assert.match(said, /^AWS could not be asked; nothing was touched: /);
    assert.match(said, /aws sts get-caller-identity/);
  });

  it("counts each family of instance types against its own quota", () => {
    const types = ["g5.xlarge", "g4dn.xlarge", "p4d.24xlarge", "c6i.large", "t3.micro", "gr6.4xlarge"];
    assert.deepEqual(
      types.map((type) => quotaOf(type, false)),
      ["L-DB2E81BA", "L-DB2E81BA", "L-417A185B", "L-1216C47A", "L-1216C47A", "L-DB2E81BA"],
    );
    assert.equal(quotaOf("g5.xlarge", true), "L-3819A6DF");
  });
});

describe("the jump host", () => {
  it("is the first director that answers", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => server.once("listening", listening));
    const { port } = server.address() as { port: number };
    const names = ["director-1", "director-2"];
    // 127.0.0.2 has nobody listening.
    const dead = { "director-1": "127.0.0.2", "director-2": "127.0.0.1" };
    const alive = { "director-1": "127.0.0.1", "director-2": "127.0.0.1" };
    try {
      assert.equal(await answeringDirector(names, dead, port), "director-2");
      assert.equal(await answeringDirector(names, alive, port), "director-1");
      assert.equal(await answeringDirector(names, {}, port), "director-1");
    } finally {
      server.close();
    }
  });
});

describe("Pulumi.prod.yaml", () => {
  const golden = fileURLToPath(new URL("prod-graph.txt", import.meta.url));

  it("becomes exactly these resources", async () => {
    const registered = await startAws();
    const config = parsedAws(stackFile("prod"));
    const platform = await awsPlatform(config, config.aws);
    new Cluster("cosyvoice", { config, machines: platform.machines, cloud: platform, release });
    await settled();
    const graph = `${registered
      .map(({ type, name }) => `${type} ${name}`)
      .sort()
      .join("\n")}\n`;
    if (process.env.UPDATE_GOLDEN === "1") writeFileSync(golden, graph);
    assert.ok(
      existsSync(golden),
      "run UPDATE_GOLDEN=1 npx mocha --config test/aws/.mocharc.json, and look at it",
    );
    assert.equal(graph, readFileSync(golden, "utf8"));
  });
});
