import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { parse } from "yaml";
import type { OpenSsh } from "../../components/remote/openssh";
import { parseConfig, rawFromStack } from "../../config/load";
import { renderKeepalivedConfig } from "../../render";
import type { Inventory } from "../../scripts/cluster-cli/inventory";
import type { ProgressLine } from "../../scripts/cluster-cli/progress";
import { diffAgainst } from "../../scripts/dev-cli/diff";
import { applyToLab } from "../../scripts/dev-cli/lab";
import type { Rendered } from "../../scripts/dev-cli/render";
import { settingsOf } from "../../scripts/dev-cli/settings";
import { fileText, renderedText, writeTree } from "../../scripts/dev-cli/texts";
import { repository } from "../../scripts/lib/paths";

const SEALED = { secure: "v1:made-up" };

/** The configuration of the commented example, with further keys. */
async function settings(more: Record<string, unknown>) {
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-dev-"));
  try {
    const { config } = parse(await readFile(join(repository, "Pulumi.onprem.yaml"), "utf8"));
    const file = join(directory, "Pulumi.made-up.yaml");
    await writeFile(file, JSON.stringify({ config: { ...config, ...more } }));
    return await settingsOf(file);
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe("scripts/dev", () => {
  it("takes a stack file for what it says, with made-up secrets that the validator takes", async () => {
    const { values, secrets } = await settings({
      "cosyvoice-lvs:peerKey": SEALED,
      "cosyvoice-lvs:tlsCertificate": SEALED,
      "cosyvoice-lvs:tlsKey": SEALED,
      "cosyvoice-lvs:https": { enabled: true, serverName: "speech.example.org" },
    });
    assert.deepEqual(
      secrets.map((key) => key.split(":")[1]),
      ["peerKey", "tlsCertificate", "tlsKey"],
    );
    const result = parseConfig(rawFromStack(values));
    assert.ok(result.ok, JSON.stringify(!result.ok && result.problems));
    assert.equal(result.config.https?.serverName, "speech.example.org");
    assert.equal(result.config.ssh.knownHostsFile, undefined, "no file of this computer is read");
  });

  it("does not hide a mistake in the file", async () => {
    const { values } = await settings({ "cosyvoice-lvs:vip": "made up" });
    const result = parseConfig(rawFromStack(values));
    assert.ok(!result.ok && result.problems.some(({ path }) => path === "vip"));
  });

  it("says which file is missing", async () => {
    await assert.rejects(settingsOf("/nowhere/Pulumi.x.yaml"), /There is no \/nowhere\/Pulumi.x.yaml/);
  });

  it("renders what the renderers make of that file", async () => {
    const file = "/etc/keepalived/keepalived.conf";
    const args = ["render", "director-2", "--stack", "onprem", "--file", file];
    const { stdout } = await execa(join(repository, "scripts/dev"), args, { stripFinalNewline: false });
    const result = parseConfig(rawFromStack((await settings({})).values));
    assert.ok(result.ok);
    assert.equal(stdout, renderKeepalivedConfig(result.config, "director-2"));
  }).timeout(60_000);

  it("refuses what it cannot render, and a machine that is not there", async () => {
    const dev = (...args: string[]) => execa(join(repository, "scripts/dev"), args, { reject: false });
    const prod = await dev("render", "--stack", "prod");
    assert.equal(prod.exitCode, 2);
    assert.match(prod.stderr, /is for aws, where addresses are known once machines are made/);
    const nobody = await dev("render", "rs-9");
    assert.equal(nobody.exitCode, 2);
    assert.match(nobody.stderr, /There is no machine "rs-9" .* There are: .*rs-1/);
  }).timeout(60_000);
});

/** A machine of the lab: the real applier, below a directory. */
class PretendMachine {
  readonly received: string[] = [];

  constructor(private readonly root: string) {}

  async run(_name: string, command: string, { input = "" }: { readonly input?: string } = {}) {
    this.received.push(command.replace(/^\S*\/apply/, "apply"));
    const verb = /\/apply (\w+)$/.exec(command)?.[1];
    if (verb === undefined) return { exitCode: 0, stdout: "", stderr: "" };
    return execa("python3", ["-IS", join(repository, "host/apply.py"), verb], {
      input,
      env: { COSYVOICE_LVS_ROOT: this.root },
      reject: false,
    });
  }
}

describe("scripts/dev apply", () => {
  const at = { port: 22, user: "root", hostKey: "ssh-ed25519 AAAA", listens: [] };
  const inventory: Inventory = {
    ...{ platform: "hosts", vip: "10.0.0.100", port: 7860, ssh: { connectTimeout: 10 } },
    machines: [{ name: "rs-1", role: "realServer", address: "10.0.0.1", ...at }],
  };
  const withFile = (name: string, more: Record<string, unknown> = {}): Rendered["layers"][number] => {
    const files = {
      [`/etc/${name}.conf`]: { mode: "0644", owner: "root:root", content: `${name}\n`, ...more },
    };
    const manifest = {
      layer: name,
      owner: "lab/rs-1",
      ...(name === "hidden" ? { secret: true } : {}),
      files,
    };
    return { resource: `c-rs-1-${name}`, manifest, text: JSON.stringify(manifest) };
  };
  const apply = async (layers: Rendered["layers"], machine: PretendMachine) => {
    const source = join(repository, "app/app.py");
    const rendered = { machine: "rs-1", address: "10.0.0.1", programs: "", layers };
    const copies = [{ source, target: ".copied" }];
    const quiet = { show: () => undefined } as unknown as ProgressLine;
    return applyToLab({ ...rendered, copies }, inventory, machine as unknown as OpenSsh, quiet);
  };
  let root = "";
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "cosyvoice-dev-"));
  });
  afterEach(() => rm(root, { recursive: true }));

  it("sends what differs and nothing else, after what it stands on; not what is made up in the place of secrets", async () => {
    const machine = new PretendMachine(root);
    const layers = [withFile("first"), withFile("hidden"), withFile("second")];
    const said = await apply(layers, machine);
    assert.match(said.join("\n"), /rs-1: layer first: .*\nrs-1: layer second: /);
    assert.deepEqual(machine.received, [
      ...["sh -s install", "apply compare", "apply compare"],
      ...["base64 -d >.copied", "apply apply", "apply apply"],
    ]);
    assert.equal(await readFile(join(root, "etc/second.conf"), "utf8"), "second\n");
    await assert.rejects(readFile(join(root, "etc/hidden.conf")), /ENOENT/);

    assert.deepEqual(await apply(layers, machine), ["rs-1 is as rendered."]);
  }).timeout(60_000);

  it("stops at the layer that fails, with the applier's words", async () => {
    const machine = new PretendMachine(root);
    const layers = [withFile("first", { check: "test -d {}" }), withFile("second")];
    await assert.rejects(apply(layers, machine), /layer first: step .* failed/);
    await assert.rejects(readFile(join(root, "etc/second.conf")), /ENOENT/);
  }).timeout(60_000);

  it("touches nothing when the applier there cannot read a manifest", async () => {
    const machine = new PretendMachine(root);
    const layers = [withFile("first"), withFile("second", { madeUp: true })];
    await assert.rejects(apply(layers, machine), /c-rs-1-second cannot be compared: .*madeUp/);
    await assert.rejects(readFile(join(root, "etc/first.conf")), /ENOENT/);
  }).timeout(60_000);
});

