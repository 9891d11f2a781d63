// What can be reached from outside, what a machine that fell can do to the others, and that nobody locks himself out.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { machineNamed } from "../../../lab/machines";
import { repository } from "../../../scripts/lib/paths";
import { DIRECTORS, holder, inside, lab, REAL_SERVERS, script, VIP, withSettings } from "../../lab/bench";
import { at, carefulLab, curl, deploy, onClient } from "./world";

const FILTERED = [...DIRECTORS, ...REAL_SERVERS, "storage", "monitor"];

describe("narrow ports", () => {
  before(carefulLab);

  it("let in from outside what a role needs, and nothing else that listens", async () => {
    const listening = await Promise.all(
      FILTERED.map(async (name) => {
        const ports = (await inside(name, "ss -Hltn")).match(/(?<=:)\d+(?= )/g) ?? [];
        return [
          name,
          {
            address: machineNamed(name).address,
            ports: [...new Set(ports.map(Number))].sort((a, b) => a - b),
          },
        ] as const;
      }),
    );
    for (const [name, { ports }] of listening) console.log(`        ${name} listens on ${ports.join(", ")}`);
    const targets = {
      ...Object.fromEntries(listening),
      vip: { address: VIP, ports: [22, 80, 443, 7860, 7861, 7862] },
    };
    assert.deepEqual(await onClient("reachable.py", [], JSON.stringify(targets)), {
      "director-1": [],
      "director-2": [],
      "rs-1": [80, 443],
      "rs-2": [80, 443],
      "rs-3": [80, 443],
      storage: [],
      monitor: [],
      vip: [80, 443],
    });
  });

  it("leave the VIP where it is when a real server says that it has it", async () => {
    const before = await holder();
    const since = (await inside(before, "date +%s")).trim();
    const program = await readFile(join(repository, "test/lab/clients/vrrp_adverts.py"), "utf8");
    for (const director of DIRECTORS) {
      const { address } = machineNamed(director);
      const sent = await lab.exec(
        "rs-1",
        ["python3", "-", machineNamed("rs-1").address, address, VIP, "51", "255", "5"],
        { input: program },
      );
      assert.ok(Number(sent.stdout) > 20);
      assert.match(await curl(at("/healthz")), /^200 /);
    }
    assert.equal(await holder(), before);
    for (const director of DIRECTORS)
      assert.doesNotMatch(
        await inside(director, `journalctl -u keepalived --since @${since} -o cat`),
        /Entering (BACKUP|MASTER|FAULT) STATE/,
        director,
      );
  });

  it("are missed by doctor when another program has taken them away, and come back by what it says", async () => {
    await inside("rs-1", "nft delete table inet cosyvoice_lvs_firewall");
    const { exitCode, output } = await script("cluster", "doctor");
    assert.equal(exitCode, 1, output);
    assert.match(output, /rs-1.*its packet filter \(table inet cosyvoice_lvs_firewall\) is not in force/);
    const [, fix = ""] = /fix: scripts\/cluster ssh rs-1 -- (systemctl restart \S+);/.exec(output) ?? [];
    await inside("rs-1", fix);
    assert.match(await inside("rs-1", "nft list table inet cosyvoice_lvs_firewall"), /policy drop/);
  });

  it("never shut out who deploys", async () => {
    await withSettings({ firewall: { enabled: true, admins: ["10.0.0.0/8"] } }, async () => {
      const { exitCode, output } = await deploy();
      assert.notEqual(exitCode, 0);
      assert.match(output, /192\.168\.1\.1 is connected by SSH, and firewall\.admins does not have it/);
    });
    // The rules from before are in force again.
    for (const name of FILTERED)
      assert.match(await inside(name, "nft list set inet cosyvoice_lvs_firewall admins"), /192\.168\.1\.1\b/);
    assert.equal((await deploy()).exitCode, 0, "and the machines are still reached");
  });
});
