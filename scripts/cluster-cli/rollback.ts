import { connect } from "./inventory";
import { deploy, lastLine, runPulumi } from "./pulumi";
import { chooseRelease, listReleases, type NodeReleases, readReleases } from "./releases";
import { agreed, type Outcome, type Session } from "./session";

/** Where the stack's config pins a release that is on the machines, instead of the one in `app/`. */
const PIN = "service.release";

/**
 * Goes back to a release that every real server still has: pins it in the stack's config and deploys. Nothing is
 * uploaded or built, so it takes the time of a restart for each real server.
 *
 * @param to a digest or its beginning. @default the release that was active before
 * @param yes go without asking.
 * @throws an Error when there is nothing to go back to.
 */
export async function rollback(
  session: Session,
  options: { readonly to?: string | undefined; readonly yes: boolean },
): Promise<Outcome> {
  const { stack } = session;
  const nodes = await ask(session);
  const { digest } = chooseRelease(nodes, options.to);
  const was = activeOn(nodes);
  if (was === digest && (await pinned(stack)) === digest) {
    console.log(`The release ${digest} is active on every real server already, and pinned.`);
    return "well";
  }
  console.log(`Active: ${was}. Going to ${digest}, which every real server has.`);
  if (!options.yes && !(await agreed("Deploy that?"))) return "declined";
  await config(stack, ["set", "--path", PIN, digest, "--type", "string"]);
  if (!(await deploy(stack))) {
    console.error(
      `\nThe deployment failed; its words are above. ${digest} stays pinned: pulumi up (or this command) tries again, ` +
        `${clearCommand(stack)} goes back to the release in app/.`,
    );
    return "failed";
  }
  console.log(`\nActive now: ${activeOn(await ask(session))} (before: ${was}).`);
  console.log(`It stays pinned, whatever is in app/. Forward again: ${clearCommand(stack)}`);
  return "well";
}

/** Takes the pin away and deploys the release that is in `app/`. */
export async function clearRollback(session: Session, yes: boolean): Promise<Outcome> {
  const { stack } = session;
  const pin = await pinned(stack);
  const was = activeOn(await ask(session));
  console.log(
    pin === undefined
      ? `No release is pinned. Active: ${was}. Deploying the one in app/.`
      : `Pinned: ${pin}. Active: ${was}. Taking the pin away and deploying the release in app/.`,
  );
  if (!yes && !(await agreed("Deploy that?"))) return "declined";
  if (pin !== undefined) await config(stack, ["rm", "--path", PIN]);
  if (!(await deploy(stack))) {
    console.error(
      "\nThe deployment failed; its words are above. No release is pinned now: pulumi up tries again.",
    );
    return "failed";
  }
  console.log(`\nActive now: ${activeOn(await ask(session))} (before: ${was}).`);
  return "well";
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

/** The pinned release; undefined without one. */
async function pinned(stack: string): Promise<string | undefined> {
  const { exitCode, stdout } = await runPulumi(stack, ["config", "get", "--path", PIN]);
  return exitCode === 0 ? stdout.trim() : undefined;
}

async function config(stack: string, args: readonly string[]): Promise<void> {
  const result = await runPulumi(stack, ["config", ...args]);
  if (result.exitCode !== 0) throw new Error(`pulumi config ${args.join(" ")}: ${lastLine(result)}`);
}
