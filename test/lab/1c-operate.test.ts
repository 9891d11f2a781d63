// What an operator has at hand at 3 a.m., on the lab that is up.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { machineNamed } from "../../lab/machines";
import { ask, DIRECTORS, holder, holders, inside, script, until, untilWell } from "./bench";

describe("scripts/cluster", () => {
  it("doctor finds nothing on a cluster that is as it was deployed", async () => {
    const { exitCode, output } = await script("cluster", "doctor");
    assert.match(output, /Nothing found: 8 machines are as the last deployment left them/);
    assert.equal(exitCode, 0);
  });

  it("doctor names what was changed by hand, with the line, and puts it back", async () => {
    await inside("director-2", "sed -i 's/advert_int 0.1/advert_int 0.7/' /etc/keepalived/keepalived.conf");
    await inside("rs-2", "sysctl -qw net.ipv4.conf.all.arp_ignore=0 && chmod 666 /root/CosyVoice/run.sh");
    await inside("storage", "systemctl stop nfs-kernel-server && systemctl disable -q nfs-kernel-server");
    const { exitCode, stdout } = await script("cluster", "doctor", "--json");
    // Whatever was found: those who come after need a cluster that is well.
    const repaired = await script("cluster", "doctor", "--repair");
    assert.equal(exitCode, 1);
    const found = JSON.parse(stdout).findings.map(
      ({ machine, what }: { machine: string; what: string }) => `${machine}: ${what}`,
    );
    for (const expected of [
      /^director-2: file \/etc\/keepalived\/keepalived.conf, line \d+ should be "advert_int 0.1" and is "advert_int 0.7"$/,
      /^rs-2: sysctl net.ipv4.conf.all.arp_ignore should be "1" and is "0"$/,
      /^rs-2: file \/root\/CosyVoice\/run.sh should be "mode 0755" and is "mode 0666"$/,
      /^storage: nfs-kernel-server.service should be "running" and is "inactive"$/,
    ])
      assert.ok(
        found.some((line: string) => expected.test(line)),
        `${expected} in\n${found.join("\n")}`,
      );
    assert.match(repaired.output, /layer director: 1 file changed/);
    await untilWell(120);
    const again = await script("cluster", "doctor");
    assert.equal(again.exitCode, 0, again.output);
    assert.match(await inside("director-2", "cat /etc/keepalived/keepalived.conf"), /advert_int 0\.1\n/);
  });

  it("where says what the kernel does", async () => {
    const addresses = Array.from({ length: 5 }, (_, i) => `192.168.1.${200 + 9 * i}`);
    for (const address of addresses) {
      const node = (await ask(address)).trim();
      const { output } = await script("cluster", "where", address);
      assert.match(output, new RegExp(`${address} goes to ${node} \\(${machineNamed(node).address}\\)`));
    }
  });

  it("speak has a sentence said, and logs shows that request on the machines that had to do with it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "cosyvoice-speak-"));
    try {
      const file = join(directory, "said.wav");
      const said = await script("cluster", "speak", "Is anybody there?", "-o", file, "--fresh");
      assert.equal(said.exitCode, 0);
      const [, seconds, node, request] =
        /: (\d+\.\d) s of audio, made by (\S+) in .* --request (\S+)/.exec(said.output) ?? [];
      assert.ok(Number(seconds) > 0.5, said.output);
      const wav = await readFile(file);
      assert.equal(wav.toString("latin1", 0, 4), "RIFF");
      await until("the job is in the log", 20, async () => {
        const logs = await script("cluster", "logs", "--request", request as string);
        return new RegExp(`${node} .*jobs.*"outcome":"ok"`).test(logs.output);
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  it("trace shows one request hop by hop: the MAC changes, the packet does not, the reply goes past the director", async () => {
    const { output: told } = await script("cluster", "where", "192.168.1.201");
    const node = /goes to (\S+)/.exec(told)?.[1] as string;
    const before = await holder();
    const { exitCode, output } = await script("cluster", "trace", "--from", "192.168.1.201");
    const after = await holder();
    assert.equal(exitCode, 0, output);
    // On a computer that stands still for half a second the VIP may move at any moment; the way is right all the same.
    const director = /client → (director-\d) /.exec(output)?.[1] ?? "nobody";
    assert.ok([before, after].includes(director), `${before} held the VIP, then ${after}\n${output}`);
    assert.match(output, new RegExp(`port \\d+: 200 by ${node}`));
    assert.match(output, new RegExp(`${director} → ${node} [^]*:7860  unchanged, another MAC`));
    assert.match(output, new RegExp(`${node} → client [^]*from the VIP`));
    assert.match(output, new RegExp(`${director} passed it on to ${node} by direct routing`));
    // A machine without tcpdump is named, with what to do, and the others are drawn.
    await inside(node, "mv /usr/bin/tcpdump /usr/bin/tcpdump.away");
    try {
      const without = await script("cluster", "trace", "--from", "192.168.1.201");
      assert.equal(without.exitCode, 1);
      assert.match(
        without.output,
        new RegExp(`${node} has no tcpdump. To install it: .* apt-get install tcpdump`),
      );
      assert.match(without.output, /client → director-\d /);
    } finally {
      await inside(node, "mv /usr/bin/tcpdump.away /usr/bin/tcpdump");
    }
  });

  it("bench counts what it asked for, and who answered", async () => {
    const wanted = ["--sentences", "6", "--at-once", "2", "--characters", "60", "--rate", "2", "--json"];
    const { exitCode, output, stdout } = await script("cluster", "bench", ...wanted);
    assert.equal(exitCode, 0, output);
    const { from, addresses, kinds } = JSON.parse(stdout);
    assert.deepEqual({ from, addresses }, { from: "client", addresses: 51 });
    const [sentences, light] = kinds;
    assert.deepEqual([sentences.kind, sentences.requests, sentences.errors], ["sentence", 6, 0]);
    assert.ok(sentences.p50 > 0 && sentences.p50 <= sentences.p99);
    assert.ok(light.requests > 2, "light requests went beside them");
    for (const name of Object.keys(sentences.nodes)) assert.match(name, /^rs-\d$/);
  });

  it("status tells versions, queues and the share, to programs too", async () => {
    const { stdout } = await script("cluster", "status", "--json");
    const { directors, realServers, certificate, alerts } = JSON.parse(stdout);
    assert.equal(directors.length, 2);
    for (const { release, engine, queue, outputs } of realServers) {
      assert.match(release, /^[0-9a-f]{16}$/);
      assert.deepEqual(engine, { name: "cpu", commit: null });
      assert.equal(typeof queue.waiting, "number");
      assert.equal(outputs, "192.168.1.20:/");
    }
    assert.equal(certificate, null, "HTTPS is off");
    assert.ok(Array.isArray(alerts), "Alertmanager was asked");
  });

  it("failover moves the VIP and nothing else happens to those who ask", async () => {
    const before = await holder();
    const asking = Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        await new Promise((resolve) => setTimeout(resolve, 700 * i));
        return (await ask(`192.168.1.${230 + i}`)).trim();
      }),
    );
    const { exitCode, output } = await script("cluster", "failover");
    assert.equal(exitCode, 0);
    const after = DIRECTORS.find((name) => name !== before) as string;
    assert.match(output, new RegExp(`${after} holds the VIP, ${before} stands by`));
    assert.deepEqual(await holders(), [after]);
    assert.ok(
      (await asking).every((node) => /^rs-\d$/.test(node)),
      `${await asking}`,
    );
    await untilWell(60);
  });

  it("ssh runs a command on a machine, with its exit code", async () => {
    assert.match((await script("cluster", "ssh", "rs-3", "--", "hostname")).output, /^rs-3$/m);
    assert.equal((await script("cluster", "ssh", "rs-3", "--", "exit", "7")).exitCode, 7);
    const { exitCode, output } = await script("cluster", "ssh", "rs-9");
    assert.equal(exitCode, 2);
    assert.match(output, /There is no machine "rs-9". There are: .*rs-1/);
  });
});
