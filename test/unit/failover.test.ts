import assert from "node:assert/strict";
import type { OpenSsh } from "../../components/remote/openssh";
import { failover } from "../../scripts/cluster-cli/failover";
import { ProgressLine } from "../../scripts/cluster-cli/progress";
import { where } from "../../scripts/cluster-cli/where";
import { inventory } from "./inventory-fixture";

/** Two directors: keepalived's restart on the one that holds the VIP gives it to the other one. */
class PretendPair {
  holder: string | undefined = "director-1";
  keepalived = "active";
  scheduler = "mh";
  /** Real servers that the standby sends nothing to. */
  lacking: string[] = [];
  readonly asked: string[] = [];
  readonly commands: string[] = [];

  async run(name: string, command: string) {
    if (!command.startsWith("python3 -")) {
      this.commands.push(`${name}: ${command}`);
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
      share: null,
      ...{ releases: null, engine: null, gpus: null, certificate: null, outputs: null, layers: {} },
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
    assert.equal(await move(pair), "director-2 holds the VIP, director-1 stands by.");
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
      /Not moved: director-2 sends nothing to 10\.0\.0\.2, which director-1 does/,
    );
    assert.match(await move(pair, true), /director-2 holds the VIP/);
  });
});

describe("scripts/cluster where, of a cluster", () => {
  it("goes by the table of the director that holds the VIP", async () => {
    const pair = new PretendPair();
    assert.match(
      await where(inventory, pair.ssh, "10.1.2.3"),
      /^10\.1\.2\.3 goes to rs-[12] \(10\.0\.0\.[12]\), by the table of director-1\.$/,
    );
    pair.scheduler = "wlc";
    await assert.rejects(where(inventory, pair.ssh, "10.1.2.3"), /The scheduler is wlc/);
    pair.holder = undefined;
    await assert.rejects(where(inventory, pair.ssh, "10.1.2.3"), /No director that can be reached/);
  });
});
