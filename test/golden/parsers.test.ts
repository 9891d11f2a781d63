/**
 * Every golden text, read by the program that will read it on a machine. A program that is missing is a failure, not a skip:
 * `scripts/test` installs the packages.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { paths, renderAdminsCheck } from "../../render";
import { goldenCases, goldenFolder } from "./cases";
import { placeFrontDoor, testFrontDoor } from "./nginx";
import { env, run, verifyUnit, withPackaged } from "./readers";

function goldenPath(name: string, file: string): string {
  return fileURLToPath(new URL(`${name}/${file}`, goldenFolder));
}

/** Every golden file whose name matches, as [case, file]. */
function goldens(pattern: RegExp): (readonly [string, string])[] {
  return goldenCases.flatMap(({ name, texts }) =>
    Object.keys(texts)
      .filter((file) => pattern.test(file))
      .map((file) => [name, file] as const),
  );
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "golden-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("keepalived", () => {
  /** An interface of this machine: keepalived looks whether the one in the text exists. */
  const here = readdirSync("/sys/class/net").find((name) => name !== "lo" && name.length <= 9);

  function check(text: string) {
    assert.ok(here !== undefined, "keepalived -t needs a network interface besides lo on this machine");
    const file = join(folder, "keepalived.conf");
    writeFileSync(file, text.replace(/\b(eth0|ens5)\b/g, here));
    writeFileSync(
      join(folder, "cosyvoice-lvs-auth.conf"),
      readFileSync(goldenPath("classic-article", "cosyvoice-lvs-auth.conf")),
    );
    return run("keepalived", ["--config-test", "--use-file", file]);
  }

  for (const [name, file] of goldens(/^keepalived-.*\.conf$/)) {
    it(`has nothing to say about ${name}/${file}`, () => {
      assert.deepEqual(check(readFileSync(goldenPath(name, file), "utf8")), { status: 0, said: "" });
    });
  }

  it("would have something to say about a mistake", () => {
    const text = readFileSync(goldenPath("classic-article", "keepalived-director-1.conf"), "utf8");
    // The two keywords of the article that keepalived does not know.
    for (const wrong of [
      text.replaceAll("            retry 3", "            nb_get_retry 3"),
      text.replace("lb_algo rr", "lb_algo xx"),
    ]) {
      const { status, said } = check(wrong);
      assert.notEqual(status, 0);
      assert.notEqual(said, "");
    }
  });

  it("reads the password from the included file", () => {
    writeFileSync(join(folder, "cosyvoice-lvs-auth.conf"), "authentication {\n    auth_key made-up1\n}\n");
    const file = join(folder, "keepalived.conf");
    const text = readFileSync(goldenPath("classic-article", "keepalived-director-1.conf"), "utf8");
    writeFileSync(file, text.replaceAll("eth0", here ?? "eth0"));
    const { status, said } = run("keepalived", ["--config-test", "--use-file", file]);
    assert.notEqual(status, 0);
    assert.match(said, /auth_key/);
  });
});

