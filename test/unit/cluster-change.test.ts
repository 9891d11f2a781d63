import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { rootFile } from "../../components/remote/manifest";
import type { ClusterConfig } from "../../config/schema";
import { paths, renderKeepalivedConfig } from "../../render";
import { announce as announceScale, resize } from "../../scripts/cluster-cli/scale";
import { StackFile } from "../../scripts/cluster-cli/stackFile";
import { aim, announce, renderVerdict } from "../../scripts/cluster-cli/upgrade";
import { sharesThatMove } from "../../scripts/lib/clientMoves";
import type { Manifest } from "../../scripts/lib/manifests";
import { repository } from "../../scripts/lib/paths";

const KEY = `ssh-ed25519 ${"A".repeat(68)}`;

const HOSTS = `# The machines, from the left to the right.
config:
  cosyvoice-lvs:platform: hosts
  cosyvoice-lvs:vip: 192.168.1.100 # free since spring
  cosyvoice-lvs:directors:
    - { name: director-1, address: 192.168.1.11, hostKey: "${KEY}" }
    - { name: director-2, address: 192.168.1.12, hostKey: "${KEY}" }
  cosyvoice-lvs:realServers:
    - name: rs-1
      address: 192.168.1.101 # the old one
      hostKey: ${KEY}
    # Its fan is loud.
    - name: rs-2
      address: 192.168.1.102
      hostKey: ${KEY}
    - name: rs-3
      address: 192.168.1.103
      hostKey: ${KEY}
  cosyvoice-lvs:storage:
    export: nas.example.org:/volume1/cosyvoice
  cosyvoice-lvs:peerKey:
    secure: v1:made:up
  # What speaks.
  cosyvoice-lvs:service:
    engine: cosyvoice
    release: 0123456789abcdef
  cosyvoice-lvs:app:
    ref: ${"a".repeat(40)} # checked by hand
encryptionsalt: v1:made:up
`;

const open = (text = HOSTS) => StackFile.from("Pulumi.made-up.yaml", text);

function config(file: StackFile) {
  const loaded = file.load();
  assert.ok(loaded.ok, JSON.stringify(loaded));
  return loaded.config;
}

describe("a release that rollback pins", () => {
  // Digits alone, and what YAML would take for a power of ten.
  for (const digest of ["1234567890123456", "12345678901234e5", "0123456789abcdef"])
    it(`${digest} is a text in the stack file, whose comments stay`, () => {
      const file = open();
      file.set(["service", "release"], digest);
      assert.equal(config(file).service.release, digest);
      const changed = difference(HOSTS, file.text);
      assert.ok(
        changed.every((line) => line.includes("release:")),
        changed.join("\n"),
      );
    });
});

/** The lines that differ between two texts. */
function difference(before: string, after: string): string[] {
  const [old, now] = [before.split("\n"), after.split("\n")];
  return [
    ...old.filter((line) => !now.includes(line)).map((line) => `-${line}`),
    ...now.filter((line) => !old.includes(line)).map((line) => `+${line}`),
  ];
}

