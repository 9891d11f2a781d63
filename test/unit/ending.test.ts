// What is left of a program that is interrupted, or whose reader goes: real programs, real signals.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
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