describe("systemd", () => {
  const verify = (unit: string) => verifyUnit(folder, unit);

  function place(name: string): void {
    for (const [from, file] of [...goldens(/\.(service|mount)$/).filter(([of]) => of === "default")]) {
      cpSync(goldenPath(from, file), join(folder, file));
    }
    for (const [from, file] of goldens(/\.(service|mount)$/).filter(([of]) => of === name)) {
      cpSync(goldenPath(from, file), join(folder, file));
    }
  }

  for (const [name, file] of goldens(/\.(service|mount)$/)) {
    it(`has nothing to say about ${name}/${file}`, () => {
      place(name);
      assert.equal(verify(file), "");
    });
  }

  for (const [name, file] of goldens(/^keepalived\.service\.d\.conf$/)) {
    it(`has nothing to say about ${name}/${file}`, () => {
      place("default");
      cpSync("/lib/systemd/system/keepalived.service", join(folder, "keepalived.service"));
      mkdirSync(join(folder, "keepalived.service.d"));
      cpSync(goldenPath(name, file), join(folder, "keepalived.service.d/cosyvoice-lvs.conf"));
      assert.equal(verify("keepalived.service"), "");
    });
  }

  it("would have something to say about a mistake", () => {
    place("default");
    const unit = readFileSync(join(folder, "cosyvoice.service"), "utf8");
    for (const wrong of [unit.replace("After=", "Afters="), unit.replace("Type=notify", "Type=notified")]) {
      writeFileSync(join(folder, "cosyvoice.service"), wrong);
      assert.notEqual(verify("cosyvoice.service"), "");
    }
  });

  /** What systemd makes of a unit, from 0 (nothing to gain for an intruder) to 10. */
  function exposure(unit: string): number {
    const { said } = run("systemd-analyze", ["security", "--offline=true", "--no-pager", unit]);
    return Number(/Overall exposure level for \S+: ([\d.]+)/.exec(said)?.[1]);
  }

  // docs/security.md says why.
  const exposed: Readonly<Record<string, number>> = {
    "cosyvoice-outputs.service": 9.6,
    "cosyvoice-vrrp-guard.service": 2.1,
    "keepalived.service": 2.5,
  };

  for (const [name, file] of goldens(/\.service$/)) {
    it(`finds little to gain in ${name}/${file}`, () => {
      assert.ok(exposure(goldenPath(name, file)) <= (exposed[file] ?? 2));
    });
  }

  for (const [name, file] of goldens(/\.service\.d\.conf$/)) {
    it(`finds little to gain in the distribution's unit with ${name}/${file}`, () => {
      const whole = withPackaged(file, readFileSync(goldenPath(name, file), "utf8"));
      const unit = join(folder, whole.unit);
      writeFileSync(unit, whole.text);
      const found = exposure(unit);
      assert.ok(found <= (exposed[whole.unit] ?? 2), String(found));
    });
  }

  it("would find more to gain in a unit that lost its sandbox", () => {
    const text = readFileSync(goldenPath("default", "cosyvoice.service"), "utf8");
    const unit = join(folder, "cosyvoice.service");
    writeFileSync(unit, text.replace(/^(CapabilityBoundingSet|SystemCallFilter)=.*\n/gm, ""));
    assert.ok(exposure(unit) > 3);
  });

  it("finds the mount unit's name where the mount is", () => {
    const { said } = run("systemd-escape", ["--path", "--suffix=mount", paths.outputs]);
    assert.equal(paths.outputsMount, `/etc/systemd/system/${said.trim()}`);
  });
});

describe("nft", () => {
  for (const [name, file] of goldens(/\.nft$/)) {
    it(`accepts ${name}/${file}`, () => {
      const { status, said } = run("unshare", ["-Urn", "nft", "-c", "-f", goldenPath(name, file)]);
      assert.deepEqual({ status, said }, { status: 0, said: "" });
    });
  }
});

describe("the check that nobody is shut out", () => {
  /** Loads the rules in a network of its own, where these are connected by SSH; what the check says. */
  function check(...connected: readonly string[]) {
    const lines = connected.map((peer) => `0 0 192.168.1.11:22 ${peer}`).join("\\n");
    writeFileSync(
      join(folder, "ss"),
      `#!/bin/sh\n[ "$*" = '-Htn state established ( sport = :22 )' ] && printf '${lines}\\n'\n`,
    );
    chmodSync(join(folder, "ss"), 0o755);
    const rules = goldenPath("https-only", "firewall-director-1.nft");
    const { status, said } = run(
      "unshare",
      ["-Urn", "sh", "-c", `nft -f ${rules} && { ${renderAdminsCheck(22)}; }`],
      { env: { PATH: `${folder}:${env.PATH}` } },
    );
    return { status, said: said.trim() };
  }

  it("lets a deployment pass whose computer may connect again", () => {
    assert.deepEqual(check("10.1.2.3:50000", "192.168.1.1:1", "10.1.2.3:50001"), { status: 0, said: "" });
    assert.deepEqual(check("[::ffff:10.1.2.3]:50000"), { status: 0, said: "" });
  });

  it("names who could not", () => {
    const said = "is connected by SSH, and firewall.admins does not have it";
    assert.deepEqual(check("10.1.2.3:50000", "192.168.1.2:1"), { status: 1, said: `192.168.1.2 ${said}` });
    assert.deepEqual(check("[2001:db8::1]:50000"), { status: 1, said: `[2001:db8::1] ${said}` });
  });
});

describe("nginx", () => {
  for (const [name, file] of goldens(/^nginx\.conf$/)) {
    it(`has nothing to say about ${name}/${file}`, () => {
      placeFrontDoor(folder, readFileSync(goldenPath(name, file), "utf8"));
      assert.equal(testFrontDoor(folder), "");
    });
  }

  it("would have something to say about a mistake", () => {
    const text = readFileSync(goldenPath("https", "nginx.conf"), "utf8");
    for (const wrong of [
      text.replace("ssl_protocols TLSv1.2", "ssl_protocols TLSv1.9"),
      text.replace("limit_req zone=requests", "limit_req zone=others"),
      text.replace("proxy_buffering off;", "proxy_buffering off"),
    ]) {
      assert.notEqual(wrong, text);
      placeFrontDoor(folder, wrong);
      assert.notEqual(testFrontDoor(folder), "");
    }
  });
});

