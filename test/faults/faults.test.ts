import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Samplers } from "../../lab/load/samplers";
import type { Log } from "../../lab/load/summary";
import { cacheDir } from "../../scripts/lib/paths";
import { DIRECTORS, inside, lab, ownLab, restoreSettings, script } from "../lab/bench";
import { faults } from "./faults";
import { powerCutOfAll } from "./powerCutOfAll";
import { type Row, record, row, tableText } from "./report";
import { run, untilAllWell } from "./run";

const asked = (process.env.COSYVOICE_LVS_FAULTS ?? "quick").split(",").filter((name) => name !== "");
const all = [...faults, powerCutOfAll];
const wanted = (fault: { name: string; quick?: true }) =>
  asked.includes("all") || (asked.includes("quick") && fault.quick === true) || asked.includes(fault.name);
const unknown = asked.filter(
  (name) => name !== "all" && name !== "quick" && !all.some((fault) => fault.name === name),
);
/** Only a run that was asked for changes the documentation, and judges times. */
const recording = process.env.COSYVOICE_LVS_FAULTS_RECORD === "1";

describe("with this fault the cluster does what is promised", () => {
  const samplers = new Samplers(lab, DIRECTORS);
  const rows: Row[] = [];
  let accelerator = "?";

  before(async () => {
    assert.deepEqual(unknown, [], `faults are: ${all.map(({ name }) => name).join(", ")}`);
    await restoreSettings();
    // A lab that is there for this alone gets what the work tree has now.
    if ((recording && ownLab) || !(await lab.status()).running)
      assert.equal((await script("lab", "up")).exitCode, 0);
    accelerator = (await lab.status()).vm?.accelerator === "kvm" ? "KVM" : "emulated, 2 cores";
    await samplers.start();
    await untilAllWell(samplers, 120);
  });

  after(async () => {
    await samplers.stop();
    if (recording && ownLab) await script("lab", "down");
    if (rows.length > 0) console.log(`\n${tableText(rows)}\n`);
  });

  /** A run that is cut short keeps what it has found so far. */
  async function keepRow(found: Row): Promise<void> {
    rows.push(found);
    if (recording)
      await record(
        [found],
        all.map(({ name }) => name),
      );
  }

  for (const fault of faults.filter(wanted)) {
    it(`${fault.name}: ${fault.title}`, async () => {
      const { measured, log, problems } = await run(fault, samplers, recording).catch(
        async (error: Error) => {
          await keepRow(row(fault, accelerator, [error.message]));
          throw error;
        },
      );
      await keepRow(row(fault, accelerator, problems, measured));
      await keep(fault.name, log);
      await removeResults(log);
      console.log(tableText(rows.slice(-1)).replace(/^/gm, "        "));
      for (const [reason, count] of Object.entries(measured.summary.reasons))
        console.log(`        ${count} x ${reason}`);
      for (const { director, from, to } of measured.holdings)
        console.log(`        ${director} held the VIP from ${from.toFixed(2)} to ${to.toFixed(2)} s`);
      for (const text of measured.notes) console.log(`        ${text}`);
      assert.deepEqual(problems, []);
    });
  }

  if (wanted(powerCutOfAll)) {
    it(`${powerCutOfAll.name}: ${powerCutOfAll.title}`, async () => {
      const { notes, problems } = await powerCutOfAll.run(samplers);
      await keepRow(row(powerCutOfAll, accelerator, problems, { notes }));
      for (const text of notes) console.log(`        ${text}`);
      assert.deepEqual(problems, []);
    });
  }
});

/** For a look at what happened: the log of each case stays in the cache until the next run of it. */
async function keep(name: string, log: Log): Promise<void> {
  const directory = join(cacheDir(), "faults");
  await mkdir(directory, { recursive: true });
  const lines = [...log.attempts, ...log.stalls.map((stall) => ({ kind: "stall", ...stall }))];
  await writeFile(
    join(directory, `${name}.jsonl`),
    lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
}

/** What the load had made need not be kept: some megabytes each. */
async function removeResults(log: Log): Promise<void> {
  const names = log.attempts.flatMap(({ name }) => name ?? []);
  if (names.length > 0) await inside("storage", `cd /srv/cosyvoice/outputs && rm -f ${names.join(" ")}`);
}
