import assert from "node:assert/strict";
import { stripVTControlCharacters } from "node:util";
import type { OpenSsh } from "../../components/remote/openssh";
import { type LogLine, parseSince, readLogs, renderLogs } from "../../scripts/cluster-cli/logs";
import { inventory } from "./inventory-fixture";

describe("scripts/cluster logs", () => {
  it("reads spans and moments", () => {
    const now = Date.parse("2026-01-31T03:00:00Z") / 1000;
    assert.equal(parseSince("10m", now), now - 600);
    assert.equal(parseSince("2d", now), now - 172_800);
    assert.equal(parseSince("2026-01-31T02:59:59Z", now), now - 1);
    for (const wrong of ["", "yesterday", "10", "10 m", "-5m"])
      assert.equal(parseSince(wrong, now), undefined, wrong);
  });

  it("shows when, where, what", () => {
    const line = { machine: "rs-1", at: 1_769_828_400.25, source: "jobs", text: "done" };
    const now = Date.parse("2026-01-31T04:00:00Z");
    const plain = (lines: LogLine[]) => stripVTControlCharacters(renderLogs(lines, inventory, now));
    assert.match(plain([line]), /^03:00:00\.250Z rs-1 +jobs done$/);
    // The hour alone would be taken for today's.
    const before = { ...line, at: line.at - 86_400 };
    assert.match(
      plain([before, line]),
      /^2026-01-30 03:00:00\.250Z rs-1 +jobs done\n2026-01-31 03:00:00\.250Z rs-1 +jobs done$/,
    );
  });

  it("reads the other machines when one cannot be, and says why it is missing", async () => {
    const said = JSON.stringify({ at: 1_769_828_400, source: "jobs", text: "done" });
    const ssh = {
      run: async (name: string) =>
        name === "rs-1"
          ? { exitCode: 1, stdout: "", stderr: "OSError: No space left on device\n" }
          : { exitCode: 0, stdout: `${said}\n`, stderr: "" },
    } as unknown as OpenSsh;
    const { lines, missing } = await readLogs(inventory, ssh, { since: 0 });
    assert.deepEqual(lines.map(({ machine }) => machine).sort(), ["director-1", "director-2", "rs-2"]);
    assert.deepEqual(missing, ["rs-1: journal.py failed: OSError: No space left on device"]);
  });
});
