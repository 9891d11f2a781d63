import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { hostFile } from "../../components/remote/hostFiles";
import { installer } from "../../components/remote/layer";

describe("the installer of a machine's programs", () => {
  it("prints every program as it is in host/, byte by byte", () => {
    const text = installer(["health-poller", "vip-on-lo", "keep-mounted"]);
    // The last lines do the work; the functions before them are what is asked here.
    const functions = text.slice(text.indexOf("PROGRAMS="), text.lastIndexOf("\n[ "));
    for (const [name, file] of [
      ["apply", "apply.py"],
      ["turn", "turn.py"],
      ["health_poller", "health-poller.py"],
      ["vip_on_lo", "vip-on-lo"],
      ["keep_mounted", "keep-mounted"],
    ] as const) {
      const printed = execFileSync("sh", ["-s"], {
        input: `${functions}\nprint_${name}\n`,
        encoding: "utf8",
        maxBuffer: 1 << 24,
      });
      assert.equal(printed, hostFile(file), name);
    }
  });

  it("is a shell program that shellcheck has nothing to say about", () => {
    const text = installer(["health-poller", "vrrp-guard", "turns", "verify"]);
    execFileSync("shellcheck", ["-"], { input: text });
  });
});
