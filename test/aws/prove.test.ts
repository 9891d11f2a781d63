import assert from "node:assert/strict";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import { prove, renderProofs } from "../../scripts/cluster-cli/prove";

const endpoint = { port: 22, user: "deploy", hostKey: "ssh-ed25519 AAAA" };
const machine = (name: string, role: Inventory["machines"][number]["role"], last: number) => ({
  ...endpoint,
  name,
  role,
  address: `10.20.0.${last}`,
  listens: [],
});

const inventory: Inventory = {
  platform: "aws",
  vip: "10.255.0.100",
  port: 7860,
  ssh: { connectTimeout: 10 },
  machines: [
    machine("director-1", "director", 10),
    machine("director-2", "director", 11),
    machine("rs-1", "realServer", 32),
    machine("rs-2", "realServer", 33),
    machine("client", "client", 20),
  ],
};

const TABLE = `TCP  10.255.0.100:7860 mh
  -> 10.20.0.32:7860 Route 1 0 0
Prot LocalAddress:Port Conns InPkts OutPkts InBytes OutBytes
TCP  10.255.0.100:7860 3 30 0 3000 0`;

/** Machines of which all is well, but for what a test says: by machine, what is in the command, and its answer. */
function machines(...changes: readonly [machine: string, part: string, exitCode: number, stdout: string][]) {
  const usual: typeof changes = [
    ["director-1", "grep -qF", 0, ""],
    ["director-2", "grep -qF", 1, ""],
    ["director", "vip-mover check", 0, '{"findings": []}'],
    ["", "v1/audio/speech", 0, "rs-1 24044 bytes"],
    ["director-1", "ipvsadm", 0, TABLE],
    ["rs", "findmnt", 0, "127.0.0.1:/ nfs4"],
    ["rs-1", "echo proved", 0, ""],
    ["rs-2", "cat ", 0, "proved"],
    ["rs-1", "rm -f", 0, ""],
    ["rs", "169.254.169.254", 7, ""],
    ["rs", "nvidia-smi", 0, "GPU 0: made up"],
    ["client", "readyz", 0, "900"],
    ["director-1", "systemctl", 0, ""],
  ];
  const asked: string[] = [];
  return {
    asked,
    run: async (name: string, command: string) => {
      asked.push(`${name}: ${command}`);
      const found = [...changes, ...usual].find(
        ([of, part]) => name.startsWith(of) && command.includes(part),
      );
      assert.ok(found, `no test knows what ${name} answers to ${command}`);
      return { exitCode: found[2], stdout: found[3], stderr: "" };
    },
  };
}

const lines = async (ssh: ReturnType<typeof machines>, failOver = false) =>
  (await prove(inventory, ssh, { failOver })).map(({ claim, holds }) => `${claim.split(":")[0]} ${holds}`);

describe("scripts/cluster prove", () => {
  it("goes through every line, and takes no VIP away unless told", async () => {
    const ssh = machines();
    assert.deepEqual(await lines(ssh), [
      "one holder true",
      "API true",
      "API true",
      "same subnet true",
      "forwarding true",
      "other subnet true",
      "share true",
      "metadata true",
      "gpu true",
      "metadata true",
      "gpu true",
    ]);
    assert.ok(!ssh.asked.some((command) => command.includes("systemctl")));
    assert.ok(
      ssh.asked.some((command) => /^director-2: .*audio\/speech/.test(command)),
      "asked from the standby",
    );
  });

  it("asks from the machine that watches, where there is one", async () => {
    const ssh = machines();
    const watched = { ...inventory, machines: [...inventory.machines, machine("monitor", "monitor", 21)] };
    const proofs = await prove(watched, ssh, { failOver: false });
    assert.equal(proofs.find(({ claim }) => claim.startsWith("same subnet"))?.holds, true);
    assert.ok(ssh.asked.some((command) => /^monitor: .*audio\/speech/.test(command)));
    assert.ok(!ssh.asked.some((command) => /^director-2: .*audio\/speech/.test(command)));
  });

  for (const [what, change, line] of [
    [
      "a reply that passes the director",
      ["director-1", "ipvsadm", 0, TABLE.replace("30 0", "30 30")],
      "forwarding false",
    ],
    [
      "a table that saw nothing",
      ["director-1", "ipvsadm", 0, TABLE.replace("3 30 0", "0 0 0")],
      "forwarding false",
    ],
    ["a share without TLS", ["rs-2", "findmnt", 0, "10.20.0.99:/ nfs4"], "share false"],
    ["a share that is not shared", ["rs-2", "cat ", 1, ""], "share false"],
    ["a metadata service that is open", ["rs-1", "169.254.169.254", 0, ""], "metadata false"],
    ["a client that is not served", ["client", "v1/audio/speech", 1, "timed out"], "other subnet false"],
    ["two holders", ["director-2", "grep -qF", 0, ""], "one holder false"],
    [
      "a route that leads elsewhere",
      ["director-2", "vip-mover check", 1, "the route leads to eni-1"],
      "API false",
    ],
    [
      "a neighbour that is not served",
      ["director-2", "v1/audio/speech", 1, "timed out"],
      "same subnet false",
    ],
  ] as const) {
    it(`finds ${what}`, async () => {
      const found = await lines(machines([...change]));
      assert.deepEqual([...new Set(found.filter((text) => text.endsWith("false")))], [line]);
    });
  }

  it("times a fail-over, and puts keepalived back", async () => {
    let holder = "director-1";
    const ssh = machines();
    const run = async (name: string, command: string) => {
      if (command.includes("kill -s KILL")) holder = "director-2";
      if (command.includes("grep -qF")) return { exitCode: name === holder ? 0 : 1, stdout: "", stderr: "" };
      return ssh.run(name, command);
    };
    const proofs = await prove(inventory, { run }, { failOver: true });
    assert.deepEqual(proofs.at(-1), {
      claim: "fail-over: the other director takes the VIP, and the routes follow",
      holds: true,
      evidence: "director-2 took it; longest silence 900 ms, seen from client",
    });
    assert.match(ssh.asked.at(-1) ?? "", /^director-1: .*unmask .* start keepalived/);
  });

  it("finds a VIP that nobody takes, and one that is away for too long", async () => {
    for (const [taken, silence] of [
      [1, "900"],
      [0, "12000"],
    ] as const) {
      const ssh = machines(["client", "readyz", 0, silence]);
      let cut = false;
      const run = async (name: string, command: string) => {
        cut ||= command.includes("kill -s KILL");
        if (cut && name === "director-2" && command.includes("grep -qF")) {
          return { exitCode: taken, stdout: "", stderr: "" };
        }
        return ssh.run(name, command);
      };
      const proofs = await prove(inventory, { run }, { failOver: true });
      assert.equal(proofs.at(-1)?.holds, false);
    }
  });

  it("writes a report that says when", () => {
    const report = renderProofs(
      "prod",
      [{ claim: "a: b", holds: false, evidence: "c" }],
      Date.UTC(2026, 0, 31, 18, 5, 9),
    );
    assert.match(report, /2026-01-31 18:05:09 UTC/);
    assert.match(report, /\| a: b \| \*\*FAILS\*\* \| c \|/);
  });
});
