import { createReadStream } from "node:fs";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { execa } from "execa";
import * as z from "zod";
import type { OpenSsh } from "../../components/remote/openssh";
import { utc } from "../lib/time";
import { type Manifest, PARTS, unpack } from "./archive";
import { onTheShare, SHARE_LIMIT } from "./backup";
import { connect, type Inventory, type InventoryMachine, readInventory } from "./inventory";
import type { ProgressLine } from "./progress";
import { programWithInput, runProgram } from "./run";
import { agreed, namingStack, type Outcome } from "./session";
import { stackFilePath } from "./stackFile";
import { exportState, importStateText, type State } from "./state";
import { columns } from "./table";

/** A part that can be put back. */
export type Part = keyof typeof PARTS;

export interface RestoreOptions {
  /** Only these. @default all that the archive has */
  readonly only?: readonly Part[] | undefined;
  /** Only say what would be overwritten. */
  readonly check: boolean;
  /** Go without asking. */
  readonly yes: boolean;
  /** Print what would be overwritten for a program, and nothing else to standard output. */
  readonly json: boolean;
}

/** What putting a part back would do. */
export interface PartPlan {
  readonly part: Part;
  /** In words: what is there now. */
  readonly now: string;
  /** In words: what would become of it. */
  readonly after: string;
  readonly changes: boolean;
}

/**
 * Puts back what `scripts/cluster backup` has packed, after comparing every file with the archive's manifest, saying what would be
 * overwritten, and asking.
 *
 * @returns `findings` when it only checked, and something differs.
 * @throws when the archive is not whole, or is another stack's.
 */
