import { join } from "node:path";
import pc from "picocolors";
import { packRelease } from "../../components/release";
import { formatProblems } from "../../config/load";
import { cacheDir, repository } from "../lib/paths";
import { change } from "./change";
import { connect } from "./inventory";
import type { Outcome, Session } from "./session";
import { StackFile } from "./stackFile";
import { columns } from "./table";
import { type NodeVersion, readVersions, renderVersion } from "./versions";

export interface UpgradeOptions {
  /** Commit, tag or branch of upstream's repository, for the engine cosyvoice. @default what the stack file says */
  readonly ref?: string | undefined;
  /** Go without asking. */
  readonly yes: boolean;
  /** Print the versions for a program, and nothing else to standard output. */
  readonly json: boolean;
}

/**
 * Brings every real server to the speech app of this checkout, and to another commit of the engine where one is named, node by
 * node. A release that `scripts/cluster rollback` has pinned is let go.
 *
 * @throws an Error when there is no such engine, or the preview refuses the change; nothing was changed then.
 */
export async function upgrade(
  { stack, inventory, ssh, progress }: Session,
  { ref, yes, json }: UpgradeOptions,
): Promise<Outcome> {
  const file = await StackFile.open(stack);
  const { was, parallel } = aim(file, ref);
  progress.show("asking the real servers what they run");
  const before = await readVersions(inventory, ssh);
  // Tests deploy other versions of the app.
  const app = process.env.COSYVOICE_LVS_APP ?? join(repository, "app");
  const { digest } = packRelease(app, join(cacheDir(), "releases"));
  progress.clear();

  const outcome = await change(
    stack,
    file,
    {
      yes,
      json,
      announcement: announce(before, digest, { ref, pin: was.pin, parallel }),
      back:
        ref === undefined
          ? `scripts/cluster rollback --stack ${stack}`
          : `scripts/cluster upgrade --ref ${was.ref} --stack ${stack}`,
    },
    progress,
  );
  if (outcome === "declined") return outcome;
  progress.show("asking the real servers what they run now");
  // A connection of its own: a deployment may take longer than the session's lives.
  await using fresh = await connect(stack, inventory);
  const after = await readVersions(inventory, fresh);
  progress.clear();
  console.log(
    json
      ? JSON.stringify({ release: digest, before, after }, undefined, 2)
      : `\n${renderVerdict(before, after, digest)}`,
  );
  if (outcome === "failed") return outcome;
  const one = new Set(after.map(({ commit }) => commit)).size === 1;
  return one && after.every(({ release }) => release === digest) ? "well" : "findings";
}

/** Changes the stack file to what is wanted. @returns what was there before. @throws with all that is wrong with it. */
export function aim(file: StackFile, ref: string | undefined) {
  const loaded = file.load();
  if (!loaded.ok) throw new Error(`${file.path}:\n${formatProblems(loaded.problems)}`);
  const { service, app } = loaded.config;
  if (ref !== undefined) {
    if (service.engine !== "cosyvoice")
      throw new Error(
        `--ref ${ref} is a version of the engine cosyvoice, and service.engine is ${service.engine}. ` +
          "Without --ref the speech app of this checkout is deployed; for another one, check it out.",
      );
    file.set(["app", "ref"], ref);
  }
  const pin = service.release;
  if (pin !== undefined) file.remove(["service", "release"]);
  return { was: { ref: app.ref, pin }, parallel: service.maxUnavailable };
}

/** What an upgrade does, machine by machine. Pure. */
export function announce(
  before: readonly NodeVersion[],
  digest: string,
  wanted: {
    readonly ref?: string | undefined;
    readonly pin?: string | undefined;
    /** Real servers that are out of the pool at the same time. */
    readonly parallel: number;
  },
): string {
  const stays = ({ release }: NodeVersion) => release === digest && wanted.ref === undefined;
  const rows = before.map((node) => [
    node.name,
    renderVersion(node),
    node.release === digest ? digest : pc.bold(digest),
    stays(node) ? "stays as it is" : "staged, then in its turn",
  ]);
  const words = [
    ...(wanted.ref === undefined ? [] : [`The engine changes to ${wanted.ref} of CosyVoice.`]),
    ...(wanted.pin === undefined ? [] : [`The pinned release ${wanted.pin} is unpinned.`]),
    ...(before.every(stays)
      ? []
      : [
          `At most ${wanted.parallel} of ${before.length} are out of the pool at a time.`,
          "One that does not come up goes back by itself, and the rest are left alone.",
        ]),
  ];
  const table = columns([["REAL SERVER", "RUNS", "WILL RUN", ""], ...rows]);
  return [...table, ...(words.length === 0 ? [] : ["", ...words])].join("\n");
}

/** What every real server ran, and runs. Pure. */
export function renderVerdict(
  before: readonly NodeVersion[],
  after: readonly NodeVersion[],
  digest: string,
): string {
  const rows = after.map((node) => {
    const old = before.find(({ name }) => name === node.name);
    const verdict = node.release === digest ? pc.green("as wanted") : pc.red("not as wanted");
    return [node.name, old ? renderVersion(old) : "none", renderVersion(node), verdict];
  });
  return columns([["REAL SERVER", "BEFORE", "NOW", ""], ...rows]).join("\n");
}
