import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Load } from "../../lab/load/load";
import type { Samplers } from "../../lab/load/samplers";
import { inside, lab, script } from "../lab/bench";
import { untilAllWell } from "./run";

/**
 * QEMU is killed while results are being acknowledged: only this takes away what the kernel had not written yet, so only
 * this proves that an acknowledged result is on the disk.
 */
export const powerCutOfAll = {
  name: "everything-power-cut",
  title: "power-cut of everything while results are acknowledged",
  group: "everything",

  async run(samplers: Samplers): Promise<{ notes: string[]; problems: string[] }> {
    await untilAllWell(samplers, 120);
    const load = await Load.start(lab, { rate: 2, kept: 0, streams: 0, syntheses: 3, characters: 120 });
    await sleep(20_000);
    await lab.vm.kill();
    const log = await load.abandoned();
    await lab.ssh.close();
    const { exitCode, output } = await script("lab", "up", "--no-deploy");
    if (exitCode !== 0)
      return { notes: [], problems: [`the lab does not come up again: ${output.slice(-500)}`] };
    const began = Date.now();
    await untilAllWell(samplers, 240);

    const made = log.attempts.filter(({ kind, name }) => kind === "synthesis" && name !== undefined);
    const listed = await inside("storage", "cd /srv/cosyvoice/outputs && sha256sum *.wav");
    const kept = new Map(listed.split("\n").map((line) => [line.slice(66), line.slice(0, 64)]));
    const empty = createHash("sha256").digest("hex");
    const problems = made
      .filter(({ name, sha256 }) => kept.get(name as string) !== sha256)
      .map(({ name }) => {
        const found = kept.get(name as string);
        const state = found === undefined ? "gone" : found === empty ? "empty" : "another";
        return `acknowledged, and ${state} after the power came back: ${name}`;
      });
    if (made.length > 0)
      await inside("storage", `cd /srv/cosyvoice/outputs && rm -f ${made.map(({ name }) => name).join(" ")}`);
    if (made.length < 10) problems.push(`only ${made.length} results were acknowledged: nothing is proved`);
    return {
      problems,
      notes: [
        `${made.length} acknowledged results, ${problems.length} missing or damaged`,
        `all is as before ${((Date.now() - began) / 1000).toFixed(0)} s after the machines answered`,
      ],
    };
  },
} as const;
