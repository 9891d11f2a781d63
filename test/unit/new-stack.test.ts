import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "../../scripts/lib/paths";
import { type Answers, readAnswers } from "../../scripts/new-stack-cli/answers";
import { checkStackFile, type FutureSecrets } from "../../scripts/new-stack-cli/check";
import { commandFor, secretCommands } from "../../scripts/new-stack-cli/commands";
import { gpus, type Texts } from "../../scripts/new-stack-cli/questions";
import { futureSecrets } from "../../scripts/new-stack-cli/secrets";
import { type Found, JUMP_HOST, renderStackFile } from "../../scripts/new-stack-cli/stackFile";
import { judgeSurvey, readSurvey } from "../../scripts/new-stack-cli/survey";
import { makeCertificate } from "../golden/nginx";
import { madeUpHostKey } from "./config-fixture";

const own: Texts = {
  platform: "hosts",
  vip: "192.168.1.100",
  directors: "192.168.1.11,left=192.168.1.12",
  realServers: "192.168.1.101, gpu-2=192.168.1.102",
  storage: "192.168.1.20",
};
const cloud: Texts = {
  platform: "aws",
  vip: "10.255.0.100",
  region: "eu-central-1",
  zone: "eu-central-1a",
  admins: "203.0.113.7/32",
};
const nothing: Found = { hostKeys: {}, interfaces: {} };

function answersOf(texts: Texts): Answers {
  const read = readAnswers(texts);
  assert.ok("answers" in read, JSON.stringify(read));
  return read.answers;
}

function configOf(texts: Texts, found = nothing, secrets: FutureSecrets = {}) {
  const checked = checkStackFile(renderStackFile("made-up", answersOf(texts), found), secrets);
  assert.ok("config" in checked, JSON.stringify(checked));
  return checked.config;
}

function problemsOf(texts: Texts): string[] {
  const read = readAnswers(texts);
  assert.ok("problems" in read);
  return read.problems.map(({ path, message }) => `${path} ${message}`);
}

