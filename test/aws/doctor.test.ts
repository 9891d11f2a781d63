import assert from "node:assert/strict";
import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import { diagnose, type Finding } from "../../scripts/cluster-cli/doctor";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import { ProgressLine } from "../../scripts/cluster-cli/progress";
import { machine } from "../unit/inventory-fixture";

const cluster: Inventory = {
  platform: "aws",
  vip: "10.255.0.100",
  port: 7860,
  servicePort: 443,
  unchecked: ["10.20.0.10", "10.20.0.11", "10.20.0.32"],
  ssh: { connectTimeout: 10 },
  machines: [
    machine("director-1", "director", "10.20.0.10"),
    machine("director-2", "director", "10.20.0.11"),
    machine("rs-1", "realServer", "10.20.0.32"),
  ],
};

const fix = "run pulumi up --refresh";
const checks = {
  address: "10.20.0.32",
  what: "AWS checks source and destination of 10.20.0.32 (eni-1)",
  fix,
};
const route = { address: null, what: "no route table of vpc-1 has a route to the VIP", fix };

type Answer = readonly [exitCode: number, stdout: string, stderr: string];
const finds = (...findings: object[]): Answer => [1, JSON.stringify({ holder: true, findings }), "text\n"];
const well: Answer = [0, '{"findings": []}', ""];

/** What a machine says of its status: next to nothing. */
const status = {
  ...{
    vip: null,
    scheduler: null,
    ipvs: null,
    units: {},
    ready: null,
    queue: null,
    share: null,
    drain: null,
  },
  ...{ releases: null, engine: null, gpus: null, certificate: null, outputs: null, layers: {} },
};

/** What doctor finds besides the status, when each director is told that by AWS; and what the directors were asked. */
async function found(told: Record<string, Answer | Error>, inventory = cluster) {
  const asked: Record<string, unknown> = {};
  const full = [{ path: "/", free: 1, size: 2 ** 40 }];
  const ssh = {
    run: async (name: string, command: string, { input = "" } = {}) => {
      if (command.includes("vip-mover")) {
        assert.match(command, /check \/etc\/cosyvoice-lvs\/vip-mover\.json$/);
        asked[name] = JSON.parse(input.slice(input.lastIndexOf("\n") + 1));
        const answer = told[name];
        assert.ok(answer, `${name} was asked`);
        if (answer instanceof Error) throw answer;
        return { exitCode: answer[0], stdout: answer[1], stderr: answer[2] };
      }
      const disks = name === "director-1" ? full : [];
      const examination = { clock: Date.now() / 1000, disks, listens: [], filters: [] };
      const report = command.includes(cluster.vip) ? status : examination;
      return { exitCode: 0, stdout: JSON.stringify(report), stderr: "" };
    },
  } as unknown as OpenSsh;
  const silent = new ProgressLine({ isTTY: false, write: () => true } as unknown as NodeJS.WriteStream);
  const { findings } = await diagnose(inventory, [], ssh, silent);
  const besides = ({ fix: other }: Finding) => !other.startsWith("see below");
  return { asked, findings: findings.filter(besides).map(({ machine: of, what }) => `${of}: ${what}`) };
}

const disk = "director-1: / is nearly full: 0.0 GiB of 1024.0 GiB are free";

describe("scripts/cluster doctor, on aws", () => {
  it("asks AWS from both directors, and names each finding once, with the machine that it is about", async () => {
    const { asked, findings } = await found({
      "director-1": finds(checks, route),
      "director-2": finds(checks, route),
    });
    const expected = { unchecked: cluster.unchecked, port: 443 };
    assert.deepEqual(asked, { "director-1": expected, "director-2": expected });
    assert.deepEqual(findings, [`null: ${route.what}`, disk, `rs-1: ${checks.what}`]);
  });

  it("says of a director that AWS cannot be asked there, and what else was found all the same", async () => {
    const traceback =
      "Traceback (most recent call last):\nNoCredentialsError: Unable to locate credentials\n";
    const hint = "scripts/cluster status";
    const { findings } = await found({
      "director-1": [1, "", traceback],
      "director-2": new UnreachableError("director-2", "10.20.0.11", "no answer within 90 s", hint),
    });
    const unasked = "it cannot ask AWS where the VIP's routes lead and which packets AWS checks";
    assert.deepEqual(findings, [
      disk,
      `director-1: ${unasked}: NoCredentialsError: Unable to locate credentials`,
      `director-2: ${unasked}: no answer within 90 s`,
    ]);
  });

  it("asks for the directors alone where an older version deployed, and finds nothing where all is well", async () => {
    const { unchecked, servicePort, ...older } = cluster;
    const { asked, findings } = await found({ "director-1": well, "director-2": well }, older);
    assert.deepEqual(asked["director-2"], { unchecked: ["10.20.0.10", "10.20.0.11"], port: 7860 });
    assert.deepEqual(findings, [disk]);
  });

  it("asks nobody on another platform", async () => {
    const { asked, findings } = await found({}, { ...cluster, platform: "hosts" });
    assert.deepEqual([asked, findings], [{}, [disk]]);
  });
});
