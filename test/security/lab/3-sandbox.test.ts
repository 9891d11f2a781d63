// What the units gave up they cannot do: systemd's word, and operations that fail.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { repository } from "../../../scripts/lib/paths";
import { inside, lab } from "../../lab/bench";
import { sandboxProofs } from "./sandboxProofs";
import { carefulLab } from "./world";

/** The exposure that a unit may have, from 0 to 10; docs/security.md says why some have more than 2. */
const exposed: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  "director-1": {
    "keepalived.service": 2.5,
    "cosyvoice-health.service": 2,
    "cosyvoice-turns.service": 2,
    "cosyvoice-vrrp-guard.service": 2.1,
    "cosyvoice-rules.service": 2,
    "cosyvoice-firewall.service": 2,
  },
  "rs-1": {
    "cosyvoice.service": 2,
    "cosyvoice-front-door.service": 2,
    "cosyvoice-door-metrics.service": 2,
    "cosyvoice-gpu-metrics.service": 2,
    "cosyvoice-vip.service": 2,
    "cosyvoice-firewall.service": 2,
    "cosyvoice-outputs.service": 9.6,
  },
};

describe("sandboxes", () => {
  before(carefulLab);

  for (const [machine, units] of Object.entries(exposed)) {
    it(`leave little to gain on ${machine}, as systemd sees its units`, async () => {
      const names = Object.keys(units);
      const table = await inside(machine, `systemd-analyze security --no-pager ${names.join(" ")}`);
      const found = [...table.matchAll(/Overall exposure level for (\S+): ([\d.]+)/g)];
      assert.deepEqual(found.map(([, unit]) => unit).sort(), [...names].sort());
      for (const [, unit = "", level] of found)
        assert.ok(Number(level) <= (units[unit] ?? 0), `${unit}: ${level}`);
    });
  }

  it("keep each operation from working that a directive is there for", async () => {
    const program = await readFile(join(repository, "test/security/lab/sandbox.py"), "utf8");
    const { stdout } = await lab.exec("rs-1", ["python3", "-c", program], {
      input: JSON.stringify(sandboxProofs),
    });
    const found = JSON.parse(String(stdout)) as Record<string, [boolean, boolean]>;
    const wrong = Object.entries(found).filter(([, [without, with_]]) => !without || with_);
    assert.deepEqual(
      Object.fromEntries(wrong),
      {},
      "each works without its directive (the first) and not with it (the second)",
    );
    assert.equal(Object.keys(found).length, sandboxProofs.length);
  });

  it("let the poller and the keeper of the turns write what is theirs and nothing else", async () => {
    const writable = (user: string) =>
      inside(
        "director-1",
        `setpriv --reuid ${user} --regid ${user} --init-groups find /run/cosyvoice-lvs /etc/cosyvoice-lvs /etc/keepalived /usr/local/lib/cosyvoice-lvs -type d -writable -print 2>/dev/null || true`,
      );
    assert.equal((await writable("cosyvoice-health")).trim(), "/run/cosyvoice-lvs/track");
    assert.equal((await writable("cosyvoice-turns")).trim(), "/run/cosyvoice-lvs/turns");
  });

  it("have nobody run as root who need not, and keep root's programs root's", async () => {
    const users = async (machine: string, units: readonly string[]) => {
      const said = await inside(
        machine,
        `for unit in ${units.join(" ")}; do ps -o user= -p $(systemctl show -P MainPID $unit); done`,
      );
      return said.trim().split(/\s+/);
    };
    assert.deepEqual(
      await users("rs-1", [
        "cosyvoice",
        "cosyvoice-front-door",
        "cosyvoice-door-metrics",
        "cosyvoice-gpu-metrics",
      ]),
      ["cosyvoice", "www-data", "prometheus", "prometheus"],
    );
    const own = ["cosyvoice-health", "cosyvoice-turns"];
    assert.deepEqual(await users("director-1", own), own);
    const writable = await inside(
      "rs-1",
      "find -L /root/CosyVoice/ /usr/local/lib/cosyvoice-lvs /etc/cosyvoice /etc/cosyvoice-lvs -path /root/CosyVoice/outputs -prune -o \\( ! -user root -o -perm /022 \\) ! -type l -print",
    );
    assert.equal(writable.trim(), "");
    assert.match(
      await inside("director-1", "grep -x '    enable_script_security' /etc/keepalived/keepalived.conf"),
      /enable_script_security/,
    );
  });
});
