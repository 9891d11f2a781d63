// What is left of a program that is interrupted, or whose reader goes: real programs, real signals.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { machines } from "../../lab/machines";
import { repository } from "../../scripts/lib/paths";

/** Runs a text of TypeScript as a program in the repository. */
function start(text: string, environment: NodeJS.ProcessEnv = {}): ChildProcess {
  const file = ["--import", "tsx", "--input-type=module", "--eval", text];
  return spawn(process.execPath, file, { cwd: repository, env: { ...process.env, ...environment } });
}

/** What a program says, until it has said a word, or its end. */
async function said(child: ChildProcess, word?: string): Promise<string> {
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (part) => (text += part));
  const ended = new Promise((resolve) => child.once("close", resolve));
  while (word === undefined || !text.includes(word)) {
    if ((await Promise.race([ended.then(() => "ended"), sleep(20)])) === "ended") break;
  }
  return text;
}

const end = (child: ChildProcess) =>
  new Promise<[number | null, string | null]>((resolve) =>
    child.once("exit", (code, signal) => resolve([code, signal])),
  );

describe("an interrupt", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "ending-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it(`leaves no private key behind (${signal})`, async () => {
      const child = start(
        `const { OpenSsh } = await import("./components/remote/openssh.ts");
         await OpenSsh.open({ machines: [], privateKey: "made up", connectTimeout: 1 });
         console.log("open");
         setTimeout(() => {}, 60_000);`,
        { TMPDIR: folder },
      );
      assert.match(await said(child, "open"), /open/);
      const [directory = ""] = readdirSync(folder).filter((name) => name.startsWith("cosyvoice-lvs-ssh-"));
      assert.ok(readdirSync(join(folder, directory)).includes("identity"));
      const ended = end(child);
      child.kill(signal);
      assert.deepEqual(await ended, [null, signal]);
      assert.deepEqual(
        readdirSync(folder).filter((name) => name.startsWith("cosyvoice-lvs-ssh-")),
        [],
      );
    });
  }

  it("is left to pulumi while that deploys, and is ours again afterwards", async () => {
    const child = start(
      `const { leavingInterrupts } = await import("./scripts/lib/ending.ts");
       await leavingInterrupts(async () => {
         console.log("begun");
         await new Promise((resolve) => process.stdin.once("data", resolve));
       });
       console.log("done");
       setTimeout(() => {}, 60_000);`,
    );
    await said(child, "begun");
    const ended = end(child);
    child.kill("SIGINT");
    child.stdin?.write("go on\n");
    assert.match(await said(child, "done"), /done/);
    child.kill("SIGINT");
    assert.deepEqual(await ended, [null, "SIGINT"]);
  });
});

describe("an interrupt of scripts/lab", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "ending-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** A pulumi that says what it is told to do; with its plugin, and a lab that was made. */
  function prepare(): NodeJS.ProcessEnv {
    const file = (path: string, text: string, mode = 0o644) => {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text, { mode });
    };
    const pulumi = `#!/bin/bash
      case $* in
        version) echo v3.221.0 ;;
        *up*)
          trap 'echo asked to end' INT
          echo begun
          for ((i = 0; i < 600; i++)); do [[ -e ${folder}/finished ]] && break; sleep 0.05; done
          echo ended in its own time
          exit 7 ;;
        *) cat >/dev/null ;;
      esac`;
    file("bin/pulumi", pulumi, 0o755);
    for (const name of ["pulumi-language-nodejs", "pulumi-resource-command"])
      file(`bin/${name}`, "#!/bin/sh\n", 0o755);
    file("state/lab/lab.json", JSON.stringify({ machineImage: "made-up", sshPort: 1, vipPort: 1 }));
    file("state/lab/keys/login", "made up");
    for (const name of ["vm", ...machines.map((machine) => machine.name)])
      file(`state/lab/keys/${name}.pub`, "ssh-ed25519 AAAA");
    return {
      PATH: `${join(folder, "bin")}:${process.env.PATH}`,
      COSYVOICE_LVS_STATE: join(folder, "state"),
      COSYVOICE_LVS_CACHE: join(folder, "cache"),
    };
  }

  it("ends pulumi once", async () => {
    const env = { ...process.env, ...prepare() };
    // In a process group of its own, as a terminal starts it: all of it gets the interrupt.
    const child = spawn(join(repository, "scripts", "lab"), ["pulumi", "up"], { env, detached: true });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (text += part));
    const ended = end(child);
    const says = async (word: string) => {
      while (!text.includes(word) && child.exitCode === null && child.signalCode === null) await sleep(20);
    };
    await says("begun");
    process.kill(-(child.pid ?? 0), "SIGINT");
    await says("asked to end");
    writeFileSync(join(folder, "finished"), "");
    assert.deepEqual(await ended, [7, null], text);
    assert.match(text, /begun\nasked to end\nended in its own time\n/);
  }).timeout(60_000);
});

describe("a reader that goes", () => {
  it("ends the program without a word", async () => {
    const child = start(
      `const { endWithReader } = await import("./scripts/lib/ending.ts");
       endWithReader();
       console.log("one");
       setInterval(() => console.log("more"), 10);`,
    );
    let errors = "";
    child.stderr?.on("data", (part) => (errors += part));
    const ended = end(child);
    child.stdout?.once("data", () => child.stdout?.destroy());
    assert.deepEqual(await ended, [141, null]);
    assert.equal(errors, "");
  });
});
