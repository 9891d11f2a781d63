import { change } from "./change";
import { connect } from "./inventory";
import { chooseRelease, listReleases, type NodeReleases, readReleases } from "./releases";
import type { Outcome, Session } from "./session";
import { StackFile } from "./stackFile";

/** Where the stack's config pins a release that is on the machines, instead of the one in `app/`. */
const PIN = ["service", "release"] as const;

/**
 * Goes back to a release that every real server still has: pins it in the stack file and deploys, after showing what that does.
 * Nothing is uploaded or built, so it takes the time of a restart for each real server.
 *
 * @param to a digest or its beginning. @default the release that was active before
 * @param yes go without asking.
 * @throws an Error when there is nothing to go back to, or the preview refuses it; nothing was changed then.
 */
export async function rollback(
  session: Session,
  options: { readonly to?: string | undefined; readonly yes: boolean },
): Promise<Outcome> {
  const { stack } = session;
  const file = await StackFile.open(stack);
  const nodes = await ask(session);
  const { digest } = chooseRelease(nodes, options.to);
  const was = activeOn(nodes);
  if (was === digest && file.get(PIN) === digest) {
    console.log(`The release ${digest} is active on every real server already, and pinned.`);
    return "well";
  }
  file.set(PIN, digest);
  const announcement = `Active: ${was}. Going to ${digest}, which every real server has.`;
  const outcome = await deploy(session, file, { announcement, was, yes: options.yes });
  if (outcome === "well")
    console.log(`It stays pinned, whatever is in app/. Forward again: ${clearCommand(stack)}`);
  return outcome;
}

/** Takes the pin away and deploys the release that is in `app/`. */
export async function clearRollback(session: Session, yes: boolean): Promise<Outcome> {
  const file = await StackFile.open(session.stack);
  const pin = file.get(PIN);
  const was = activeOn(await ask(session));
  if (pin !== undefined) file.remove(PIN);
  const announcement =
    pin === undefined
      ? `No release is pinned. Active: ${was}. Deploying the one in app/.`
      : `Pinned: ${pin}. Active: ${was}. Removing the pin and deploying the release in app/.`;
  return deploy(session, file, { announcement, was, yes });
}

/** Deploys the stack file, and says what is active then. */
async function deploy(
  session: Session,
  file: StackFile,
  { announcement, was, yes }: { readonly announcement: string; readonly was: string; readonly yes: boolean },
): Promise<Outcome> {
  const { stack, progress } = session;
  const wanted = { yes, json: false, announcement, back: clearCommand(stack) };
  const outcome = await change(stack, file, wanted, progress);
  if (outcome === "well") console.log(`\nActive now: ${activeOn(await ask(session))} (before: ${was}).`);
  return outcome;
}

function clearCommand(stack: string): string {
  return `scripts/cluster rollback --clear --stack ${stack}`;
}

async function ask({ stack, inventory, progress }: Session): Promise<NodeReleases[]> {
  progress.show("asking the real servers what they run");
  // A connection of its own: a deployment may take longer than the session's lives.
  await using ssh = await connect(stack, inventory);
  const nodes = await readReleases(inventory, ssh);
  progress.clear();
  return nodes;
}

/** The active release, in words: its digest, or who has which where they differ. */
function activeOn(nodes: readonly NodeReleases[]): string {
  const active = listReleases(nodes).filter((release) => release.activeOn.length > 0);
  if (active.length === 1 && active[0]?.activeOn.length === nodes.length) return active[0].digest;
  return active.map(({ digest, activeOn: names }) => `${digest} on ${names.join(", ")}`).join("; ") || "none";
}
