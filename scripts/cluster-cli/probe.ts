import * as z from "zod";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory, InventoryMachine } from "./inventory";
import { runProgram } from "./run";

const reportSchema = z.object({
  vip: z.string().nullable(),
  scheduler: z.string().nullable(),
  ipvs: z
    .array(
      z.object({
        address: z.string(),
        port: z.number(),
        forwarding: z.string(),
        weight: z.number(),
        active: z.number(),
        inactive: z.number(),
      }),
    )
    .nullable(),
  units: z.record(z.string(), z.string()),
  ready: z.union([z.literal(true), z.string()]).nullable(),
  queue: z.object({ waiting: z.number(), running: z.number() }).nullable(),
  share: z.string().nullable(),
  drain: z.object({ reason: z.string(), since: z.number() }).nullable(),
  releases: z
    .object({
      current: z.string().nullable(),
      previous: z.string().nullable(),
      staged: z.array(z.object({ digest: z.string(), complete: z.boolean(), since: z.number() })),
    })
    .nullable(),
  engine: z.object({ name: z.string(), commit: z.string().nullable() }).nullable(),
  gpus: z
    .array(
      z.object({
        name: z.string(),
        utilization: z.number().nullable(),
        used: z.number().nullable(),
        total: z.number().nullable(),
        temperature: z.number().nullable(),
      }),
    )
    .nullable(),
  certificate: z.number().nullable(),
  outputs: z.string().nullable(),
  layers: z.record(z.string(), z.string().nullable()),
});

/** What `host/probe.py` says of a machine. */
export type MachineReport = z.infer<typeof reportSchema>;

/** Asks a machine how it is. @throws UnreachableError when it cannot be logged in to. */
export async function probe(
  { vip, port, servicePort = port }: Inventory,
  machine: InventoryMachine,
  ssh: OpenSsh,
): Promise<MachineReport> {
  return reportSchema.parse(JSON.parse(await runProgram(machine, ssh, "probe.py", [vip, port, servicePort])));
}
