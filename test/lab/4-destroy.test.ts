import assert from "node:assert/strict";
import { DIRECTORS, inside, lab, REAL_SERVERS, script, VIP } from "./bench";

const destroy = () => script("lab", "pulumi", "destroy", "--yes", "--skip-preview", "--non-interactive");

/**
 * What is left of us on a machine; nothing, after a destroy. The lab's image came with the Python environment below
 * /opt/cosyvoice/envs, so that stays.
 */
const traces = `
ip -o -4 address show | grep -F ${VIP}/32
systemctl list-unit-files --no-legend | grep -i cosyvoice
ls -d /etc/sysctl.d/*cosyvoice* /etc/modules-load.d/*cosyvoice* /etc/exports.d/*cosyvoice* /etc/keepalived/*cosyvoice* \\
  /etc/keepalived/keepalived.conf /etc/cosyvoice-lvs /root/.cosyvoice-lvs* /usr/local/lib/cosyvoice-lvs /var/lib/cosyvoice-lvs /opt/cosyvoice/releases /opt/cosyvoice/current \\
  /root/CosyVoice 2>/dev/null
mount | grep CosyVoice
[ "$(sysctl -n net.ipv4.conf.all.arp_ignore)" = 0 ] || echo arp_ignore
ipvsadm -Ln 2>/dev/null | grep -F ${VIP}
true`;

describe("taking it down", () => {
  it("with a machine that is off says so and cleans the others", async () => {
    await lab.powerCut("rs-2");
    const { exitCode, output } = await destroy();
    assert.notEqual(exitCode, 0);
    assert.match(output, /rs-2/);
    for (const name of [...DIRECTORS, "rs-1", "rs-3", "client"])
      assert.equal(await inside(name, traces), "", name);
  });

  it("forgets a machine that is gone for good, and then finishes", async () => {
    const forgotten = await script("cluster", "forget", "rs-2");
    assert.equal(forgotten.exitCode, 0);
    assert.match(forgotten.output, /Forgotten: .*cosyvoice-speech-rs-2/);
    assert.equal((await destroy()).exitCode, 0);
    assert.equal(await inside("storage", traces), "");
    const kept = await inside("storage", "ls /srv/cosyvoice/outputs | grep -c wav");
    assert.ok(Number(kept) > 0, "the results are kept");
    await lab.powerOn("rs-2");
    assert.deepEqual(
      (await lab.status()).machines.filter(({ ssh }) => !ssh).map(({ name }) => name),
      [],
      `${REAL_SERVERS.length} real servers answer`,
    );
  });

  it("removes the lab", async () => {
    assert.equal((await script("lab", "destroy")).exitCode, 0);
    assert.equal((await lab.status()).exists, false);
  });
});
