// What an operator changes with scripts/cluster, and takes back, on the lab that is up: scripts/test cli --state existing
import assert from "node:assert/strict";
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { LabStack } from "../../lab/stack";
import { repository } from "../../scripts/lib/paths";
import { inside, lab, REAL_SERVERS, script, untilWell } from "../lab/bench";

const { configFile } = new LabStack(lab);

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), "cosyvoice-cli-"));
});
after(() => rm(directory, { recursive: true, force: true }));

/** The release that a real server runs. */
const running = (name: string) => inside(name, "basename $(readlink /opt/cosyvoice/current)");

describe("scripts/cluster upgrade", () => {
  it("asks where there is a terminal and refuses where there is none, and leaves the stack file alone", async () => {
    const before = await readFile(configFile, "utf8");
    const { exitCode, output } = await script("cluster", "upgrade");
    // Where nothing is to be done, nothing is asked either.
    assert.ok(exitCode === 0 ? /Nothing is to be done/.test(output) : /say --yes/.test(output), output);
    const wrong = await script("cluster", "upgrade", "--ref", "main", "--yes");
    assert.equal(wrong.exitCode, 2);
    assert.match(wrong.output, /--ref main is a version of the engine cosyvoice, and service\.engine is cpu/);
    assert.equal(await readFile(configFile, "utf8"), before);
  });

  it("brings every real server to another version and back, a pin or not, and says so", async () => {
    const before = await running("rs-1");
    const app = join(directory, "app");
    await cp(join(repository, "app"), app, { recursive: true });
    await appendFile(join(app, "app.py"), "# another version\n");
    process.env.COSYVOICE_LVS_APP = app;
    try {
      const { exitCode, output } = await script("cluster", "upgrade", "--yes");
      assert.equal(exitCode, 0, output);
      assert.match(output, new RegExp(`rs-1 +${before.trim()} +\\w{16} +staged, then in its turn`));
      assert.match(output, /At most 1 of 3 are out of the pool at a time/);
      assert.match(output, /^rs-2 +drain +stage release \w{16}; cosyvoice\.service restarts/m);
      assert.equal(output.match(/as wanted$/gm)?.length, 3, output);
    } finally {
      delete process.env.COSYVOICE_LVS_APP;
    }
    const other = await running("rs-1");
    assert.notEqual(other, before);
    for (const name of REAL_SERVERS) assert.equal(await running(name), other);
    await untilWell(60);

    // To the one before by its pin; upgrade lets that go.
    const back = await script("cluster", "rollback", "--yes");
    assert.equal(back.exitCode, 0, back.output);
    assert.match(back.output, /^rs-2 +drain +.*cosyvoice\.service restarts/m);
    assert.equal(await running("rs-3"), before);
    const forward = await script("cluster", "upgrade", "--yes");
    assert.equal(forward.exitCode, 0, forward.output);
    assert.match(forward.output, /The pinned release \w{16} is unpinned/);
    assert.doesNotMatch(await readFile(configFile, "utf8"), /release:/);
    assert.equal(await running("rs-3"), before);
    await untilWell(60);
  });
});

