import type { Inventory, InventoryMachine } from "../../scripts/cluster-cli/inventory";

/** A machine of an inventory, on which nothing is to listen. */
export function machine(name: string, role: InventoryMachine["role"], address: string): InventoryMachine {
  return { name, role, address, port: 22, user: "root", hostKey: "ssh-ed25519 AAAA", listens: [] };
}

/** Two directors and two real servers. */
export const inventory: Inventory = {
  platform: "hosts",
  vip: "10.0.0.100",
  port: 7860,
  ssh: { connectTimeout: 10 },
  machines: [
    machine("director-1", "director", "10.0.0.11"),
    machine("director-2", "director", "10.0.0.12"),
    machine("rs-1", "realServer", "10.0.0.1"),
    machine("rs-2", "realServer", "10.0.0.2"),
  ],
};
