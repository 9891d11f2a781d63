import assert from "node:assert/strict";
import { ask, holder, inside, lab, script, untilWell, up, VIP, withSettings } from "./bench";

const preview = () => script("lab", "pulumi", "preview", "--diff", "--non-interactive");

describe("a change", () => {
  it("of one value shows the machines and the line it touches, and nothing else", async () => {
    await withSettings({ "vrrp.advertInterval": 0.2 }, async () => {
      const { exitCode, output } = await preview();
      assert.equal(exitCode, 0);
      const touched = [...output.matchAll(/\[urn=[^\]]*::([^\]:]+)\]/g)].map(([, name]) => name).sort();
      const commands = touched.filter((name) =>
        /-(director-\d-director|verification-client)$/.test(name ?? ""),
      );
      assert.equal(commands.length, 3, `touched: ${touched.join(", ")}`);
      assert.ok(!touched.some((name) => /rs-\d/.test(name ?? "")), "no real server");
      assert.match(output, /- +.*advert_int 0\.1/);
      assert.match(output, /\+ +.*advert_int 0\.2/);
      assert.doesNotMatch(output, /[-+] +.*virtual_router_id/);
    });
  });

  it("that is wrong in many ways is refused with all of them, and nothing is touched", async () => {
    const before = await inside("director-1", "md5sum /etc/keepalived/keepalived.conf");
    const settings = {
      vip: "192.168.1.101",
      "vrrp.virtualRouterId": 0,
      "loadBalancer.scheduler": "round-robin",
      "directors.0.priority": 90,
      "realServers.1.address": "192.168.1.101",
      typo: 1,
    };
    await withSettings(settings, async () => {
      const { exitCode, output } = await up();
      assert.notEqual(exitCode, 0);
      for (const word of [
        "vip",
        "vrrp.virtualRouterId",
        "loadBalancer.scheduler",
        "priority",
        "realServers[1].address",
        "typo",
      ]) {
        assert.ok(output.includes(word), `${word} is named`);
      }
    });
    assert.equal(await inside("director-1", "md5sum /etc/keepalived/keepalived.conf"), before);
  });

  it("is refused within 30 s when a machine does not answer, which is named, before the rest is touched", async () => {
    const before = await inside("director-1", "md5sum /etc/keepalived/keepalived.conf");
    await lab.unplug("rs-2");
    try {
      await withSettings({ "vrrp.advertInterval": 0.2 }, async () => {
        const start = Date.now();
        const { exitCode, output } = await up();
        assert.notEqual(exitCode, 0);
        assert.match(output, /rs-2 \(192\.168\.1\.102\): /);
        assert.match(output, /1 of 8 machines/);
        console.log(`        named after ${((Date.now() - start) / 1000).toFixed(1)} s`);
      });
    } finally {
      await lab.plug("rs-2");
    }
    assert.equal(await inside("director-1", "md5sum /etc/keepalived/keepalived.conf"), before);
  });

  it("is refused when a machine shows another host key than the pinned one", async () => {
    const other = await lab.keys.hostKey("storage");
    await withSettings({ "realServers.0.hostKey": other }, async () => {
      const { exitCode, output } = await up();
      assert.notEqual(exitCode, 0);
      assert.match(output, /rs-1 \(192\.168\.1\.101\): its SSH host key is not the pinned one/);
    });
  });

  it("that keepalived would refuse never replaces a configuration that works", async () => {
    const file = "/etc/keepalived/keepalived.conf";
    const before = await inside("director-1", `md5sum ${file}`);
    const manifest = {
      layer: "director",
      owner: "lab/director-1",
      files: {
        [file]: { content: "vrrp_instance {\n", mode: "0640", check: "keepalived -t -f {}", checkOk: [0, 6] },
      },
    };
    const { exitCode, stderr } = await lab.exec(
      "director-1",
      ["/usr/local/lib/cosyvoice-lvs/apply", "apply"],
      {
        input: JSON.stringify(manifest),
        reject: false,
      },
    );
    assert.equal(exitCode, 1);
    assert.match(String(stderr), /keepalived/);
    assert.equal(await inside("director-1", `md5sum ${file}`), before);
    await inside("director-1", "systemctl is-active keepalived");
  });

  it("to the classic article's configuration is deployed, proved, and undone", async () => {
    const classic = {
      loadBalancer: {
        forwarding: "DR",
        scheduler: "rr",
        persistence: 300,
        check: { kind: "tcp", connectTimeout: 3, retry: 3, delayBeforeRetry: 3, delayLoop: 6 },
      },
      vrrp: { version: 2, virtualRouterId: 51, advertInterval: 1, unicast: false, authentication: "PASS" },
      vrrpPassword: "article1",
      "directors.0.priority": 100,
      "directors.1.priority": 90,
    };
    await withSettings(classic, async () => {
      const { exitCode, output } = await up();
      assert.equal(exitCode, 0);
      assert.ok(!output.includes("article1"), "the password is not shown");
      const table = await inside(await holder(), "ipvsadm -Ln");
      assert.match(table, new RegExp(`TCP +${VIP}:7860 rr persistent 300`));
      assert.match(await inside("director-1", "cat /etc/keepalived/keepalived.conf"), /advert_int 1\n/);
      assert.equal(await inside("director-1", "stat -c %a /etc/keepalived/cosyvoice-lvs-auth.conf"), "600");
    });
  });

  for (const forwarding of ["TUN", "NAT"]) {
    it(`to forwarding ${forwarding} is deployed and proved`, async () => {
      await withSettings({ "loadBalancer.forwarding": forwarding }, async () => {
        assert.equal((await up()).exitCode, 0);
        const word = { TUN: "Tunnel", NAT: "Masq" }[forwarding] as string;
        assert.equal((await inside(await holder(), "ipvsadm -Ln")).match(new RegExp(word, "g"))?.length, 3);
        const traced = await script("cluster", "trace", "--from", "192.168.1.201");
        assert.equal(traced.exitCode, 0, traced.output);
        assert.match(
          traced.output,
          { TUN: /by a tunnel:/, NAT: /by address translation:/ }[forwarding] as RegExp,
        );
      });
    });
  }

  it("back to the default leaves nothing of what came in between", async () => {
    assert.equal((await up()).exitCode, 0);
    await untilWell(60);
    await inside("director-1", "test ! -e /etc/keepalived/cosyvoice-lvs-auth.conf");
    await inside("director-1", "! nft list ruleset | grep masquerade");
    assert.notEqual((await ask("192.168.1.201")).trim(), "");
  });
});
