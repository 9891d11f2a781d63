// The commands of the documentation that want a cluster, typed against the lab that runs, page by page and in their order.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, symlinkSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { repository } from "../../scripts/lib/paths";
import { lab, untilWell } from "../lab/bench";
import { resembles } from "./markdown";
import { knownCommands, pages } from "./pages";

/** A command as it is typed in the lab: its own address and stack, and its way to machines. */
async function inLab(command: string, request: string): Promise<string> {
  const url = ((await lab.url()) ?? "").replace(/\/$/, "");
  const text = command
    .replace(/ --stack \w+/, "")
    .replace(/^curl /, "curl -sS --fail-with-body ")
    .replace("http://127.0.0.1:7860", url)
    .replace("http://192.168.1.100:7860", url)
    .replace(/--request ID\b/, `--request ${request}`);
  const ssh = /^ssh ([\w-]+) (.*)$/.exec(text);
  if (ssh === null) return text;
  const [, machine = "", words = ""] = ssh;
  return `scripts/lab exec ${machine} -- sh -c ${/^'/.test(words) ? words : `'${words}'`}`;
}

describe("a command of the documentation, in the lab", () => {
  const directory = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-docs-"));
  let request = "";

  before(async () => {
    for (const name of readdirSync(repository)) symlinkSync(join(repository, name), join(directory, name));
    const { stdout } = await execa("espeak-ng", ["--stdout", "What is said in it, and some more of it."], {
      encoding: "buffer",
    });
    await writeFile(join(directory, "voice.wav"), stdout);
  });

  after(() => rm(directory, { recursive: true, force: true }));

  for (const page of pages) {
    const here = knownCommands(page).filter(({ way }) => way?.in === "lab");
    if (here.length === 0) continue;
    describe(page.path, () => {
      before(() => untilWell(120));
      for (const { command, way } of here) {
        it(`line ${command.line}: ${command.text}`, async () => {
          const line = await inLab(command.text, request);
          const { exitCode, all } = await execa("bash", ["-c", line], {
            cwd: directory,
            reject: false,
            stdin: "ignore",
            all: true,
            timeout: 300_000,
          });
          request = /--request (\S+)/.exec(all)?.[1] ?? request;
          const exits = (way?.in === "lab" && way.exits) || [0];
          assert.ok(exits.includes(exitCode ?? -1), `exit status ${exitCode}\n${all}`);
          const missing = resembles(all, command.output);
          assert.equal(missing, undefined, `has no line like the page's: ${missing}\n${all}`);
        });
      }
      after(() => untilWell(120));
    });
  }
});