describe("bash", () => {
  for (const [name, file] of goldens(/^run\.sh$/)) {
    it(`parses ${name}/${file}, and shellcheck has nothing to say`, () => {
      const script = goldenPath(name, file);
      assert.deepEqual(run("bash", ["-n", script]), { status: 0, said: "" });
      assert.deepEqual(run("shellcheck", [script]), { status: 0, said: "" });
    });

    it(`${name}/${file} becomes the Python program in the activated environment`, () => {
      const stage = join(folder, "CosyVoice");
      mkdirSync(join(stage, "cosyvoice_env/bin"), { recursive: true });
      writeFileSync(join(stage, "cosyvoice_env/bin/activate"), `PATH=${stage}/cosyvoice_env/bin:$PATH\n`);
      const python = join(stage, "cosyvoice_env/bin/python");
      writeFileSync(python, '#!/bin/sh\necho "$$ $(pwd) $*"\n');
      chmodSync(python, 0o755);
      const script = readFileSync(goldenPath(name, file), "utf8").replace(
        `cd ${paths.service}\n`,
        `cd ${stage}\n`,
      );
      writeFileSync(join(folder, "run.sh"), script);
      // The shell tells its own process id first: exec keeps it.
      const said = execFileSync("bash", ["--norc", "-c", `echo $$; exec bash ${folder}/run.sh`], {
        encoding: "utf8",
        env,
      });
      const [shell, program] = said.trim().split("\n");
      const queue =
        name === "gpu"
          ? "app.py --host 0.0.0.0 --port 443"
          : "app.py --host 0.0.0.0 --port 7860 --enable-queue";
      assert.equal(program, `${shell} ${stage} ${queue}`);
    });
  }

  // systemd unquotes an EnvironmentFile as a shell does, as far as it goes: the same four escapes, no expansion.
  it("reads from gpu/cosyvoice.env what was meant", () => {
    const script = `set -a; . ${goldenPath("gpu", "cosyvoice.env")}; exec env -0`;
    const said = execFileSync("bash", ["--norc", "-c", script], {
      encoding: "utf8",
      env: { PATH: env.PATH },
    });
    const found = Object.fromEntries(said.split("\0").map((line) => line.split(/=(.*)/s).slice(0, 2)));
    const { COSYVOICE_NODE, PLAIN, SPACES, QUOTES, DOLLAR, BACKSLASH, HASH, EMPTY, MANDARIN } = found;
    assert.deepEqual(
      { COSYVOICE_NODE, PLAIN, SPACES, QUOTES, DOLLAR, BACKSLASH, HASH, EMPTY, MANDARIN },
      {
        COSYVOICE_NODE: "rs-3",
        PLAIN: "a-b_c/d:e,f@g+h",
        SPACES: " two  words ",
        QUOTES: `it's "so"`,
        DOLLAR: "$HOME $(id) `id`",
        BACKSLASH: "C:\\dir\\",
        HASH: "# no comment; none",
        EMPTY: "",
        MANDARIN: "你好",
      },
    );
  });
});