describe("what scripts/dev shows", () => {
  const layer = (name: string, secret: boolean): Rendered["layers"][number] => {
    const manifest = {
      layer: name,
      owner: "made-up/rs-1",
      ...(secret ? { secret } : {}),
      sysctls: { "net.made.up": "1" },
      files: { [`/etc/${name}.conf`]: { mode: "0640", owner: "root:root", content: `content of ${name}\n` } },
    };
    return { resource: `c-rs-1-${name}`, manifest, text: JSON.stringify(manifest) };
  };
  const machine: Rendered = {
    machine: "rs-1",
    address: "10.0.0.1",
    programs: "",
    copies: [],
    layers: [layer("open", false), layer("hidden", true)],
  };

  it("is each layer with all that it asks for, and nothing that is secret", () => {
    const text = renderedText(machine);
    assert.match(text, /=== rs-1, layer open \(c-rs-1-open\)\nsysctls:\n {2}net.made.up: "1"/);
    assert.match(text, /--- \/etc\/open.conf 0640 root:root\ncontent of open\n/);
    assert.match(text, /--- \/etc\/hidden.conf 0640 root:root\n\(secret\)\n/);
    assert.doesNotMatch(text, /content of hidden/);
  });

  it("is compared with a commit that there is", () =>
    assert.rejects(
      diffAgainst("made-up", "lab", [machine], undefined),
      /has no commit "made-up" to compare with/,
    ));

  it("is one file, or a list of what there is", () => {
    assert.equal(fileText(machine, "/etc/open.conf"), "content of open\n");
    assert.equal(fileText(machine, "/etc/hidden.conf"), "(secret)\n");
    assert.throws(() => fileText(machine, "/etc/x"), /rs-1 gets no \/etc\/x. It gets:\n {2}\/etc\/open.conf/);
  });

  it("is a tree in which a file stands at its path, and what else a layer asks for beside it", async () => {
    const directory = await mkdtemp(join(tmpdir(), "cosyvoice-dev-"));
    try {
      await writeTree(directory, [machine]);
      assert.equal(await readFile(join(directory, "rs-1/etc/open.conf"), "utf8"), "content of open\n");
      assert.equal(await readFile(join(directory, "rs-1/etc/hidden.conf"), "utf8"), "(secret)\n");
      assert.match(await readFile(join(directory, "rs-1/open.yaml"), "utf8"), /mode: "0640"/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
