import { availableParallelism, loadavg } from "node:os";
import { Load, type LoadOptions } from "../../lab/load/load";
import type { Pool, Samplers } from "../../lab/load/samplers";
import { type Log, summarise } from "../../lab/load/summary";
import { machineNamed } from "../../lab/machines";
import { aroundMachines, DIRECTORS, inside, lab, REAL_SERVERS, script } from "../lab/bench";
import { broken, strays } from "./expectations";
import type { Fault, Measured, Scene } from "./fault";

/** What runs before the fault comes: long enough to learn which real server serves which address. */
const STEADY = 7;
/** What is measured after all is as before. */
const TAIL = 3;

/**
 * What two emulated cores carry beside a speech service that starts (half the lab's time then goes into that). A connection's
 * first packet is sent again after 1, 3 and 7 s: a shorter time limit would be the client's loss and not the cluster's.
 */
const LOAD: LoadOptions = {
  rate: 10,
  kept: 2,
  streams: 3,
  syntheses: 1,
  characters: 1000,
  pause: 2,
  timeout: 10,
};

const sleep = (seconds: number) => new Promise<void>((resolve) => setTimeout(resolve, seconds * 1000));

/** First line: when it began; its own output follows. */
const timed = (command: string) => `cut -d' ' -f1 /proc/uptime; { ${command}\n} >&2`;

function serving(pool: Pool): string[] {
  const found = pool ?? {};
  return REAL_SERVERS.filter((name) => (found[machineNamed(name).address] ?? 0) > 0);
}

/** Whether all is as it should be: one holder, every real server in both directors' tables. */
function well(samplers: Samplers): boolean {
  return (
    DIRECTORS.filter((name) => samplers.holdsNow(name)).length === 1 &&
    DIRECTORS.every((name) => serving(samplers.poolNow(name)).length === REAL_SERVERS.length)
  );
}

function describe(samplers: Samplers): string {
  return DIRECTORS.map((name) => {
    const state = samplers.watches(name) ? (samplers.holdsNow(name) ? "holds the VIP" : "stands by") : "off";
    return `${name} ${state}, serving: ${serving(samplers.poolNow(name)).join(" ") || "none"}`;
  }).join("; ");
}

/** Waits until all is as it should be. @throws with how it is instead. */
export async function untilAllWell(samplers: Samplers, seconds: number): Promise<void> {
  const end = Date.now() + seconds * 1000;
  for (let round = 0; ; round += 1) {
    if (round % 20 === 0) await samplers.start();
    if (well(samplers)) return;
    if (Date.now() > end) throw new Error(`not as before within ${seconds} s: ${describe(samplers)}`);
    await sleep(0.1);
  }
}

