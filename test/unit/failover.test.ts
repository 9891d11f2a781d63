import assert from "node:assert/strict";
import type { OpenSsh } from "../../components/remote/openssh";
import { failover, renderFailedOver } from "../../scripts/cluster-cli/failover";
import { ProgressLine } from "../../scripts/cluster-cli/progress";
import { renderWhere, where } from "../../scripts/cluster-cli/where";
import { inventory } from "./inventory-fixture";

/** Two directors: keepalived's restart on the one that holds the VIP gives it to the other one. */
class PretendPair {
  holder: string | undefined = "director-1";
  keepalived = "active";
  scheduler = "mh";
  /** Real servers that the standby sends nothing to. */
  lacking: string[] = [];
  /** What `ipvsadm -Lnc` says of the client. */
  table = "";
  readonly asked: string[] = [];
  readonly commands: string[] = [];

  async run(name: string, command: string) {
    if (!command.startsWith("python3 -")) {
      this.commands.push(`${name}: ${command}`);
      if (command.includes("ipvsadm -Lnc")) return { exitCode: 0, stdout: this.table, stderr: "" };
      this.holder = "director-2";
      return { exitCode: 0, stdout: "", stderr: "" };
    }
    this.asked.push(name);
    const holds = name === this.holder;
    const weight = (address: string) => (!holds && this.lacking.includes(address) ? 0 : 1);
    const ipvs = ["10.0.0.1", "10.0.0.2"].map((address) => ({
      ...{ address, port: 7860, forwarding: "Route", weight: weight(address), active: 0, inactive: 0 },
    }));
    const report = {
      ...{
        vip: holds ? "eth0" : null,
        scheduler: this.scheduler,
        ipvs,
        ready: null,
        queue: null,
        drain: null,
      },
      units: { "keepalived.service": holds ? "active" : this.keepalived },
      ...{
        share: null,
        releases: null,
        engine: null,
        gpus: null,
        certificate: null,
        outputs: null,
        layers: {},
      },
    };
    return { exitCode: 0, stdout: JSON.stringify(report), stderr: "" };
  }

  get ssh() {
    return this as unknown as OpenSsh;
  }
}

describe("scripts/cluster failover", () => {
  const stream = { isTTY: false, write: () => true } as unknown as NodeJS.WriteStream;
  const move = (pair: PretendPair, force = false) =>
    failover(inventory, pair.ssh, force, new ProgressLine(stream));

  it("restarts keepalived where the VIP is, and asks nobody but the directors", async () => {
    const pair = new PretendPair();
    const moved = await move(pair);
    assert.deepEqual(moved, { holder: "director-2", standby: "director-1", lacking: [] });
    assert.equal(renderFailedOver(moved), "director-2 holds the VIP, director-1 stands by.");
    assert.deepEqual(pair.commands, ["director-1: sh -c 'systemctl restart keepalived'"]);
    assert.deepEqual([...new Set(pair.asked)], ["director-1", "director-2"]);
  });

  it("leaves the VIP where it is when nobody could take it", async () => {
    const pair = new PretendPair();
    pair.keepalived = "failed";
    await assert.rejects(
      move(pair, true),
      /Not moved: director-2 could not take the VIP, keepalived on it is failed\./,
    );
    pair.holder = undefined;
    await assert.rejects(move(pair, true), /Not moved: no single director that can be reached holds the VIP/);
    assert.deepEqual(pair.commands, []);
  });

  it("takes no real server away from the clients unless it is told to", async () => {
    const pair = new PretendPair();
    pair.lacking = ["10.0.0.2"];
    await assert.rejects(
      move(pair),
      /Not moved: director-2 sends nothing to 10\.0\.0\.2, but director-1 does/,
    );
    assert.match(
      renderFailedOver(await move(pair, true)),
      /director-1 stands by\. It sent nothing to 10\.0\.0\.2 when it took it\.$/,
    );
  });
});

describe("scripts/cluster where, of a cluster", () => {
  const tell = async (pair: PretendPair) => renderWhere(await where(inventory, pair.ssh, "10.1.2.3"));

  it("goes by the table of the director that holds the VIP, and asks its kernel what there is", async () => {
    const pair = new PretendPair();
    assert.match(
      await tell(pair),
      /^10\.1\.2\.3 goes to rs-[12] \(10\.0\.0\.[12]\), by the table of director-1\.\nThe kernel has no connection of it now\.$/,
    );
    const [asked] = pair.commands;
    assert.match(asked ?? "", /^director-1: sh -c .*ipvsadm -Lnc \| awk .*\^10\[\.\]1\[\.\]2\[\.\]3:/);
    pair.scheduler = "wlc";
    assert.match(await tell(pair), /the scheduler is wlc, and only mh can be computed/);
    pair.holder = undefined;
    await assert.rejects(tell(pair), /No director that can be reached/);
  });

  it("shows the connections that are open, and which of them are elsewhere", async () => {
    const pair = new PretendPair();
    const { realServer } = await where(inventory, pair.ssh, "10.1.2.3");
    const own = realServer?.address as string;
    const other = own === "10.0.0.1" ? "10.0.0.2" : "10.0.0.1";
    const line = (state: string, port: number, service: string, destination: string) =>
      `TCP 14:59  ${state.padEnd(11)} 10.1.2.3:${port}   ${service}   ${destination}:7860`;
    pair.table = [
      line("ESTABLISHED", 40000, "10.0.0.100:7860", own),
      line("FIN_WAIT", 40001, "10.0.0.100:7860", own),
      line("ESTABLISHED", 40002, "10.0.0.100:443", own),
      line("ESTABLISHED", 40003, "10.0.0.100:7860", other),
      line("ESTABLISHED", 40004, "10.0.0.100:7860", "10.9.9.9"),
      "",
    ].join("\n");
    const found = await where(inventory, pair.ssh, "10.1.2.3");
    assert.deepEqual(
      found.connections?.map(({ address, states }) => [address, states]),
      [
        [own, { ESTABLISHED: 1, FIN_WAIT: 1 }],
        [other, { ESTABLISHED: 1 }],
        ["10.9.9.9", { ESTABLISHED: 1 }],
      ],
    );
    const text = renderWhere(found);
    assert.match(text, /^ {2}with rs-\d \(10\.0\.0\.\d\): 1 ESTABLISHED, 1 FIN_WAIT$/m);
    assert.match(text, /^ {2}with rs-\d \(10\.0\.0\.\d\): 1 ESTABLISHED, from before the table changed$/m);
    assert.match(text, /^ {2}with a machine that this stack does not know \(10\.9\.9\.9\): 1 /m);
  });
});
