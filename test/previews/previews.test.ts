/** Previews as a reviewer gets them: by the real `pulumi`, with the policy pack, of a stack without machines. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { repository } from "../../scripts/lib/paths";
import { marker, renderMarkdown, renderText } from "../../scripts/preview-cli/render";
import { type Previewed, runPreview } from "../../scripts/preview-cli/run";
import { resolveToolchain } from "../../scripts/toolchain";
import { makeStandIn } from "../../scripts/toolchain/plugins";
import { type Resource, Stack } from "../conformance/harness/stack";
import { exampleConfig, PreviewStack } from "./stack";

const docs = fileURLToPath(new URL("../../docs/previews.md", import.meta.url));
const EXAMPLE = /(?<=<!-- example -->\n)[\s\S]*?(?=<!-- end of example -->)/;

describe("a preview of a stack that is deployed", () => {
  let stack: PreviewStack;
  const key = "made-up-peer-key-of-32-characters";

  before(async function () {
    // The toolchain may have to be built first.
    this.timeout(20 * 60_000);
    stack = await PreviewStack.make("example", exampleConfig());
    await stack.setSecret("peerKey", key);
    await stack.takeForDeployed();
  });
  after(() => stack.dispose());

  describe("with one value changed", () => {
    let preview: Previewed;
    before(async () => {
      await stack.change({ service: { queueLength: 30 } });
      preview = await runPreview((args) => stack.run(args));
    });

    it("passes the policy pack", () => {
      assert.deepEqual([preview.passed, preview.errors, preview.violations], [true, [], []]);
      assert.deepEqual(preview.policyPacks, ["cosyvoice-lvs"]);
    });

    it("says what happens on every machine, and to clients", () => {
      const text = renderText("example", preview);
      assert.match(text, /^example: 3 of 6 machines change$/m);
      for (const name of ["rs-1", "rs-2", "rs-3"])
        assert.match(
          text,
          new RegExp(`^${name} +drain +cosyvoice\\.service restarts: /etc/cosyvoice/cosyvoice\\.env$`, "m"),
        );
      for (const name of ["director-1", "director-2", "storage"])
        assert.match(text, new RegExp(`^${name} +nothing$`, "m"));
      assert.match(text, /that move to another real server for good: none\.$/m);
      assert.match(text, /3 real servers are drained, at most 1 at a time: .* up to 3\d % of the clients/);
    });

    it("shows the lines that change and little else", () => {
      const comment = renderMarkdown("example", preview);
      assert.ok(comment.startsWith(marker("example")));
      assert.match(comment, /^- +COSYVOICE_QUEUE_LENGTH=\S+$/m);
      assert.match(comment, /^\+ +COSYVOICE_QUEUE_LENGTH=30$/m);
      const changed = comment.split("\n").filter((line) => /^[+-] /.test(line));
      assert.equal(
        changed.length,
        2 * 3 + 3 + preview.warnings.length,
        "a line before and after on three machines, three remarks, and what the program warns of",
      );
      assert.ok(comment.split("\n").length < 100, comment);
    });

    it("shows no secret", () => {
      const all = JSON.stringify(preview) + renderMarkdown("example", preview);
      assert.ok(!all.includes(key));
    });

    it("is the example in docs/previews.md", () => {
      const written = readFileSync(docs, "utf8");
      // What a deployment is known by changes with every renderer.
      const wanted = renderMarkdown("example", preview).replace(
        /"[0-9a-f]{16}" => "[0-9a-f]{16}"/g,
        '"0123456789abcdef" => "fedcba9876543210"',
      );
      if (process.env.UPDATE_GOLDEN === "1")
        writeFileSync(
          docs,
          written.replace(EXAMPLE, () => wanted),
        );
      assert.equal(readFileSync(docs, "utf8").match(EXAMPLE)?.[0], wanted, "UPDATE_GOLDEN=1 writes it");
    });
  });

  it("says what is wrong with the configuration", async () => {
    await stack.change({ service: { queueLength: 0 }, vip: "192.168.1.11" });
    const preview = await runPreview((args) => stack.run(args));
    assert.equal(preview.passed, false);
    const comment = renderMarkdown("example", preview);
    assert.match(comment, /^### example: this cannot be deployed$/m);
    assert.match(comment, /The configuration has 2 mistakes/);
  });
});

describe("the policy pack", () => {
  it("stops a preview with a connection that trusts anybody", async () => {
    const { pulumi, env } = await resolveToolchain();
    const folder = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-policy-"));
    try {
      const plugin = await makeStandIn(() => undefined);
      const runner = { pulumi, env: { ...env, PATH: `${plugin}:${env.PATH}` }, scrub: [] };
      const stack = new Stack("violating", folder, runner);
      await stack.init();
      const open: Resource = {
        name: "open",
        type: "remote.Command",
        args: { connection: { host: "192.0.2.1" }, create: "true" },
      };
      const flags = ["--policy-pack", join(repository, "policy")];
      const { text } = await stack.preview([open], { fails: true, flags });
      assert.match(text, /host-keys-pinned/);
      assert.match(text, /mandatory/);
      assert.match(text, /connection\.hostKey of open is not set/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
