// Secrets are where they are read, for whoever reads them, and nowhere else: not in the state, in what was said, in process lists, in logs.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { DIRECTORS, inside, lab, REAL_SERVERS } from "../../lab/bench";
import { carefulLab, leaveLab, planted, said, stack } from "./world";

/** A line of each secret that occurs nowhere else by chance. */
async function secrets(): Promise<Record<string, string>> {
  return {
    tlsKey: (await stack.tls.key()).split("\n")[1] ?? "",
    peerKey: (await inside("rs-1", "head -n1 /etc/cosyvoice/peers.key")).trim(),
    apiKey: planted.apiKey,
    watchPassword: planted.watchPassword,
    passwordHash: planted.passwordHash.split("$").at(-1) ?? "",
  };
}

/** The secrets that a text has. */
const foundIn = (text: string, wanted: Record<string, string>) =>
  Object.entries(wanted)
    .filter(([, secret]) => text.includes(secret))
    .map(([name]) => name);

describe("secrets", () => {
  before(carefulLab);
  after(leaveLab);

  it("can be told from everything else", async () => {
    for (const [name, secret] of Object.entries(await secrets())) assert.ok(secret.length > 20, name);
    assert.deepEqual(foundIn(`x${planted.apiKey}x`, await secrets()), ["apiKey"]);
  });

  it("are in no file of the stack's state and configuration, which has them encrypted", async () => {
    const wanted = await secrets();
    const folder = join(lab.directory, "pulumi");
    const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((one) =>
      one.isFile(),
    );
    assert.ok(files.length > 5);
    for (const file of files) {
      const text = await readFile(join(file.parentPath, file.name), "latin1");
      assert.deepEqual(foundIn(text, wanted), [], file.name);
    }
  });

  it("were said by no preview and no deployment, and in no process list meanwhile", async () => {
    const wanted = await secrets();
    for (const text of said) assert.deepEqual(foundIn(text, wanted), []);
    assert.ok(said.some((text) => text.includes("cosyvoice-front-door-rs-1-secrets")));
    assert.ok(said.some((text) => text.includes("sshd:")));
  });

  it("are on the machines in the files of those who read them, and in no log and no process list", async () => {
    const wanted = await secrets();
    const patterns = `${Object.values(wanted).join("\n")}\n`;
    const places = [
      "/etc /root /home /opt /srv /tmp /usr/local /var",
      "-xdev \\( -name site-packages -o -path /var/log/journal -o -path /var/cache \\) -prune -o -type f -size -256k",
    ].join(" ");
    const look = [
      "cat >/run/patterns",
      `find ${places} -print0 | xargs -0 -r grep -lFf /run/patterns; find /run /dev/shm -xdev -type f ! -path /run/patterns ! -path '/run/log/*' -print0 | xargs -0 -r grep -slFf /run/patterns`,
      "journalctl --no-pager -o export | grep -aqFf /run/patterns && echo the journal",
      "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -aqFf /run/patterns && echo a process",
      "rm /run/patterns",
    ].join("; ");
    const where: Record<string, string[]> = {};
    for (const machine of [...DIRECTORS, ...REAL_SERVERS, "storage", "client", "monitor"]) {
      const { stdout } = await lab.exec(machine, ["sh", "-c", look], { input: patterns });
      const files = String(stdout).split("\n").filter(Boolean);
      where[machine] = [];
      for (const file of files.sort())
        where[machine].push(
          file.startsWith("/") ? (await inside(machine, `stat -c '%n %a %U:%G' ${file}`)).trim() : file,
        );
    }
    const door = "/etc/cosyvoice-lvs/front-door";
    const ofRealServers = [
      `${door}/api-keys.conf 640 root:www-data`,
      `${door}/key.pem 640 root:www-data`,
      `${door}/users 640 root:www-data`,
      "/etc/cosyvoice/peers.key 640 root:cosyvoice",
    ];
    assert.deepEqual(where, {
      "director-1": [],
      "director-2": [],
      "rs-1": ofRealServers,
      "rs-2": ofRealServers,
      "rs-3": ofRealServers,
      storage: [],
      client: [],
      monitor: [
        `${door}/asking-key 640 root:prometheus`,
        "/etc/cosyvoice-lvs/watch/curl 600 root:root",
        "/etc/cosyvoice-lvs/watch/password 640 root:prometheus",
      ],
    });
  });
});