describe("scripts/cluster scale", () => {
  it("refuses what does not fit before anything is touched", async () => {
    const before = await readFile(configFile, "utf8");
    const more = await script("cluster", "scale", "4", "--yes");
    assert.equal(more.exitCode, 2);
    assert.match(more.output, /name the one that comes, each with --add NAME=ADDRESS/);
    const twice = await script("cluster", "scale", "4", "--add", "rs-4=192.168.1.101", "--yes");
    assert.equal(twice.exitCode, 2);
    assert.match(twice.output, /realServers\[3\]\.address/);
    assert.equal(await readFile(configFile, "utf8"), before);
  });

  it("takes the last one away, and brings it back", async () => {
    const hostKey = await lab.keys.hostKey("rs-3");
    const less = await script("cluster", "scale", "2", "--yes");
    assert.equal(less.exitCode, 0, less.output);
    assert.match(less.output, /go: +rs-3 \(drained first/);
    assert.match(less.output, /new connections of \d+ % go to another real server/);
    assert.match(less.output, /^rs-3 +drain, leaves +leaves the cluster/m);
    assert.match(less.output, /2 of 2 real servers serve\./);
    await untilWell(60);
    const more = await script("cluster", "scale", "3", "--add", `rs-3=192.168.1.103 ${hostKey}`, "--yes");
    assert.equal(more.exitCode, 0, more.output);
    assert.match(more.output, /3 of 3 real servers serve\./);
    await untilWell(60);
  });
});

describe("scripts/cluster backup and restore", () => {
  const voices = "/root/CosyVoice/outputs/voices";
  const asOwner = (command: string) =>
    inside(
      "storage",
      `mkdir -p /srv/cosyvoice/outputs/voices && cd /srv/cosyvoice/outputs/voices && ${command} && chown -R $(stat -c %u:%g ..) .`,
    );

  it("packs state, stack file and voices, and puts back what is lost", async () => {
    await asOwner("echo one >cli-one.wav && echo two >cli-two.wav");
    const archive = join(directory, "backup.tar.gz");
    const made = await script("cluster", "backup", "-o", archive, "--json");
    assert.equal(made.exitCode, 0, made.output);
    const { stdout: listed } = await execa("tar", ["-tzf", archive]);
    for (const name of ["./state.json", "./stack.yaml", "./manifest.json", "./share/voices/cli-one.wav"])
      assert.ok(listed.split("\n").includes(name), listed);
    const { stdout: state } = await execa("tar", ["-xzOf", archive, "./state.json"]);
    assert.match(state, /"ciphertext":/);
    assert.doesNotMatch(state, /"plaintext":/);

    const same = await script("cluster", "restore", archive, "--check");
    assert.equal(same.exitCode, 0, same.output);
    assert.match(same.output, /All of it is as it was/);

    await asOwner("rm cli-one.wav && echo other >cli-two.wav && echo new >cli-new.wav");
    const config = await readFile(configFile, "utf8");
    const changed = config.replace("advertInterval: 0.1", "advertInterval: 0.2");
    assert.notEqual(changed, config);
    await writeFile(configFile, changed);
    const differs = await script("cluster", "restore", archive, "--check");
    assert.equal(differs.exitCode, 1, differs.output);
    assert.match(differs.output, /1 come back, 1 overwritten/);
    const unasked = await script("cluster", "restore", archive);
    assert.equal(unasked.exitCode, 2);
    assert.match(unasked.output, /say --yes/);
    const put = await script("cluster", "restore", archive, "--yes");
    assert.equal(put.exitCode, 0, put.output);
    assert.match(put.output, /Put back: config, share\./);
    assert.equal(
      await inside("rs-2", `cat ${voices}/cli-one.wav ${voices}/cli-two.wav ${voices}/cli-new.wav`),
      "one\ntwo\nnew",
    );
    assert.equal(await readFile(configFile, "utf8"), config);

    // A state of another day: one resource less, as after an `up` that was lost.
    const shorter = JSON.parse(
      (await script("lab", "pulumi", "stack", "export")).output.replace(/^[^{]*/, ""),
    );
    shorter.deployment.resources.pop();
    await writeFile(join(directory, "shorter.json"), JSON.stringify(shorter));
    await script("lab", "pulumi", "stack", "import", "--file", join(directory, "shorter.json"));
    const back = await script("cluster", "restore", archive, "--only", "state", "--yes");
    assert.equal(back.exitCode, 0, back.output);
    assert.match(back.output, /overwritten by \d+ resources/);
    const again = await script("cluster", "restore", archive, "--check");
    assert.equal(again.exitCode, 0, again.output);
    await asOwner("rm cli-one.wav cli-two.wav cli-new.wav");
  });

  it("refuses an archive that is not what was packed", async () => {
    const archive = join(directory, "none.tar.gz");
    assert.equal((await script("cluster", "backup", "-o", archive, "--share", "none")).exitCode, 0);
    const content = join(directory, "content");
    await execa("mkdir", [content]);
    await execa("tar", ["-xzf", archive, "-C", content]);
    await appendFile(join(content, "stack.yaml"), "# a stranger's\n");
    await execa("tar", ["-czf", archive, "-C", content, "."]);
    const { exitCode, output } = await script("cluster", "restore", archive, "--yes");
    assert.equal(exitCode, 2);
    assert.match(
      output,
      /differs from what was packed\. Nothing was restored\.\n {2}stack\.yaml does not match its SHA-256/,
    );
  });
});
