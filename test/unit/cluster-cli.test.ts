import assert from "node:assert/strict";
import { resourcesOf } from "../../scripts/cluster-cli/forget";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import type { MachineReport } from "../../scripts/cluster-cli/probe";
import { type Answer, summarise } from "../../scripts/cluster-cli/status";
import { renderStatus } from "../../scripts/cluster-cli/table";

const machine = (name: string, role: "director" | "realServer", address: string) => ({
  name,
  role,
  address,
  port: 22,
  user: "root",
  hostKey: "ssh-ed25519 AAAA",
});

const inventory: Inventory = {
  vip: "10.0.0.100",
  port: 7860,
  ssh: { connectTimeout: 10 },
  machines: [
    machine("director-1", "director", "10.0.0.11"),
    machine("director-2", "director", "10.0.0.12"),
    machine("rs-1", "realServer", "10.0.0.1"),
    machine("rs-2", "realServer", "10.0.0.2"),
  ],
};

const report = (changes: Partial<MachineReport>): Answer => ({
  report: {
    vip: null,
    scheduler: null,
    ipvs: null,
    units: { "keepalived.service": "active", "cosyvoice.service": "active" },
    ready: true,
    outputs: "10.0.0.20:/",
    layers: {},
    ...changes,
  },
});

const entry = (address: string, weight: number) => ({
  address,
  port: 7860,
  forwarding: "Route",
  weight,
  active: 2,
  inactive: 1,
});

const holds = report({ vip: "eth0", scheduler: "mh", ipvs: [entry("10.0.0.1", 1), entry("10.0.0.2", 1)] });

function answers(changes: Record<string, Answer> = {}): Map<string, Answer> {
  const well = { "director-1": holds, "director-2": report({}), "rs-1": report({}), "rs-2": report({}) };
  return new Map(Object.entries({ ...well, ...changes }));
}

describe("scripts/cluster status", () => {
  it("finds nothing when all is well", () => {
    const status = summarise(inventory, answers());
    assert.equal(status.holder, "director-1");
    assert.deepEqual(status.findings, []);
    assert.deepEqual(
      status.realServers.map(({ name, pool, activeConnections }) => ({ name, pool, activeConnections })),
      [
        { name: "rs-1", pool: "serving", activeConnections: 2 },
        { name: "rs-2", pool: "serving", activeConnections: 2 },
      ],
    );
  });

  const faults: [string, Record<string, Answer>, RegExp][] = [
    ["two holders", { "director-2": report({ vip: "eth0" }) }, /director-1 and director-2 both hold the VIP/],
    ["no holder", { "director-1": report({}) }, /No director that can be reached holds the VIP/],
    [
      "a machine that is off",
      { "rs-2": { reason: "connection timed out" } },
      /rs-2 \(10\.0\.0\.2\) cannot be reached/,
    ],
    ["a share that is away", { "rs-1": report({ outputs: null }) }, /rs-1: the share is not mounted/],
    [
      "a service that is not ready",
      { "rs-1": report({ ready: "503" }) },
      /rs-1: the service is active, not ready/,
    ],
    [
      "a stopped keepalived",
      { "director-2": report({ units: { "keepalived.service": "failed" } }) },
      /keepalived is failed/,
    ],
    [
      "a server out of the pool",
      { "director-1": report({ vip: "eth0", scheduler: "mh", ipvs: [entry("10.0.0.1", 1)] }) },
      /rs-2 gets no new connections \(out\)/,
    ],
    [
      "a drained server",
      {
        "director-1": report({
          vip: "eth0",
          scheduler: "mh",
          ipvs: [entry("10.0.0.1", 1), entry("10.0.0.2", 0)],
        }),
      },
      /rs-2 gets no new connections \(drained\)/,
    ],
  ];
  for (const [what, changes, expected] of faults) {
    it(`names ${what}, in the table too`, () => {
      const status = summarise(inventory, answers(changes));
      assert.equal(
        status.findings.filter((finding) => expected.test(finding)).length,
        1,
        status.findings.join("\n"),
      );
      assert.match(renderStatus(status), expected);
    });
  }
});

describe("scripts/cluster forget", () => {
  it("takes a machine's resources and the components that hold nothing else", () => {
    const at = (urn: string, parent: string, host?: string) => ({
      urn,
      parent,
      ...(host === undefined ? {} : { inputs: { connection: { host } } }),
    });
    const state = [
      at("cluster", "stack"),
      at("rs-1", "cluster"),
      at("rs-1-layer", "rs-1", "10.0.0.1"),
      at("rs-2", "cluster"),
      {
        ...at("rs-2-layer", "rs-2"),
        inputs: { connection: { plaintext: '{"host":"10.0.0.2","privateKey":"made up"}' } },
      },
      at("speech", "cluster"),
      at("speech-rs-1", "speech", "10.0.0.1"),
      at("speech-rs-2", "speech", "10.0.0.2"),
    ];
    assert.deepEqual(resourcesOf(state, "10.0.0.2"), ["rs-2", "rs-2-layer", "speech-rs-2"]);
    assert.deepEqual(resourcesOf(state, "10.0.0.9"), []);
  });
});
