import { repository } from "../lib/paths";
import { nameOf } from "../lib/urn";
import { advice, describe, fileBackend, judge, lift, readLocks } from "../toolchain/locks";
import { backendUrl, lastLine, projectOf, runPulumi } from "./pulumi";
import { exportState, importState, type PendingOperation, type State } from "./state";

/** What became of the locks. */
export type UnlockOutcome = "unlocked" | "refused";

/**
 * Lifts the locks that killed `pulumi`s left on a stack, and repairs what they left half said in its state, so that
 * the next `up` finishes what was begun. A lock whose holder lives is never lifted.
 *
 * @param force lift also those whose holder cannot be seen from here; the user has looked.
 * @param say gets a line at a time.
 */
export async function unlock(
  stack: string,
  force: boolean,
  say: (line: string) => void,
): Promise<UnlockOutcome> {
  const url = await backendUrl(stack);
  const backend = fileBackend(url, repository);
  let locked = true;
  if (backend === undefined) {
    if (!force) {
      say(`The state of "${stack}" is kept at ${url}, whose locks cannot be read from here.`);
      say("pulumi names the holder when it refuses to run. Make sure that nobody is deploying, then run:");
      say(`  scripts/cluster unlock --stack ${stack} --force     (it runs pulumi cancel)`);
      return "refused";
    }
    const cancelled = await runPulumi(stack, ["cancel", "--yes"]);
    if (cancelled.exitCode !== 0) throw new Error(`pulumi cancel: ${lastLine(cancelled)}`);
    say(`pulumi cancel has lifted the lock at ${url}.`);
  } else {
    const locks = await readLocks(backend, projectOf(), stack);
    const judged = locks.map((lock) => [lock, judge(lock)] as const);
    locked = judged.length > 0;
    const kept = judged.filter(([, { state }]) => state === "alive" || (state === "unknown" && !force));
    for (const entry of judged) {
      const [lock, verdict] = entry;
      if (!kept.includes(entry)) await lift(lock);
      say(`${kept.includes(entry) ? "Kept" : "Lifted"}: ${describe(lock, verdict)}`);
    }
    if (kept.length > 0) {
      for (const line of advice(stack, kept)) say(line);
      return "refused";
    }
  }
  const state = await exportState(stack);
  // Not before: nobody has a lock on a stack that does not exist, either.
  if (!locked) say(`The stack "${stack}" is not locked.`);
  await repair(stack, state, say);
  return "unlocked";
}

/** Settles a stack's pending operations, if it has any. */
async function repair(stack: string, state: State, say: (line: string) => void): Promise<void> {
  const pending = state.deployment.pending_operations ?? [];
  if (pending.length === 0) return;
  say("What was under way when it was killed:");
  for (const { resource, type } of pending) say(`  ${nameOf(resource.urn)}, ${type}`);
  const foreign = pending.filter(({ resource }) => !isCommand(resource.type));
  if (foreign.length > 0) {
    const names = foreign.map(({ resource }) => nameOf(resource.urn)).join(", ");
    say(`Not settled, because pulumi may not know that it exists: ${names}.`);
    say(`Look whether it exists, then run pulumi refresh --stack ${stack}, which asks about each.`);
    return;
  }
  await importState(stack, settled(state, pending));
  say("The next pulumi up does it again, however far it had got.");
}

/** A key in a resource's `environment` that no program of ours reads; it makes the next `up` run the command again. */
const MARK = "COSYVOICE_LVS_INTERRUPTED";

/** The key by which pulumi tells a secret value in the state from a map. */
const SECRET = "4dabf18193072939515e22adb298388d";

/** The resources of the plugin `command`. Ours may run any number of times. */
function isCommand(type = ""): boolean {
  return type.startsWith("command:");
}

/**
 * The state after its pending operations were settled. Pure.
 *
 * - *creating*: not in the state, so the next `up` makes it. It only has to be taken from the list, where it would stay
 *   for ever with a warning that asks for things that do not apply here.
 * - *updating*, *deleting*: the state tells what was there before, the machine may have the new already. If the change
 *   is taken back now, the two texts agree and pulumi would leave the machine alone. So the state's differs from any.
 */
export function settled(state: State, pending: readonly PendingOperation[]): State {
  const touched = new Set(
    pending.filter(({ type }) => type !== "creating").map(({ resource }) => resource.urn),
  );
  const mark = (properties: Readonly<Record<string, unknown>> = {}) => {
    const { environment } = properties;
    const isMap = typeof environment === "object" && environment !== null && !(SECRET in environment);
    const own = isMap ? environment : {};
    return { ...properties, environment: { ...own, [MARK]: "yes" } };
  };
  const resources = (state.deployment.resources ?? []).map((resource) =>
    touched.has(resource.urn) && isCommand(resource.type)
      ? { ...resource, inputs: mark(resource.inputs), outputs: mark(resource.outputs) }
      : resource,
  );
  return { ...state, deployment: { ...state.deployment, resources, pending_operations: [] } };
}
