import assert from "node:assert/strict";
import {
  ask,
  DIRECTORS,
  holder,
  inside,
  lab,
  ownLab,
  REAL_SERVERS,
  script,
  untilWell,
  up,
  VIP,
} from "./bench";

let url = "";

describe("a cluster in a box", () => {
  before(async () => {
    // What an interrupted run may have left; a lab that was named on purpose is used as it is.
    if (ownLab) await script("lab", "destroy");
  });

  it("comes up by one command, which prints the URL", async () => {
    const { exitCode, output } = await script("lab", "up", "--timings");
    assert.equal(exitCode, 0);
    url = (await lab.url()) ?? "";
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/$/);
    assert.ok(output.includes(url), output.slice(-500));
  });

  it("is well, by its own account", async () => {
    await untilWell(60);
    const { stdout } = await script("cluster", "status", "--json");
    const status = JSON.parse(stdout);
    assert.deepEqual(
      status.directors.map(({ name }: { name: string }) => name),
      [...DIRECTORS],
    );
    assert.deepEqual(
      status.realServers.map(({ name, pool }: { name: string; pool: string }) => `${name} ${pool}`),
      REAL_SERVERS.map((name) => `${name} serving`),
    );
    assert.equal(status.holder, await holder());
  });

  it("speaks through the VIP to this computer: sound, and not silence", async () => {
    const answer = await fetch(`${url}v1/audio/speech`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "cosyvoice", input: "A sentence from the cluster." }),
    });
    assert.equal(answer.status, 200);
    const wav = Buffer.from(await answer.arrayBuffer());
    assert.equal(wav.toString("latin1", 0, 4) + wav.toString("latin1", 8, 12), "RIFFWAVE");
    const loudest = Math.max(
      ...Array.from({ length: 5000 }, (_, i) => Math.abs(wav.readInt16LE(2000 + 2 * i))),
    );
    assert.ok(loudest > 500, `the loudest sample is ${loudest}`);
  });

  it("has three real servers in the kernel of the director, by direct routing", async () => {
    const table = await inside(await holder(), "ipvsadm -Ln");
    assert.match(table, new RegExp(`TCP +${VIP}:7860 mh`));
    assert.equal(table.match(/Route/g)?.length, 3, table);
  });

  it("sends replies past the director", async () => {
    const director = await holder();
    const macs = new Map<string, string>();
    for (const name of [...REAL_SERVERS, ...DIRECTORS]) {
      macs.set((await inside(name, "cat /sys/class/net/eth0/address")).trim(), name);
    }
    const [seen, passing] = await Promise.all([
      inside(
        "client",
        `timeout 12 tcpdump -lnei eth0 -c 5 'src host ${VIP} and tcp src port 7860' 2>/dev/null || true`,
      ),
      inside(
        director,
        `timeout 12 tcpdump -lni eth0 'src host ${VIP} and tcp src port 7860' 2>/dev/null || true`,
      ),
      new Promise((resolve) => setTimeout(resolve, 4000)).then(() => ask("192.168.1.200")),
    ]);
    const senders = [...seen.matchAll(/ ([0-9a-f:]{17}) > /g)].map(([, mac]) => macs.get(mac ?? "") ?? mac);
    assert.ok(senders.length > 0, "the client saw replies");
    for (const sender of senders)
      assert.ok(
        REAL_SERVERS.some((name) => name === sender),
        `a reply came from ${sender}`,
      );
    assert.equal(passing.trim(), "", "the director saw none");
  });

  it("spreads clients over all real servers", async () => {
    const nodes = new Set<string>();
    for (let last = 200; last < 230 && nodes.size < 3; last += 1)
      nodes.add((await ask(`192.168.1.${last}`)).trim());
    assert.deepEqual([...nodes].sort(), [...REAL_SERVERS]);
  });

  it("keeps the VIP of real servers silent, and the service unprivileged", async () => {
    for (const name of REAL_SERVERS) {
      assert.match(await inside(name, "ip -o -4 address show dev lo"), new RegExp(` ${VIP}/32 .* lo:vip`));
      const sysctls = await inside(
        name,
        "sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce",
      );
      assert.equal(sysctls, "1\n2");
      assert.equal(await inside(name, "stat -c '%U %a' /root/CosyVoice/run.sh"), "root 755");
      assert.equal(
        await inside(name, "stat -c %U /proc/$(systemctl show -P MainPID cosyvoice)"),
        "cosyvoice",
      );
    }
    assert.match(
      await inside("rs-1", "cat /root/CosyVoice/run.sh"),
      /cd \/root\/CosyVoice[\s\S]*cosyvoice_env[\s\S]*python app\.py --host 0\.0\.0\.0 --port 7860 --enable-queue/,
    );
  });

  it("shows every node what any of them made", async () => {
    const node = (await ask("192.168.1.210")).trim();
    const newest = await inside(node, "ls -t /root/CosyVoice/outputs | grep wav | head -n1");
    assert.match(newest, /\.wav$/);
    for (const name of REAL_SERVERS) await inside(name, `test -s /root/CosyVoice/outputs/${newest}`);
    await inside("storage", `test -s /srv/cosyvoice/outputs/${newest}`);
  });

  it("changes nothing when it is deployed again", async () => {
    const { exitCode, output } = await up();
    assert.equal(exitCode, 0);
    assert.match(output, /Resources:\s+\d+ unchanged/);
  });
});
