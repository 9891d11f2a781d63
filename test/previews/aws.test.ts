/** The committed stack on AWS as `pulumi` previews it, with the policy pack, by an account that is made up. */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { blastRadius } from "../../scripts/lib/blastRadius";
import { repository } from "../../scripts/lib/paths";
import { runPreview } from "../../scripts/preview-cli/run";
import { stackFile } from "../unit/config-fixture";
import { PreviewStack } from "./stack";

describe("a preview of Pulumi.prod.yaml", () => {
  let folder: string;
  let stack: PreviewStack;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "cosyvoice-lvs-cloud-"));
    const tsx = join(repository, "node_modules", "tsx", "dist", "loader.mjs");
    const plugin = fileURLToPath(new URL("cloudPlugin.ts", import.meta.url));
    for (const name of ["aws", "tls"]) {
      const file = join(folder, `pulumi-resource-${name}`);
      writeFileSync(file, `#!/bin/sh\nexec '${process.execPath}' --import '${tsx}' '${plugin}' "$@"\n`);
      chmodSync(file, 0o755);
    }
    stack = await PreviewStack.make("prod", stackFile("prod"), [folder]);
  });
  after(() => {
    stack?.dispose();
    rmSync(folder, { recursive: true, force: true });
  });

  it("passes the policy pack, and makes every machine", async () => {
    const preview = await runPreview((args) => stack.run(args));
    assert.deepEqual([preview.passed, preview.errors, preview.violations], [true, [], []]);
    assert.deepEqual(preview.policyPacks, ["cosyvoice-lvs"]);
    const { machines, others } = blastRadius(preview.steps);
    assert.deepEqual(
      machines.map(({ machine, change }) => `${machine} ${change}`),
      ["director-1 new", "director-2 new", "rs-1 new", "rs-2 new", "rs-3 new", "monitor new"],
    );
    assert.ok(others.some(({ op, name }) => op === "create" && name === "cosyvoice-rs-1-instance"));
  });
});