describe("a stack file that a command changes", () => {
  it("is read as the program reads it, with its secrets as secrets", () => {
    const { realServers, secretsSet, service } = config(open());
    assert.deepEqual(
      realServers.map(({ name }) => name),
      ["rs-1", "rs-2", "rs-3"],
    );
    assert.equal(secretsSet.peerKey, true);
    assert.equal(service.release, "0123456789abcdef");
  });

  it("keeps every line that is not touched, comments among them", () => {
    const file = open();
    file.set(["app", "ref"], "main");
    assert.deepEqual(difference(HOSTS, file.text), [
      `-    ref: ${"a".repeat(40)} # checked by hand`,
      "+    ref: main # checked by hand",
    ]);
    assert.equal(file.changed, true);
  });

  for (const name of ["lab", "onprem", "prod"]) {
    it(`leaves Pulumi.${name}.yaml as it is, and changes a line of it alone`, async () => {
      const text = await readFile(join(repository, `Pulumi.${name}.yaml`), "utf8");
      const file = open(text);
      assert.equal(file.text, text);
      assert.equal(file.changed, false);
      file.set(["vip"], "192.168.1.99");
      assert.equal(difference(text, file.text).length, 2, file.text);
    });
  }

  it("gets a new item behind what is said of the one before, and before what is said of the next section", async () => {
    const text = await readFile(join(repository, "Pulumi.onprem.yaml"), "utf8");
    const file = open(text);
    file.add(["realServers"], { name: "rs-4", address: "192.168.1.104" });
    assert.deepEqual(difference(text, file.text), ["+    - name: rs-4", "+      address: 192.168.1.104"]);
    assert.match(
      file.text,
      / {6}# weight: 2\n {4}- name: rs-4\n {6}address: 192\.168\.1\.104\n\n {2}# The share /,
    );
    file.remove(["realServers", 2]);
    assert.match(file.text, /192\.168\.1\.102\n {4}- name: rs-4/);
    assert.match(file.text, /# The share that all real servers mount at \/root/);
  });

  it("is laid out anew where its layout leaves no other way, and means the same", () => {
    const file = open("config: { cosyvoice-lvs:realServers: [{ name: rs-1 }, { name: rs-2 }] }\n");
    file.remove(["realServers", 0]);
    file.add(["realServers"], { name: "rs-3" });
    assert.deepEqual(file.get(["realServers"]), [{ name: "rs-2" }, { name: "rs-3" }]);
  });

  it("loses a section with its last key", () => {
    const file = open("config:\n  cosyvoice-lvs:vip: 1.2.3.4\n  cosyvoice-lvs:service:\n    release: ab\n");
    file.remove(["service", "release"]);
    assert.equal(file.text, "config:\n  cosyvoice-lvs:vip: 1.2.3.4\n");
  });

  it("gets a section with its first key", () => {
    const file = open("config:\n  cosyvoice-lvs:vip: 1.2.3.4\n");
    file.set(["app", "ref"], "main");
    assert.equal(file.text, "config:\n  cosyvoice-lvs:vip: 1.2.3.4\n  cosyvoice-lvs:app:\n    ref: main\n");
  });

  it("is written whole, with its rights", async () => {
    const directory = await mkdtemp(join(tmpdir(), "cosyvoice-stack-file-"));
    try {
      const path = join(directory, "Pulumi.made-up.yaml");
      await writeFile(path, HOSTS, { mode: 0o600 });
      const file = StackFile.from(path, HOSTS);
      file.set(["vip"], "192.168.1.99");
      assert.equal(await readFile(path, "utf8"), HOSTS, "not before it is said");
      await file.save();
      assert.equal(await readFile(path, "utf8"), file.text);
      assert.equal((await stat(path)).mode & 0o777, 0o600);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

describe("scripts/cluster upgrade", () => {
  const node = (name: string, release: string | undefined, commit?: string) => ({ name, release, commit });

  it("sets the engine's ref and lets a pinned release go", () => {
    const file = open();
    const { was, parallel } = aim(file, "v1.1");
    assert.deepEqual(was, { ref: "a".repeat(40), pin: "0123456789abcdef" });
    assert.equal(parallel, 1);
    assert.equal(file.get(["app", "ref"]), "v1.1");
    assert.deepEqual(file.get(["service"]), { engine: "cosyvoice" });
  });
  it("leaves the file alone where nothing is pinned and no ref is wanted", () => {
    const file = open(HOSTS.replace("    release: 0123456789abcdef\n", ""));
    aim(file, undefined);
    assert.equal(file.changed, false);
  });
  it("refuses a ref where another engine speaks", () => {
    const file = open(HOSTS.replace("engine: cosyvoice", "engine: cpu"));
    assert.throws(
      () => aim(file, "v1.1"),
      /--ref v1\.1 is a version of the engine cosyvoice, and service\.engine is cpu/,
    );
    assert.equal(file.changed, false);
  });
  it("names all that is wrong with the file before it does anything", () => {
    const file = open(
      HOSTS.replace("192.168.1.100", "nowhere").replace("engine: cosyvoice", "engine: parrot"),
    );
    assert.throws(() => aim(file, undefined), /vip[\s\S]*service\.engine/);
  });
  it("says beforehand what every machine runs and will run", () => {
    const text = stripVTControlCharacters(
      announce([node("rs-1", "aaaa"), node("rs-2", "bbbb", "c".repeat(40))], "bbbb", {
        pin: "aaaa",
        parallel: 1,
      }),
    );
    assert.match(text, /^rs-1 +aaaa +bbbb +staged, then in its turn$/m);
    assert.match(text, /^rs-2 +bbbb, CosyVoice cccccccccccc +bbbb +stays as it is$/m);
    assert.match(text, /The pinned release aaaa is unpinned\./);
    assert.match(text, /At most 1 of 2 are out of the pool at a time/);
  });
  it("ends with what each one ran and runs", () => {
    const before = [node("rs-1", "aaaa"), node("rs-2", "aaaa")];
    const text = stripVTControlCharacters(
      renderVerdict(before, [node("rs-1", "bbbb"), node("rs-2", undefined)], "bbbb"),
    );
    assert.match(text, /^rs-1 +aaaa +bbbb +as wanted$/m);
    assert.match(text, /^rs-2 +aaaa +none +not as wanted$/m);
  });
});

describe("scripts/cluster scale", () => {
  const wanted = (count: number, add: string[] = [], remove: string[] = []) => ({ count, add, remove });
  const scaled = (...options: Parameters<typeof wanted>) => {
    const file = open();
    resize(file, config(file), wanted(...options));
    return file;
  };
  const names = (file: StackFile) => config(file).realServers.map(({ name }) => name);

  it("takes the last ones", () => assert.deepEqual(names(scaled(2)), ["rs-1", "rs-2"]));
  it("takes those that are named, and no comment of another one", () => {
    const file = scaled(2, [], ["rs-1"]);
    assert.deepEqual(names(file), ["rs-2", "rs-3"]);
    assert.ok(
      difference(HOSTS, file.text).every((line) => line.startsWith("-")),
      file.text,
    );
    assert.match(file.text, /# Its fan is loud\.\n {4}- name: rs-2/);
  });
  it("adds one at the end", () => {
    const file = scaled(4, [`rs-4=192.168.1.104 ${KEY}`]);
    assert.deepEqual(names(file), ["rs-1", "rs-2", "rs-3", "rs-4"]);
    assert.deepEqual(difference(HOSTS, file.text), ["+    - name: rs-4", "+      address: 192.168.1.104"]);
    assert.match(file.text, /192\.168\.1\.104\n {6}hostKey: .*\n {2}cosyvoice-lvs:storage:/);
  });
  it("replaces one", () => {
    const file = scaled(3, [`rs-4=192.168.1.104 ${KEY}`], ["rs-2"]);
    assert.deepEqual(names(file), ["rs-1", "rs-3", "rs-4"]);
  });
  it("changes nothing when there are as many", () => assert.equal(scaled(3).changed, false));
  it("counts on aws", async () => {
    const text = await readFile(join(repository, "Pulumi.prod.yaml"), "utf8");
    const file = open(text);
    resize(file, { platform: "aws", realServers: [] }, wanted(5));
    assert.deepEqual(difference(text, file.text), ["-      count: 3", "+      count: 5"]);
    assert.throws(
      () => resize(file, { platform: "aws", realServers: [] }, wanted(5, ["rs-9=1.2.3.4"])),
      /leave --add and --remove out/,
    );
  });
  const refused: [string, Parameters<typeof wanted>, RegExp][] = [
    [
      "more than there are machines for",
      [5],
      /5 real servers are wanted, and there are 3: name the 2 that come/,
    ],
    ["one more without a name", [4], /name the one that comes, each with --add NAME=ADDRESS/],
    [
      "numbers that do not fit",
      [2, ["rs-4=192.168.1.104"], ["rs-1"]],
      /3 real servers, 1 fewer and 1 more, are 3 and not 2/,
    ],
    ["one that is not there", [2, [], ["rs-9"]], /There is no real server rs-9. There are: rs-1, rs-2, rs-3/],
    ["what is no machine", [4, ["rs-4"]], /--add "rs-4" is not NAME=ADDRESS/],
  ];
  for (const [what, options, expected] of refused) {
    it(`refuses ${what}`, () => assert.throws(() => scaled(...options), expected));
  }
  it("says who comes, who goes and how many clients that moves", () => {
    const text = stripVTControlCharacters(announceScale(config(open()), config(scaled(2))));
    assert.match(text, /^Real servers: 3 now, 2 then\.$/m);
    assert.match(text, /^ {2}come: nobody$/m);
    assert.match(text, /^ {2}go: {3}rs-3 \(drained first/m);
    // A third was rs-3's; the hash moves few besides.
    const share = Number(/new connections of (\d+) %/.exec(text)?.[1]);
    assert.ok(share >= 30 && share <= 40, text);
    assert.match(text, /requests of their sessions are forwarded/);
  });
  it("counts the clients that move as a preview does, in the kernel's order", () => {
    const more = (count: number) => {
      const file = open();
      for (let last = 104; last <= 100 + count; last += 1)
        file.add(["realServers"], { name: `rs-${last - 100}`, address: `192.168.1.${last}`, hostKey: KEY });
      return config(file);
    };
    const [four, eight] = [more(4), more(8)];
    const director = (of: ClusterConfig): Manifest => ({
      layer: "director",
      owner: "made-up/director-1",
      files: { [paths.keepalivedConfig]: rootFile(renderKeepalivedConfig(of, "director-1")) },
    });
    const [found] = sharesThatMove(director(four), director(eight));
    assert.ok(
      announceScale(four, eight).includes(`of ${(100 * (found?.moved ?? 0)).toFixed(0)} % go to another`),
      `${found?.moved}`,
    );
  });
  it("promises nothing of a client's real server where the scheduler gives it none", () => {
    const file = open(
      `${HOSTS}`.replace("  # What speaks.", "  cosyvoice-lvs:loadBalancer: { scheduler: wlc }"),
    );
    assert.match(
      announceScale(config(file), config(file)),
      /the scheduler wlc spreads new connections over all/,
    );
  });
});
