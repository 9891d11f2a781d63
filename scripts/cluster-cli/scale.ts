import pc from "picocolors";
import { formatProblems } from "../../config/load";
import { type ClusterConfig, peersOn } from "../../config/schema";
import { change } from "./change";
import { connect, readInventory } from "./inventory";
import { shareThatMoves } from "./mh";
import type { Outcome, Session } from "./session";
import { StackFile } from "./stackFile";
import { clusterStatus } from "./status";
import { columns, realServerRows } from "./table";

export interface ScaleOptions {
  /** How many real servers there shall be. */
  readonly count: number;
  /** Machines that come, on hosts: `name=address`, and its SSH host key after a blank where it is not in known_hosts. */
  readonly add: readonly string[];
  /** Names of those that go, on hosts. @default the last ones in the list */
  readonly remove: readonly string[];
  /** Go without asking. */
  readonly yes: boolean;
  /** Print the real servers for a program, and nothing else to standard output. */
  readonly json: boolean;
}

/**
 * Changes the number of real servers: a count on aws, machines of a list on hosts. Shows before who comes, who goes and how many
 * clients meet another one, and deploys.
 *
 * @throws an Error when the numbers do not fit, nobody who serves would stay, or the preview refuses the change; nothing was
 *   changed then.
 */
export async function scale(
  { stack, inventory, ssh, progress }: Session,
  options: ScaleOptions,
): Promise<Outcome> {
  const file = await StackFile.open(stack);
  const before = sound(file);
  resize(file, before, options);
  const after = sound(file);
  const goes = before.realServers.filter(({ name }) =>
    after.realServers.every((other) => other.name !== name),
  );
  if (goes.length > 0) {
    progress.show("asking who serves");
    const serving = (await clusterStatus(inventory, ssh)).realServers.filter(
      ({ pool }) => pool === "serving",
    );
    if (serving.length > 0 && serving.every(({ name }) => goes.some((other) => other.name === name)))
      throw new Error(
        `Not scaled: ${serving.map(({ name }) => name).join(", ")} would be removed, and none of the others serves (scripts/cluster status).`,
      );
  }
  progress.clear();
  const outcome = await change(
    stack,
    file,
    {
      yes: options.yes,
      json: options.json,
      announcement: announce(before, after),
      back: `scripts/cluster scale ${before.realServers.length} --stack ${stack}`,
    },
    progress,
  );
  if (outcome !== "well") return outcome;
  progress.show("asking who serves now");
  const now = await readInventory(stack);
  await using fresh = await connect(stack, now);
  const { realServers } = await clusterStatus(now, fresh);
  progress.clear();
  const serving = realServers.filter(({ pool }) => pool === "serving").length;
  console.log(
    options.json
      ? JSON.stringify({ realServers }, undefined, 2)
      : `\n${columns(realServerRows(realServers)).join("\n")}\n\n${serving} of ${realServers.length} real servers serve.`,
  );
  return serving === realServers.length ? "well" : "findings";
}

/** The configuration that a stack file has. @throws with all that is wrong with it. */
function sound(file: StackFile): ClusterConfig {
  const loaded = file.load();
  if (loaded.ok) return loaded.config;
  throw new Error(`Not scaled:\n${formatProblems(loaded.problems)}`);
}

/** Changes the stack file to the wanted number. @throws when the machines for that are not named. */
export function resize(
  file: StackFile,
  { platform, realServers }: Pick<ClusterConfig, "platform" | "realServers">,
  { count, add, remove }: Omit<ScaleOptions, "yes" | "json">,
): void {
  if (platform === "aws") {
    if (add.length > 0 || remove.length > 0)
      throw new Error(
        "On aws the program creates the machines and removes the last ones first: leave --add and --remove out.",
      );
    file.set(["aws", "realServers", "count"], count);
    return;
  }
  const have = realServers.map(({ name }) => name);
  const unknown = remove.filter((name) => !have.includes(name));
  if (unknown.length > 0)
    throw new Error(`There is no real server ${unknown.join(", ")}. There are: ${have.join(", ")}.`);
  const coming = add.map(newcomer);
  const surplus = have.length - remove.length + coming.length - count;
  if (surplus < 0)
    throw new Error(
      `${count} real servers are wanted, and there ${have.length === 1 ? "is" : "are"} ${have.length}: name ${-surplus === 1 ? "the one that comes" : `the ${-surplus} that come`}, each with ` +
        `--add NAME=ADDRESS (where the others have a hostKey: --add "NAME=ADDRESS ssh-ed25519 AAAA...", from its /etc/ssh/ssh_host_ed25519_key.pub).`,
    );
  if (surplus > 0 && (remove.length > 0 || coming.length > 0))
    throw new Error(
      `${have.length} real servers, ${remove.length} fewer and ${coming.length} more, are ${count + surplus} and not ${count}.`,
    );
  const going = new Set([...remove, ...have.slice(have.length - surplus)]);
  // From the end, so that the places of the others stay.
  for (const [index, name] of [...have.entries()].reverse())
    if (going.has(name)) file.remove(["realServers", index]);
  for (const machine of coming) file.add(["realServers"], machine);
}

function newcomer(text: string): { name: string; address: string; hostKey?: string } {
  const [, name, address, hostKey] = /^([^=\s]+)=(\S+)(?:\s+(\S.*))?$/.exec(text) ?? [];
  if (name === undefined || address === undefined)
    throw new Error(`--add "${text}" is not NAME=ADDRESS, such as --add rs-4=192.168.1.104.`);
  return { name, address, ...(hostKey === undefined ? {} : { hostKey: hostKey.trim() }) };
}

/** Who comes, who goes, and what clients notice. Pure. */
export function announce(before: ClusterConfig, after: ClusterConfig): string {
  const names = ({ realServers }: ClusterConfig) => realServers.map(({ name }) => name);
  const list = (some: readonly string[]) => (some.length === 0 ? "nobody" : some.join(", "));
  const goes = names(before).filter((name) => !names(after).includes(name));
  return [
    `Real servers: ${names(before).length} now, ${pc.bold(String(names(after).length))} then.`,
    `  come: ${list(names(after).filter((name) => !names(before).includes(name)))}`,
    `  go:   ${list(goes)}${goes.length === 0 ? "" : " (drained first: what they have is finished)"}`,
    `  ${clients(before, after)}`,
  ].join("\n");
}

function clients(before: ClusterConfig, after: ClusterConfig): string {
  const { scheduler } = after.loadBalancer;
  if (scheduler !== "mh")
    return `clients: the scheduler ${scheduler} spreads new connections over all real servers that serve then.`;
  // IPVS puts each one that is added before the others.
  const inKernel = ({ realServers, port }: ClusterConfig) =>
    realServers.map(({ address, weight }) => ({ address, port, weight })).reverse();
  const moved = shareThatMoves(inKernel(before), inKernel(after));
  const how = peersOn(after)
    ? "requests of their sessions are forwarded to the real server that has the session"
    : "without peerKey a session on the page is lost";
  return `clients: new connections of ${(100 * moved).toFixed(0)} % go to another real server; ${how}.`;
}