/** Runs one fault from a cluster that is well to one that is well again. */
export async function run(
  fault: Fault,
  samplers: Samplers,
  judgeTimes: boolean,
): Promise<{ measured: Measured; log: Log; problems: string[] }> {
  await untilAllWell(samplers, 120);
  const holder = DIRECTORS.find((name) => samplers.holdsNow(name)) as string;
  const notes: string[] = [];
  const load = await Load.start(lab, { ...LOAD, ...fault.load });
  const problems: string[] = [];
  const now = () => Math.max(...DIRECTORS.map((name) => samplers.seen(name)));
  const scene: Scene = {
    holder,
    standby: DIRECTORS.find((name) => name !== holder) as string,
    samplers,
    log: () => load.log,
    on: async (machine, command) => Number((await inside(machine, timed(command))).split("\n")[0]),
    around: async (command) => Number((await aroundMachines(timed(command))).split("\n")[0]),
    script,
    note: (text) => notes.push(text),
    sleep,
  };
  await sleep(STEADY);
  const began = now();
  let fell = began;
  let ended = began;
  try {
    fell = await fault.inject(scene);
    ended = fell;
    await sleep(fault.hold ?? 0);
  } catch (error) {
    problems.push(`the fault itself: ${(error as Error).message}`);
  } finally {
    // Whatever went wrong: the lab is to be well for the next case.
    if (fault.restore) {
      try {
        ended = await fault.restore(scene);
      } catch (error) {
        problems.push(`ending the fault: ${(error as Error).message}`);
      }
    }
  }
  let again: number | null = null;
  try {
    // What was done may not have been noticed yet.
    await sleep(2);
    await untilAllWell(samplers, fault.recovery ?? 60);
    again = now();
  } catch (error) {
    problems.push((error as Error).message);
  }
  await sleep(TAIL);
  const end = now();
  const log = await load.stop();
  // Two cores are what the lab needs for itself: what is late then may be late for other reasons than the fault.
  const slowBefore = summarise(log, Number.NEGATIVE_INFINITY, began).slow;
  const [busy = 0] = loadavg();
  if (slowBefore > 0 || busy > availableParallelism() * 1.5)
    notes.push(
      `this computer was busy with other work: ${slowBefore} slow requests before the fault, load average ${busy.toFixed(1)}`,
    );
  const moments = times(fault, samplers, { holder, began, fell, ended, end, again });
  const measured: Measured = {
    summary: summarise(log, began, end + 60, fell),
    ...moments,
    strays: fault.realServer === undefined ? 0 : strays(log, fault.realServer, fell, moments.out),
    times: [fell, ended, end],
    notes,
  };
  problems.push(...broken(fault.expect, measured, fault.realServer !== undefined, judgeTimes));
  if (problems.length === 0 || fault.check) {
    try {
      await fault.check?.(scene, measured);
    } catch (error) {
      problems.push((error as Error).message);
    }
  }
  return { measured, log, problems };
}

interface Moments {
  readonly holder: string;
  readonly began: number;
  readonly fell: number;
  readonly ended: number;
  readonly end: number;
  readonly again: number | null;
}

function times(fault: Fault, samplers: Samplers, moments: Moments) {
  const { began, fell, ended, end, again } = moments;
  const orNull = (value: number | undefined) => value ?? null;
  let out: number | null = null;
  let back: number | null = again === null ? null : Math.max(0, again - ended);
  if (fault.realServer !== undefined) {
    const { address } = machineNamed(fault.realServer);
    const weight = (pool: Pool) => pool?.[address] ?? 0;
    // By the one that holds the VIP at that time; the other one's table concerns nobody yet.
    const left = samplers
      .pools(moments.holder, fell)
      .find(({ at, value }) => at >= fell && weight(value) === 0);
    out = left === undefined ? null : left.at - fell;
    const returned = DIRECTORS.map((name) => {
      const all = samplers.pools(name, fell);
      const last = all.findLastIndex(({ value }) => weight(value) === 0);
      return last < 0 ? undefined : all[last + 1]?.at;
    });
    const latest = returned.filter((at) => at !== undefined);
    back = latest.length === 0 || again === null ? null : Math.max(...latest) - ended;
  }
  let fewest = Number.POSITIVE_INFINITY;
  for (const { director, from, to } of samplers.holdings(began, end)) {
    for (const { at, value } of samplers.pools(director, Math.max(from, began))) {
      // A machine that is off serves nobody with its table.
      if (at < to && value !== null && at < end) fewest = Math.min(fewest, serving(value).length);
    }
  }
  return {
    out,
    back,
    // What ends by itself has one time, from the fault to the end of the measurement.
    oneHolder: [
      orNull(samplers.settled(fell, ended > fell ? ended : end)),
      ended > fell ? orNull(samplers.settled(ended, end)) : 0,
    ] as const,
    holdings: samplers
      .holdings(began, end)
      .map(({ director, from, to }) => ({ director, from: from - fell, to: to - fell })),
    shared: samplers.shared(began, end),
    moves: samplers.moves(began, end),
    fewest,
  };
}