export async function restore(
  stack: string,
  archive: string,
  { only, check, yes, json }: RestoreOptions,
  progress: ProgressLine,
): Promise<Outcome> {
  const directory = await mkdtemp(join(tmpdir(), "cosyvoice-lvs-restore-"));
  try {
    progress.show("comparing the archive with its manifest");
    const manifest = await unpack(archive, directory);
    if (manifest.stack !== stack)
      throw new Error(
        `${archive} is a backup of the stack "${manifest.stack}", and not of "${stack}": give --stack ${manifest.stack}.`,
      );
    const parts = partsOf(manifest, only);
    const plans: PartPlan[] = [];
    if (parts.includes("config")) plans.push(await planConfig(stack, directory));
    if (parts.includes("state")) plans.push(await planState(stack, directory, progress));
    const share = parts.includes("share") ? await Share.open(stack, directory, progress) : undefined;
    try {
      if (share) plans.push(await share.plan(manifest, progress));
      progress.clear();
      const say = json ? console.error : console.log;
      console.log(
        json
          ? JSON.stringify({ made: manifest.made, parts: plans }, undefined, 2)
          : `${archive}: whole, made ${utc(Date.parse(manifest.made))}.\n\n${renderPlans(plans)}`,
      );
      const changes = plans.filter((plan) => plan.changes).map(({ part }) => part);
      if (changes.length === 0) say("\nAll of it is as it was: nothing is to be done.");
      if (changes.length === 0) return "well";
      if (check) return "findings";
      if (!yes && !(await agreed("\nOverwrite that?"))) {
        say("Nothing was changed.");
        return "declined";
      }
      if (changes.includes("config")) await copyFile(join(directory, PARTS.config), stackFilePath(stack));
      if (changes.includes("state"))
        await importStateText(stack, await readFile(join(directory, PARTS.state), "utf8"));
      if (share && changes.includes("share")) await share.put(progress);
      progress.clear();
      say(
        namingStack(
          `Put back: ${changes.join(", ")}. What the machines are like: scripts/cluster doctor`,
          stack,
        ),
      );
      return "well";
    } finally {
      await share?.close();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What of an archive is to be put back. @throws when it does not have a part. Pure. */
export function partsOf(
  { share }: Pick<Manifest, "share">,
  only: readonly Part[] | undefined,
): readonly Part[] {
  const has: Part[] = ["config", "state", ...(share === null ? [] : (["share"] as const))];
  const lacking = (only ?? []).filter((part) => !has.includes(part));
  if (lacking.length > 0)
    throw new Error(`The archive has no ${lacking.join(", ")}. It has: ${has.join(", ")}.`);
  return only ?? has;
}

async function planConfig(stack: string, directory: string): Promise<PartPlan> {
  const path = stackFilePath(stack);
  const then = await readFile(join(directory, PARTS.config), "utf8");
  const now = await readFile(path, "utf8").catch(() => undefined);
  return {
    part: "config",
    now: now === undefined ? `no ${path}` : path,
    after: now === undefined ? "written" : now === then ? "the same" : "overwritten",
    changes: now !== then,
  };
}

async function planState(stack: string, directory: string, progress: ProgressLine): Promise<PartPlan> {
  progress.show("exporting the state that is there");
  const then = JSON.parse(await readFile(join(directory, PARTS.state), "utf8")) as State;
  const now = await exportState(stack).catch((error: Error) => {
    throw new Error(
      `The state of "${stack}" cannot be compared (${error.message}). If the stack is gone, run pulumi stack init ${stack} with its old passphrase.`,
    );
  });
  return { part: "state", ...compareStates(now, then) };
}

/** What the state is and would be, in words. Pure. */
export function compareStates(now: State, then: State): Omit<PartPlan, "part"> {
  const words = (state: State) => {
    const { resources = [], manifest } = state.deployment;
    const when = manifest?.time ? `, of ${utc(Date.parse(manifest.time))}` : "";
    return `${resources.length} resource${resources.length === 1 ? "" : "s"}${when}`;
  };
  const same = isDeepStrictEqual(readable(now), readable(then));
  return {
    now: words(now),
    after: same ? "the same" : `overwritten by ${words(then)}`,
    changes: !same,
  };
}

/** The resources without what is encrypted, which is another text each time; a resource that changes has another time, too. */
function readable({ deployment }: State): unknown {
  const text = JSON.stringify(deployment.resources ?? []);
  return JSON.parse(text, (key, value) => (key === "ciphertext" ? "" : value));
}

/** The plans for people. */
export function renderPlans(plans: readonly PartPlan[]): string {
  return columns([["PART", "NOW", "AFTER"], ...plans.map(({ part, now, after }) => [part, now, after])]).join(
    "\n",
  );
}

/** The share of the cluster, through one of its real servers. */
class Share {
  private fresh: readonly string[] = [];

  private constructor(
    private readonly directory: string,
    private readonly ssh: OpenSsh,
    private readonly machine: InventoryMachine,
  ) {}

  static async open(stack: string, directory: string, progress: ProgressLine): Promise<Share> {
    const inventory: Inventory = await readInventory(stack);
    const ssh = await connect(stack, inventory);
    try {
      return new Share(join(directory, PARTS.share), ssh, await onTheShare(inventory, ssh, progress));
    } catch (error) {
      await ssh[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Compares the archive's files with the share's. What only the share has stays. */
  async plan({ files, share }: Manifest, progress: ProgressLine): Promise<PartPlan> {
    progress.show(`reading the share through ${this.machine.name}`);
    const args = ["list", share ?? "voices"];
    const said = await runProgram(this.machine, this.ssh, "share.py", args, { timeout: SHARE_LIMIT });
    const there = z.record(z.string(), z.string()).parse(JSON.parse(said));
    const packed = Object.entries(files)
      .filter(([path]) => path.startsWith(`${PARTS.share}/`))
      .map(([path, hash]) => [path.slice(PARTS.share.length + 1), hash] as const);
    const { missing, other, text } = compareFiles(there, packed);
    this.fresh = [...missing, ...other];
    return {
      part: "share",
      now: `${Object.keys(there).length} files`,
      after: text,
      changes: this.fresh.length > 0,
    };
  }

  /** Puts the files that differ onto the share. */
  async put(progress: ProgressLine): Promise<void> {
    progress.show(`writing to the share through ${this.machine.name}`);
    const tar = `${this.directory}.tar`;
    const list = ["--create", "--file", tar, "--directory", this.directory, "--null", "--files-from=-"];
    await execa("tar", list, { input: this.fresh.map((path) => `${path}\0`).join("") });
    const { command, text } = programWithInput(this.machine, "share.py", ["restore"]);
    async function* input() {
      yield text;
      yield* createReadStream(tar) as AsyncIterable<Uint8Array>;
    }
    const { exitCode, stderr } = await this.ssh.run(this.machine.name, command, {
      input: input(),
      timeout: SHARE_LIMIT,
    });
    if (exitCode !== 0) throw new Error(`${this.machine.name}: ${stderr.trim().split("\n").at(-1)}`);
  }

  async close(): Promise<void> {
    await this.ssh[Symbol.asyncDispose]();
  }
}

/** What of the packed files the share does not have, or has with another content. Pure. */
export function compareFiles(
  there: Readonly<Record<string, string>>,
  packed: readonly (readonly [path: string, hash: string])[],
): { readonly missing: string[]; readonly other: string[]; readonly text: string } {
  const missing = packed.filter(([path]) => !(path in there)).map(([path]) => path);
  const other = packed.filter(([path, hash]) => path in there && there[path] !== hash).map(([path]) => path);
  const same = packed.length - missing.length - other.length;
  return {
    missing,
    other,
    text: `${missing.length} come back, ${other.length} overwritten, ${same} the same`,
  };
}
