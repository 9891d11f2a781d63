import * as z from "zod";
import { type OpenSsh, UnreachableError } from "../../components/remote/openssh";
import { paths } from "../../render/paths";
import type { Finding } from "./doctor";
import type { Inventory, InventoryMachine } from "./inventory";
import { programWithInput } from "./run";

/** Seconds for one director: what it finds it looks at again for half a minute, since a move may be under way. */
const LIMIT = 90;

const answerSchema = z.object({
  findings: z.array(z.object({ address: z.string().nullable(), what: z.string(), fix: z.string() })),
});

/** What the check of `host/vip-mover.py` is to look at: whose packets AWS must pass on whatever their addresses are. */
export function expectedOfAws({ unchecked, machines }: Inventory) {
  const directors = machines.filter(({ role }) => role === "director").map(({ address }) => address);
  // An older version left no list: of these it is certain.
  return { unchecked: unchecked ?? directors };
}

/**
 * Asks AWS, from each of these directors, where it leads the VIP and whose source and destination it checks.
 *
 * @returns what is wrong, once, whoever was told of it; a director that cannot ask is a finding too.
 */
export async function askAws(
  inventory: Inventory,
  directors: readonly InventoryMachine[],
  ssh: Pick<OpenSsh, "run">,
): Promise<Finding[]> {
  const answers = await Promise.all(directors.map((director) => askFrom(director, inventory, ssh)));
  const found = new Map(answers.flat().map((finding) => [`${finding.machine}: ${finding.what}`, finding]));
  return [...found.values()];
}

async function askFrom(
  director: InventoryMachine,
  inventory: Inventory,
  ssh: Pick<OpenSsh, "run">,
): Promise<Finding[]> {
  const { name } = director;
  const unasked = (reason: string, fix: string): Finding[] => [
    {
      machine: name,
      what: `it cannot ask AWS where the VIP's routes lead and which packets AWS checks: ${reason}`,
      fix,
    },
  ];
  const journal = `scripts/cluster ssh ${name} -- journalctl -u cosyvoice-vip-mover; it needs its instance profile with the rights of its role (pulumi up), and access to the EC2 API`;
  const expected = { ...expectedOfAws(inventory), port: inventory.servicePort ?? inventory.port };
  const { command, text } = programWithInput(director, "vip-mover.py", ["check", paths.vipMoverConfig]);
  try {
    const input = `${text}${JSON.stringify(expected)}`;
    const { stdout, stderr } = await ssh.run(name, command, { input, timeout: LIMIT });
    const said = parse(stdout);
    if (said === undefined) return unasked(stderr.trim().split("\n").at(-1) || "it said nothing", journal);
    return said.findings.map(({ address, what, fix }) => ({
      machine: inventory.machines.find((machine) => machine.address === address)?.name ?? null,
      what,
      fix,
    }));
  } catch (error) {
    if (error instanceof UnreachableError) return unasked(error.reason, error.fix);
    return unasked((error as Error).message, journal);
  }
}

/** What the check has printed; undefined when it did not come that far. */
function parse(stdout: string): z.infer<typeof answerSchema> | undefined {
  try {
    return answerSchema.parse(JSON.parse(stdout));
  } catch {
    return undefined;
  }
}
