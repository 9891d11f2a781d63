import * as z from "zod";
import { OpenSsh } from "../../components/remote/openssh";
import { stackName as LAB } from "../../lab/stack";
import { hintOf, lastLine, runPulumi } from "./pulumi";

const endpoint = z.object({
  address: z.string(),
  port: z.number(),
  user: z.string(),
  hostKey: z.string(),
});

const inventorySchema = z.object({
  /** Not in the state of stacks that were deployed before there were two. */
  platform: z.enum(["hosts", "aws"]).default("hosts"),
  vip: z.string(),
  port: z.number(),
  /** Port of the virtual service by which a real server counts as in the pool; absent where an older version deployed. */
  servicePort: z.number().optional(),
  /** How it is asked by HTTPS, where that is on. */
  https: z
    .object({
      serverName: z.string(),
      port: z.number(),
      /** What must be shown, followed by its issuers'; in PEM. */
      certificate: z.string(),
      /** By which one is let in, where keys are asked for. */
      apiKey: z.string().optional(),
    })
    .optional(),
  /** Where the machine that watches has Alertmanager; absent without one. */
  alertmanagerPort: z.number().optional(),
  /**
   * Addresses of the machines whose packets AWS must not check for their source and destination. Absent elsewhere, and where an
   * older version deployed.
   */
  unchecked: z.array(z.string()).optional(),
  ssh: z.object({
    privateKeyFile: z.string().optional(),
    /** Made by the platform aws. */
    privateKey: z.string().optional(),
    connectTimeout: z.number(),
    jumpHost: endpoint.optional(),
  }),
  machines: z.array(
    endpoint.extend({
      name: z.string(),
      role: z.enum(["director", "realServer", "storage", "client", "monitor"]),
      /** TCP ports for others, besides SSH; absent in a state that an older version left. */
      listens: z.array(z.number()).default([]),
    }),
  ),
});

/** A stack's machines and how to reach them: its output `inventory`. */
export type Inventory = z.infer<typeof inventorySchema>;
export type InventoryMachine = Inventory["machines"][number];

/**
 * Reads a stack's inventory from its state.
 *
 * @throws when there is no such stack, or nothing was deployed yet.
 */
export async function readInventory(stack: string): Promise<Inventory> {
  const result = await runPulumi(stack, ["stack", "output", "inventory", "--json", "--show-secrets"]);
  if (result.exitCode !== 0) {
    const hint = hintOf(result.stderr);
    if (hint !== undefined) throw new Error(hint);
    throw new Error(
      `Stack "${stack}" has no inventory: ${lastLine(result)}. Deploy it first: ${stack === LAB ? "scripts/lab up" : `pulumi up --stack ${stack}`}.`,
    );
  }
  return parseInventory(result.stdout, stack);
}

/** @param text the output as JSON @throws with what to do when another version of this repository wrote it. */
export function parseInventory(text: string, stack: string): Inventory {
  const { data, error } = inventorySchema.safeParse(JSON.parse(text));
  if (error === undefined) return data;
  const paths = error.issues.map(({ path }) => path.join(".") || "all of it");
  throw new Error(
    `The state of "${stack}" does not have all facts about its machines that are needed here (${paths.join(", ")}): ` +
      `another version deployed it. Check out that version, or deploy this one: scripts/preview --stack ${stack}, then pulumi up.`,
  );
}

/** A way to run commands on the stack's machines. Dispose of it after use. */
export async function connect(stack: string, inventory: Inventory): Promise<OpenSsh> {
  const { ssh, machines } = inventory;
  return OpenSsh.open({
    machines,
    jumpHost: ssh.jumpHost,
    privateKeyFile: ssh.privateKeyFile,
    ...(ssh.privateKeyFile === undefined ? await secretKey(stack, ssh.privateKey) : {}),
    connectTimeout: ssh.connectTimeout,
  });
}

/** The key from the stack's secrets, where it is not a file; without either, the agent's keys are used. */
async function secretKey(stack: string, made: string | undefined): Promise<{ privateKey?: string }> {
  if (made !== undefined) return { privateKey: made };
  const { exitCode, stdout } = await runPulumi(stack, ["config", "get", "sshPrivateKey"]);
  return exitCode === 0 ? { privateKey: stdout } : {};
}