describe("OpenSSH", () => {
  function options(file: string, host: string): Record<string, string> {
    const { status, said } = run("ssh", ["-G", "-F", goldenPath("ssh", file), host]);
    assert.equal(status, 0, said);
    return Object.fromEntries(said.split("\n").map((line) => line.split(/ (.*)/s).slice(0, 2)));
  }

  it("goes through the jump host, with the pinned key, asking nothing", () => {
    const found = options("ssh_config", "director-1");
    const {
      hostname,
      port,
      user,
      hostkeyalias,
      proxyjump,
      stricthostkeychecking,
      batchmode,
      connecttimeout,
    } = found;
    assert.deepEqual(
      { hostname, port, user, hostkeyalias, proxyjump, stricthostkeychecking, batchmode, connecttimeout },
      {
        hostname: "192.168.1.11",
        port: "22",
        user: "root",
        hostkeyalias: "director-1",
        proxyjump: "jump-host",
        stricthostkeychecking: "true",
        batchmode: "yes",
        connecttimeout: "10",
      },
    );
    const { identityfile, userknownhostsfile, globalknownhostsfile, identitiesonly, controlmaster } = found;
    assert.deepEqual(
      { identityfile, userknownhostsfile, globalknownhostsfile, identitiesonly, controlmaster },
      {
        identityfile: "/made up/id_ed25519",
        userknownhostsfile: "/made up/known_hosts /made/100%/known_hosts",
        globalknownhostsfile: "/dev/null",
        identitiesonly: "yes",
        controlmaster: "false",
      },
    );
  });

  it("shares the connection to the jump host alone", () => {
    const { controlmaster, controlpersist, proxyjump } = options("ssh_config", "jump-host");
    assert.deepEqual(
      { controlmaster, controlpersist, proxyjump },
      { controlmaster: "auto", controlpersist: "60", proxyjump: undefined },
    );
  });

  it("looks a machine without a pinned key up by its address", () => {
    const { hostname, port, user, hostkeyalias } = options("ssh_config", "rs-1");
    assert.deepEqual(
      { hostname, port, user, hostkeyalias },
      { hostname: "192.168.1.101", port: "2022", user: "ops", hostkeyalias: undefined },
    );
  });

  it("takes the agent's keys when no file is given, and whole seconds", () => {
    const { identitiesonly, connecttimeout } = options("ssh_config-agent", "director-1");
    assert.deepEqual({ identitiesonly, connecttimeout }, { identitiesonly: "no", connecttimeout: "3" });
  });

  it("finds the pinned keys under the machines' names", () => {
    const file = goldenPath("ssh", "known_hosts");
    assert.equal(run("ssh-keygen", ["-l", "-f", file]).status, 0);
    for (const [host, found] of [
      ["director-1", 0],
      ["jump-host", 0],
      ["192.168.1.11", 1],
    ] as const) {
      assert.equal(run("ssh-keygen", ["-F", host, "-f", file]).status, found, host);
    }
  });
});

describe("Python", () => {
  it("reads default/health.json as the poller does", () => {
    const program = "import json, sys; print(json.dumps(json.load(open(sys.argv[1])), sort_keys=True))";
    const { said } = run("python3", ["-c", program, goldenPath("default", "health.json")]);
    assert.deepEqual(JSON.parse(said), {
      interval: 0.5,
      timeout: 0.8,
      failures: 2,
      silence: 10,
      trackDirectory: "/run/cosyvoice-lvs/track",
      weights: null,
      door: null,
      servers: ["rs-1", "rs-2", "rs-3"].map((name, index) => ({
        name,
        address: `192.168.1.${101 + index}`,
        port: 7860,
        path: "/readyz",
        weight: 1,
      })),
    });
  });

  const host = fileURLToPath(new URL("../../host/", import.meta.url));

  for (const [program, pattern] of [
    ["health-poller.py", /^health\.json$/],
    ["turns.py", /^turns\.json$/],
  ] as const) {
    for (const [name, file] of goldens(pattern)) {
      it(`${program} takes ${name}/${file}`, () => {
        const read =
          "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x')['read_config'](sys.argv[2])";
        assert.deepEqual(run("python3", ["-IS", "-c", read, join(host, program), goldenPath(name, file)]), {
          status: 0,
          said: "",
        });
      });
    }
  }

  for (const [name, file] of goldens(/^turn\.sh$/)) {
    it(`turn.py understands ${name}/${file}`, () => {
      const commands = readFileSync(goldenPath(name, file), "utf8").trim().split("\n");
      assert.equal(commands.length, 2);
      for (const command of commands) {
        const here = command.replace(paths.turn, `python3 -IS ${join(host, "turn.py")}`);
        assert.notEqual(here, command);
        // A caller that is gone at once: it ends before it does anything, and not with its usage.
        assert.deepEqual(run("sh", ["-c", `${here} </dev/null`]), { status: 1, said: "" });
      }
    });
  }

  it("reads default/nfs.conf as the INI file that it is", () => {
    const program =
      "import configparser, json, sys; c = configparser.ConfigParser(); c.read(sys.argv[1]); print(json.dumps({s: dict(c[s]) for s in c.sections()}))";
    const { said } = run("python3", ["-c", program, goldenPath("default", "nfs.conf")]);
    assert.deepEqual(JSON.parse(said), {
      nfsd: {
        udp: "n",
        vers3: "n",
        vers4: "y",
        "vers4.0": "n",
        "vers4.1": "y",
        "vers4.2": "y",
        "grace-time": "10",
        "lease-time": "10",
      },
    });
  });
});
