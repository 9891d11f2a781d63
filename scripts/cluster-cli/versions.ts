import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory } from "./inventory";
import type { MachineReport } from "./probe";
import { askAll, reportOf } from "./status";

/** What a real server runs; undefined when it could not be asked, or never had any. */
export interface NodeVersion {
  readonly name: string;
  /** Digest of the speech app's release. */
  readonly release: string | undefined;
  /** Of the engine cosyvoice: upstream's commit. */
  readonly commit: string | undefined;
}

/** Asks every real server what it runs. */
export async function readVersions(inventory: Inventory, ssh: OpenSsh): Promise<NodeVersion[]> {
  const machines = inventory.machines.filter(({ role }) => role === "realServer");
  const answers = await askAll(inventory, machines, ssh);
  return machines.map((machine) => ({ name: machine.name, ...versionOf(reportOf(answers, machine)) }));
}

/** What a real server runs, by its report. Pure. */
function versionOf(report: MachineReport | undefined): Omit<NodeVersion, "name"> {
  return {
    release: report?.releases?.current ?? undefined,
    commit: report?.engine?.commit ?? undefined,
  };
}

/** A version for people. */
export function renderVersion({ release, commit }: Omit<NodeVersion, "name">): string {
  return [release ?? "none", ...(commit === undefined ? [] : [`CosyVoice ${commit.slice(0, 12)}`])].join(
    ", ",
  );
}
