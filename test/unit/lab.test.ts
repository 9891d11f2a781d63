import assert from "node:assert/strict";
import { join } from "node:path";
import { execa } from "execa";
import { deb822Stanzas, oneLineStanzas } from "../../lab/aptSources";
import { diskFiles } from "../../lab/diskFiles";
import { machineNamed, machines } from "../../lab/machines";
import { merge, withFacts } from "../../lab/stackConfig";
import { shellQuote } from "../../render/text";
import { repository } from "../../scripts/lib/paths";

describe("lab: apt sources", () => {
  it("keeps the release's own stanzas, without comments", () => {
    const text = `Types: deb
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://third.test/apt
Suites: nodistro
Components: main

Types: deb-src
URIs: http://mirror.test/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
`;
    assert.deepEqual(deb822Stanzas(text), [
      "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main",
    ]);
  });

  it("reads one-line sources", () => {
    const text = `deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # here
deb http://third.test/apt bookworm stable
deb http://mirror.test/debian trixie main
deb-src http://mirror.test/debian bookworm main`;
    assert.deepEqual(oneLineStanzas(text), [
      "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\nSigned-By: /k.gpg",
    ]);
  });
});

describe("lab: data disk", () => {
  const host = Object.fromEntries(
    ["vm", ...machines.map(({ name }) => name)].map((name) => [name, `key of ${name}\n`]),
  );
  const files = new Map(diskFiles({ login: "ssh-ed25519 AAAA\n", host }).map((file) => [file.path, file]));

  it("gives every machine its address, and the client its further ones", () => {
    const interfaces = (name: string) => files.get(`machines/${name}/upper/etc/network/interfaces`)?.content;
    assert.match(interfaces("rs-1") ?? "", /^ {4}address 192\.168\.1\.101\/24$/m);
    assert.doesNotMatch(interfaces("rs-1") ?? "", /lab-addresses/);
    assert.match(interfaces("client") ?? "", /lab-addresses/);
    const extra =
      files.get("machines/client/upper/etc/network/lab-addresses")?.content.trim().split("\n") ?? [];
    assert.equal(extra.length, 50);
    assert.equal(extra[0], "address replace 192.168.1.200/24 dev eth0");
    assert.equal(extra[49], "address replace 192.168.1.249/24 dev eth0");
  });

  it("keeps private host keys to their owner", () => {
    const keys = [...files.values()].filter(({ path }) => path.endsWith("ssh_host_ed25519_key"));
    assert.deepEqual(
      keys.map(({ mode }) => mode),
      keys.map(() => 0o600),
    );
    assert.equal(keys.length, machines.length + 1);
  });

  it("has no two machines with one address or name", () => {
    assert.equal(new Set(machines.map(({ name }) => name)).size, machines.length);
    assert.equal(new Set(machines.map(({ address }) => address)).size, machines.length);
    assert.throws(() => machineNamed("rs-9"), /no machine "rs-9"/);
  });
});

describe("lab: stack configuration", () => {
  const facts = {
    privateKeyFile: "/k",
    jumpPort: 42200,
    jumpHostKey: "ssh-ed25519 J",
    hostKeys: { a: "ssh-ed25519 A" },
  };

  it("adds host keys to machines, wherever they are, and the way to them", () => {
    const file = {
      config: { "cosyvoice-lvs:realServers": [{ name: "a", address: "192.0.2.1" }], other: { name: "a" } },
    };
    assert.deepEqual(withFacts(file, facts), {
      config: {
        "cosyvoice-lvs:realServers": [{ name: "a", address: "192.0.2.1", hostKey: "ssh-ed25519 A" }],
        other: { name: "a" },
        "cosyvoice-lvs:ssh": {
          privateKeyFile: "/k",
          jumpHost: { address: "127.0.0.1", port: 42200, user: "root", hostKey: "ssh-ed25519 J" },
        },
      },
    });
  });

  it("keeps a host key that is given, and settings of ssh", () => {
    const machine = { name: "a", address: "192.0.2.1", hostKey: "ssh-ed25519 OWN" };
    const made = withFacts({ config: { m: machine, "cosyvoice-lvs:ssh": { connectTimeout: 5 } } }, facts);
    assert.deepEqual((made as { config: { m: unknown } }).config.m, machine);
    const { config } = made as { config: Record<string, { connectTimeout?: number }> };
    assert.equal(config["cosyvoice-lvs:ssh"]?.connectTimeout, 5);
  });

  const cases: [string, Parameters<typeof merge>, unknown][] = [
    ["follows a change", [{ a: 1 }, { a: 2 }, { a: 1 }], { a: 2 }],
    ["keeps what was set by hand", [{ a: 1 }, { a: 2 }, { a: 3 }], { a: 3 }],
    ["keeps what was added by hand", [{ a: 1 }, { a: 2 }, { a: 1, salt: "s" }], { a: 2, salt: "s" }],
    ["keeps what was removed by hand", [{ a: 1, b: 1 }, { a: 1, b: 2 }, { a: 1 }], { a: 1 }],
    ["takes a new key over", [{ a: 1 }, { a: 1, b: 2 }, { a: 5 }], { a: 5, b: 2 }],
    ["drops a key that is gone", [{ a: 1, b: 2 }, { a: 1 }, { a: 3, b: 2 }], { a: 3 }],
    ["goes into lists", [[{ k: 1, w: 1 }], [{ k: 2, w: 1 }], [{ k: 1, w: 9 }]], [{ k: 2, w: 9 }]],
    ["leaves a list alone that was made shorter", [[1, 2], [1, 3], [1]], [1]],
  ];
  for (const [what, [before, after, current], expected] of cases) {
    it(what, () => assert.deepEqual(merge(before, after, current), expected));
  }
});

describe("lab: words for a shell", () => {
  it("quotes what a shell would read otherwise", () => {
    assert.equal(shellQuote("a-b=c/d"), "a-b=c/d");
    assert.equal(shellQuote("it's $HOME"), `'it'\\''s $HOME'`);
    assert.equal(shellQuote(""), "''");
  });
});

describe("scripts/lab", () => {
  const calls: readonly [what: string, args: readonly string[], status: number, words: RegExp][] = [
    ["an unknown command", ["upp"], 2, /unknown command 'upp'/],
    ["an unknown option", ["up", "--fast"], 2, /unknown option '--fast'/],
    ["no machine", ["power-cut"], 2, /missing required argument 'name'/],
    ["a machine that there is not", ["ssh", "rs-9"], 2, /The lab has no machine "rs-9"\. It has: .*rs-1/],
    ["a question for help", ["--help"], 0, /2 usage error/],
  ];
  for (const [what, args, status, words] of calls) {
    it(`ends with ${status} for ${what}`, async () => {
      const { exitCode, all } = await execa(join(repository, "scripts/lab"), args, {
        reject: false,
        all: true,
      });
      assert.equal(exitCode, status, all);
      assert.match(all, words);
    }).timeout(60_000);
  }
});