describe("scripts/new-stack", () => {
  it("makes a stack on own machines that is valid", () => {
    const config = configOf(own);
    assert.deepEqual(
      config.directors.map(({ name, address }) => `${name} ${address}`),
      ["director-1 192.168.1.11", "left 192.168.1.12"],
    );
    assert.deepEqual(
      config.realServers.map(({ name }) => name),
      ["rs-1", "gpu-2"],
    );
    assert.equal(config.ssh.knownHostsFile, "~/.ssh/known_hosts");
    assert.equal(config.service.engine, "cpu");
  });

  it("pins what was found out", () => {
    const names = ["director-1", "left", "rs-1", "gpu-2", "storage", JUMP_HOST];
    const hostKeys = Object.fromEntries(names.map((name) => [name, madeUpHostKey(name)]));
    const interfaces = { "director-1": "eno1", left: "eno2", "rs-1": "eno3" };
    const config = configOf({ ...own, jumpHost: "ops@bastion.example.org:2222" }, { hostKeys, interfaces });
    assert.deepEqual(
      config.directors.map((director) => [director.hostKey, director.interface]),
      [
        [madeUpHostKey("director-1"), "eno1"],
        [madeUpHostKey("left"), "eno2"],
      ],
    );
    assert.equal(config.realServers[1]?.hostKey, madeUpHostKey("gpu-2"));
    assert.equal(config.ssh.knownHostsFile, undefined);
    assert.deepEqual(config.ssh.jumpHost, {
      address: "bastion.example.org",
      port: 2222,
      user: "ops",
      hostKey: madeUpHostKey(JUMP_HOST),
    });
  });

  it("takes an export, a client, another user and the engine", () => {
    const config = configOf({
      ...own,
      storage: "nas.example.org:/volume1/out",
      client: "192.168.1.50",
      user: "ops",
      sshPort: "2222",
      engine: "cosyvoice",
    });
    assert.deepEqual(config.storage.kind, "export");
    assert.equal(config.verification.client?.address, "192.168.1.50");
    assert.deepEqual(config.realServers[0]?.ssh, { user: "ops", port: 2222 });
    assert.equal(config.service.engine, "cosyvoice");
  });

  it("makes a stack on AWS that is valid, with every GPU", () => {
    for (const [gpu, type] of Object.entries(gpus)) {
      const config = configOf({ ...cloud, gpu, count: "4" });
      assert.equal(config.aws?.realServers.instanceType, type);
      assert.equal(config.realServers.length, 4);
    }
  });

  it("has nothing watched, encrypted or filtered unless that is said", () => {
    const { https, monitoring, firewall } = configOf(own);
    assert.deepEqual([https, monitoring, firewall.enabled], [undefined, undefined, false]);
    assert.deepEqual(
      secretCommands("made-up", answersOf(own)).map((command) => /--secret (\S+)/.exec(command)?.[1]),
      ["peerKey"],
    );
  });

  it("takes a monitoring machine, whom it tells, and from where it is looked at", () => {
    const watched = { ...own, monitor: "watcher=192.168.1.30" };
    assert.equal(configOf(watched).monitoring?.address, "192.168.1.30");
    assert.deepEqual(configOf(watched).monitoring?.adminNetworks, []);
    const { monitoring } = configOf(
      {
        ...watched,
        alertMail: "ops@example.org",
        mailServer: "mail.example.org:587",
        admins: "192.168.1.0/24,10.1.0.0/16",
      },
      { ...nothing, hostKeys: { watcher: madeUpHostKey("watcher") } },
    );
    assert.deepEqual(
      [monitoring?.name, monitoring?.hostKey, monitoring?.adminNetworks],
      ["watcher", madeUpHostKey("watcher"), ["192.168.1.0/24", "10.1.0.0/16"]],
    );
    assert.deepEqual(
      monitoring?.receivers.map(({ kind, to, server }) => [kind, to, server]),
      [["email", "ops@example.org", "mail.example.org:587"]],
    );
    assert.match(secretCommands("made-up", answersOf(watched)).join("\n"), /--secret monitoringPassword/);
    assert.ok(configOf(cloud).monitoring, "on AWS the machine is made, unless that is refused");
    assert.equal(configOf({ ...cloud, monitoring: "off" }).monitoring, undefined);
  });

  it("takes a packet filter, and who is let through", () => {
    const { firewall } = configOf({ ...own, firewall: "on", admins: "192.168.1.0/24" });
    assert.deepEqual([firewall.enabled, firewall.admins], [true, ["192.168.1.0/24"]]);
  });

  it("takes HTTPS with a certificate from anywhere, and writes no secret", async () => {
    const made = configOf({ ...own, https: "self-signed" }).https;
    assert.deepEqual(
      [made?.certificate, made?.serverName, made?.plainPort],
      ["selfSigned", "192.168.1.100", "closed"],
    );

    const acme = {
      ...own,
      https: "acme",
      serverName: "speech.example.org",
      acmeEmail: "ops@example.org",
      acmeDns: "made-up",
    };
    const { secrets } = await futureSecrets(answersOf(acme));
    assert.equal(configOf(acme, nothing, secrets).https?.certificate, "config");
    assert.ok(
      secretCommands("made-up", answersOf(acme)).some((command) =>
        command.startsWith(
          "scripts/certificate --stack made-up --email ops@example.org --dns made-up --no-deploy",
        ),
      ),
    );

    const folder = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-new-stack-"));
    try {
      const { certificate, key } = makeCertificate(folder, "speech.example.org", 90);
      const files = {
        ...own,
        https: "files",
        serverName: "speech.example.org",
        certificate,
        certificateKey: key,
      };
      const future = await futureSecrets(answersOf(files));
      assert.equal(configOf(files, nothing, future.secrets).https?.serverName, "speech.example.org");
      assert.doesNotMatch(renderStackFile("made-up", answersOf(files), nothing), /BEGIN/);
      const commands = secretCommands("made-up", answersOf(files)).join("\n");
      assert.ok(commands.includes(`--secret tlsKey --stack made-up < ${key}`), commands);

      // What would be refused by the first preview is refused here.
      const other = renderStackFile(
        "made-up",
        answersOf({ ...files, serverName: "other.example.org" }),
        nothing,
      );
      const checked = checkStackFile(other, future.secrets);
      assert.ok("problems" in checked);
      assert.deepEqual(
        checked.problems.map(({ path, message }) => [
          path,
          message.includes("is for DNS:speech.example.org"),
        ]),
        [["tlsCertificate", true]],
      );
      const { problems } = await futureSecrets(
        answersOf({ ...files, certificate: join(folder, "none"), certificateKey: folder }),
      );
      assert.deepEqual(
        problems.map(({ path, message }) => `${path} ${message}`),
        ["--certificate cannot be read (ENOENT)", "--certificate-key cannot be read (EISDIR)"],
      );
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("says how to give the same answers again, as a shell takes them", () =>
    assert.equal(
      commandFor("made-up", {
        vip: "192.168.1.100",
        client: "",
        directors: "a b=192.168.1.11",
        storage: "it's",
      }),
      "scripts/new-stack made-up --vip 192.168.1.100 --directors 'a b=192.168.1.11' --storage 'it'\\''s'",
    ));

  it("says all at once what is missing or cannot be read", () => {
    assert.deepEqual(
      problemsOf({
        platform: "hosts",
        directors: "a=b=c",
        port: "x",
        jumpHost: "a@b@c",
        engine: "gpu",
        region: "eu",
        https: "files",
        acmeDns: "made-up",
        mailServer: "mail.example.org:587",
        firewall: "on",
      }),
      [
        "--region is only for --platform aws",
        "--acme-dns is only for --https acme",
        "--mail-server is only for --alert-mail",
        "--vip is missing",
        "--port is not a number",
        "--engine is not one of cpu, cosyvoice",
        "--server-name is missing",
        "--certificate is missing",
        "--certificate-key is missing",
        "--storage is missing",
        "--directors has more than one '=' in a machine",
        "--real-servers is missing",
        "--admins is missing",
        "--jump-host cannot be read",
      ],
    );
  });

  it("hears from the configuration what makes no sense", () => {
    const read = readAnswers({ ...own, vip: "192.168.1.11", directors: "192.168.1.11" });
    assert.ok("answers" in read);
    const checked = checkStackFile(renderStackFile("made-up", read.answers, nothing));
    assert.ok("problems" in checked);
    assert.deepEqual(checked.problems.map(({ path }) => path).sort(), ["directors", "directors[0].address"]);
  });

  describe("on the command line", () => {
    let folder: string;
    before(() => {
      folder = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-new-stack-"));
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    const run = (...args: string[]) =>
      new Promise<{ code: number; said: string }>((resolve) => {
        const program = ["--import", "tsx", "scripts/new-stack-cli/main.ts", ...args];
        execFile(process.execPath, program, { cwd: repository }, (error, stdout, stderr) =>
          resolve({ code: error ? Number(error.code) : 0, said: stdout + stderr }),
        );
      });
    const words = ["--vip", "192.168.1.100", "--directors", "192.168.1.11,192.168.1.12"];
    const machines = ["--real-servers", "192.168.1.101", "--storage", "192.168.1.20"];

    it("writes a file with comments, and never over another one", async () => {
      const output = join(folder, "Pulumi.made-up.yaml");
      const line = ["made-up", "--yes", "--no-checks", "--output", output, ...words, ...machines];
      const { code, said } = await run(...line);
      assert.equal(code, 0, said);
      assert.match(said, /pulumi stack init made-up/);
      const text = readFileSync(output, "utf8");
      assert.match(text, /^ {2}# The two directors\./m);
      assert.ok("config" in checkStackFile(text));

      writeFileSync(output, "mine\n");
      const again = await run(...line);
      assert.equal(again.code, 1);
      assert.match(again.said, /exists already; nothing was written/);
      assert.equal(readFileSync(output, "utf8"), "mine\n");
    });

    it("says what is missing, and what is unknown", async () => {
      const missing = await run("made-up", "--yes", "--no-checks", ...words);
      assert.equal(missing.code, 1);
      assert.match(
        missing.said,
        /--real-servers is missing[\s\S]*--storage is missing|--storage is missing[\s\S]*--real-servers is missing/,
      );
      assert.equal((await run("made-up", "--no-such-flag")).code, 2);
      assert.match((await run("made-up", ...words)).said, /There is no terminal to ask at/);
    });

    it("says how it is called, and refuses a place before anything is asked", async () => {
      assert.match((await run()).said, /missing required argument 'stack'\n.*scripts\/new-stack --help/);
      const nowhere = await run("made-up", "--output", join(folder, "no", "Pulumi.made-up.yaml"));
      assert.equal(nowhere.code, 1);
      assert.match(nowhere.said, /^.*\/no\/Pulumi\.made-up\.yaml cannot be written \(ENOENT\): .*\n$/);
    });
  });
});

describe("what a machine says of itself", () => {
  const machine = { name: "rs-1", address: "192.168.1.101", user: "ops" };
  const fine = "root yes\nsystem debian 12\ninterface eno1\ngpu NVIDIA L4, 23034, 550.54.15\n";
  const objections = (output: string, gpuNeeded?: number) =>
    judgeSurvey(machine, readSurvey(output), { vip: "192.168.1.100", gpuNeeded }).map(
      ({ machine: whose, what }) => `${whose}: ${what}`,
    );

  it("is fine", () => assert.deepEqual(objections(fine, 8), []));
  it("is not, in every way there is", () => {
    assert.deepEqual(objections("system fedora 41\nvip-at 52:54:00:00:00:01\n", 8), [
      "rs-1: ops is not root there",
      "rs-1: runs fedora 41",
      "rs-1: has no interface with 192.168.1.101",
      "rs-1: has no NVIDIA GPU, or no driver for it",
      "null: 52:54:00:00:00:01 answers for the VIP 192.168.1.100 on rs-1's segment",
    ]);
  });
  it("has too small a GPU", () =>
    assert.match(
      objections(fine.replace("23034", "6144"), 8).join(),
      /6\.0 GiB of memory, and the engine needs 8/,
    ));
  it("needs no GPU for espeak-ng", () => assert.deepEqual(objections(fine.replace(/gpu.*\n/, "")), []));
  it("holds the VIP itself", () =>
    assert.match(objections(`${fine}vip-here yes\n`).join(), /has the VIP 192\.168\.1\.100 already/));
});
