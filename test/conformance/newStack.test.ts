/** What scripts/new-stack finds out of machines, by real SSH servers on loopback addresses. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { repository } from "../../scripts/lib/paths";
import type { HostsAnswers } from "../../scripts/new-stack-cli/answers";
import { checkStackFile } from "../../scripts/new-stack-cli/check";
import { showHostKeys } from "../../scripts/new-stack-cli/hostKeys";
import { JUMP_HOST } from "../../scripts/new-stack-cli/stackFile";
import { answersAt, surveyMachines } from "../../scripts/new-stack-cli/survey";
import { cluster } from "../unit/config-fixture";
import { freePort, makeKey, type Server, startSshd } from "./harness/sshd";

describe("scripts/new-stack looks at machines", () => {
  let folder: string;
  let key: string;
  let server: Server;
  let jump: Server;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "new-stack-"));
    key = makeKey(join(folder, "user"));
    server = await startSshd(folder, "machines", key, ["ListenAddress 127.0.0.2"]);
    jump = await startSshd(folder, "jump", key, []);
  });
  after(async () => {
    await Promise.all([server?.stop(), jump?.stop()]);
    rmSync(folder, { recursive: true, force: true });
  });

  const hosts = (changes: Partial<HostsAnswers> = {}): HostsAnswers => ({
    directors: [{ name: "director-1", address: "127.0.0.1" }],
    realServers: [{ name: "rs-1", address: "127.0.0.2" }],
    storage: { export: "nas.example.org:/out" },
    client: undefined,
    monitor: undefined,
    firewall: false,
    admins: [],
    user: userInfo().username,
    sshPort: server.way.port,
    key,
    jumpHost: undefined,
    ...changes,
  });
  const through = () => ({ user: userInfo().username, address: "127.0.0.1", port: jump.way.port });
  const pinned = ({ way }: Server) => way.hostKey.split(" ").slice(0, 2).join(" ");

  it("is shown their host keys, directly and through a jump host", async () => {
    for (const jumpHost of [undefined, through()]) {
      const { shown, objections } = await showHostKeys(hosts({ jumpHost }), "");
      assert.deepEqual(objections, []);
      assert.deepEqual(
        shown.map(({ name, key: found, known }) => [name, found, known]),
        [
          ...(jumpHost ? [[JUMP_HOST, pinned(jump), false]] : []),
          ["director-1", pinned(server), false],
          ["rs-1", pinned(server), false],
        ],
      );
      assert.match(shown[0]?.fingerprint ?? "", /^SHA256:[A-Za-z0-9+/]{43}$/);
    }
  });

  it("knows a key that the user knows, and refuses one that is another", async () => {
    const line = (address: string, of: string) => `[${address}]:${server.way.port} ${of}\n`;
    const other = readFileSync(`${makeKey(join(folder, "other"))}.pub`, "utf8")
      .split(" ")
      .slice(0, 2)
      .join(" ");
    const { shown, objections } = await showHostKeys(
      hosts(),
      line("127.0.0.1", pinned(server)) + line("127.0.0.2", other),
    );
    assert.deepEqual(
      shown.map(({ name, known }) => [name, known]),
      [["director-1", true]],
    );
    assert.match(
      objections[0]?.what ?? "",
      /127\.0\.0\.2 shows another host key \(SHA256:.*\) than your known_hosts has/,
    );
  });

  it("names the machines that do not answer", async () => {
    const { objections } = await showHostKeys(hosts({ sshPort: await freePort() }), "");
    assert.deepEqual(objections.map(({ machine }) => machine).sort(), ["director-1", "rs-1"]);
    assert.match(objections[0]?.what ?? "", /no SSH server answers at 127\.0\.0\.\d:\d+ \(.*refused/i);
  });

  it("logs in and looks, held to the keys", async () => {
    const keys = { "director-1": pinned(server), "rs-1": pinned(server), [JUMP_HOST]: pinned(jump) };
    const answers = {
      platform: "hosts",
      vip: "127.0.0.3",
      port: 7860,
      engine: "cosyvoice",
      hosts: hosts({ jumpHost: through() }),
    } as const;
    const { interfaces, objections } = await surveyMachines(answers, keys, cluster());
    // 127.0.0.2 is served by lo, and is not one of its addresses.
    assert.deepEqual(interfaces, { "director-1": "lo" });
    const about = (machine: string) =>
      objections.filter((one) => one.machine === machine).map(({ what }) => what);
    assert.ok(about("rs-1").some((what) => what === "has no interface with 127.0.0.2"));
    assert.ok(!about("director-1").some((what) => /GPU/.test(what)), "a director needs none");

    const wrong = await surveyMachines(
      { ...answers, hosts: hosts() },
      { ...keys, "rs-1": pinned(jump) },
      cluster(),
    );
    assert.ok(
      wrong.objections.some(
        ({ machine, what }) => machine === "rs-1" && /host key is not the pinned one/.test(what),
      ),
    );
  });

  it("would not shut out the computer that it runs on", async () => {
    const keys = { "director-1": pinned(server), "rs-1": pinned(server) };
    const judged = async (admins: string[]) => {
      const answers = { vip: "127.0.0.3", engine: "cpu", hosts: hosts({ firewall: true, admins }) } as const;
      const { objections } = await surveyMachines(answers, keys, cluster());
      return objections.filter(({ what }) => what.startsWith("would shut this computer out"));
    };
    assert.deepEqual(await judged(["10.0.0.0/8", "127.0.0.0/8"]), []);
    const [one, other, ...more] = await judged(["10.0.0.0/8"]);
    assert.deepEqual([one?.machine, other?.machine, more.length], ["director-1", "rs-1", 0]);
    assert.match(one?.fix ?? "", /^add a network with 127\.0\.0\.\d to --admins \(now 10\.0\.0\.0\/8\)$/);
  });

  it("says so where the login is refused", async () => {
    const stranger = makeKey(join(folder, "stranger"));
    const keys = { "director-1": pinned(server), "rs-1": pinned(server) };
    const answers = {
      platform: "hosts",
      vip: "127.0.0.3",
      port: 7860,
      engine: "cpu",
      hosts: hosts({ key: stranger }),
    } as const;
    const { objections } = await surveyMachines(answers, keys, cluster());
    assert.equal(objections.filter(({ what }) => /refuses the login of/.test(what)).length, 2);
  });

  it("hears whether somebody is at the VIP", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await new Promise((listening) => listener.once("listening", listening));
    const { port } = listener.address() as { port: number };
    assert.equal(await answersAt("127.0.0.1", port), true);
    await new Promise((closed) => listener.close(closed));
    assert.equal(await answersAt("127.0.0.1", port), true, "to refuse a connection is to be there");
  });

  it("and writes what it found, from the command line to the file", async function () {
    // A network of one's own is root's to make, where sshd is to let somebody in.
    if (process.getuid?.() !== 0) this.skip();
    const inside = fileURLToPath(new URL("harness/newStackInside.ts", import.meta.url));
    const words = ["-n", process.execPath, "--import", "tsx", inside, folder];
    const { stdout } = await execa("unshare", words, { cwd: repository });
    const { hostKey, free, taken } = JSON.parse(stdout) as Inside;
    assert.equal(free.exitCode, 0, free.said);
    assert.match(free.said, /These host keys are seen for the first time:[\s\S]*SHA256:/);
    const checked = checkStackFile(free.text ?? "");
    assert.ok("config" in checked);
    const { directors, realServers, storage } = checked.config;
    assert.deepEqual(
      [...directors, ...realServers].map((machine) => machine.hostKey),
      [hostKey, hostKey, hostKey],
    );
    assert.equal("hostKey" in storage && storage.hostKey, hostKey);
    assert.equal(directors[0]?.interface, "lo");

    assert.equal(taken.exitCode, 1);
    assert.equal(taken.text, null);
    assert.match(taken.said, /has the VIP 192\.168\.1\.200 already/);
    assert.match(taken.said, /Nothing was written/);
  });
});

interface Run {
  readonly exitCode: number;
  readonly said: string;
  readonly text: string | null;
}

/** What harness/newStackInside.ts prints. */
interface Inside {
  readonly hostKey: string;
  readonly free: Run;
  readonly taken: Run;
}
