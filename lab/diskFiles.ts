import { createHash } from "node:crypto";
import { type LabMachine, machines, network } from "./machines";

/** A file of the lab's data disk; paths are relative to its root, modes octal. */
export interface DiskFile {
  readonly path: string;
  readonly content: string;
  /** @default 0o644 */
  readonly mode?: number;
}

/** The key material that goes onto the data disk, as OpenSSH writes it. */
export interface DiskKeys {
  /** Public key that may log in as root, on the virtual machine and on every machine. */
  readonly login: string;
  /** Private host keys by machine name; the virtual machine's is `vm`. */
  readonly host: Readonly<Record<string, string>>;
}

/**
 * Everything that makes one lab's machines differ from the image: what the virtual machine reads at boot (`vm/`,
 * `units/`), and each machine's own layer over the shared root file system (`machines/NAME/upper`).
 */
export function diskFiles(keys: DiskKeys): DiskFile[] {
  return [
    { path: "fresh", content: "" },
    { path: "vm/authorized_keys", content: `${keys.login.trim()}\n` },
    { path: "vm/ssh_host_ed25519_key", content: hostKey(keys, "vm"), mode: 0o600 },
    { path: "vm/network", content: bridgeCommands() },
    { path: "vm/nftables", content: nftables() },
    ...machines.flatMap((machine) => machineFiles(machine, keys)),
  ];
}

/** Units to be started at boot, as links from `units/multi-user.target.wants/`. */
export function diskLinks(): { path: string; target: string }[] {
  return machines.map(({ name }) => ({
    path: `units/multi-user.target.wants/lab-machine@${name}.service`,
    target: "/etc/systemd/system/lab-machine@.service",
  }));
}

/** Directories that must be there, some of them empty; `/root` and its like with the modes that Debian gives them. */
export function diskDirectories(): { path: string; mode: number }[] {
  return machines.flatMap(({ name, ext4 = [] }) => [
    { path: `machines/${name}/upper/root`, mode: 0o700 },
    { path: `machines/${name}/upper/root/.ssh`, mode: 0o700 },
    ...ext4.map((directory) => ({ path: `machines/${name}/ext4/${directory}`, mode: 0o755 })),
  ]);
}

function machineFiles(machine: LabMachine, keys: DiskKeys): DiskFile[] {
  const { name, address, memory } = machine;
  const etc = `machines/${name}/upper/etc`;
  return [
    { path: `units/lab-machine@${name}.service.d/lab.conf`, content: `[Service]\nMemoryMax=${memory}M\n` },
    { path: `machines/${name}/address`, content: `${address}\n` },
    { path: `${etc}/hostname`, content: `${name}\n` },
    { path: `${etc}/hosts`, content: hosts() },
    { path: `${etc}/machine-id`, content: `${machineId(name)}\n`, mode: 0o444 },
    { path: `${etc}/network/interfaces`, content: interfaces(machine) },
    ...extraAddressFiles(machine),
    { path: `${etc}/ssh/ssh_host_ed25519_key`, content: hostKey(keys, name), mode: 0o600 },
    {
      path: `machines/${name}/upper/root/.ssh/authorized_keys`,
      content: `${keys.login.trim()}\n`,
      mode: 0o600,
    },
  ];
}

function interfaces({ address, extraAddresses = [] }: LabMachine): string {
  const extra = extraAddresses.length === 0 ? [] : ["    up ip -force -batch /etc/network/lab-addresses"];
  return lines([
    "auto lo",
    "iface lo inet loopback",
    "",
    "auto eth0",
    "iface eth0 inet static",
    `    address ${address}/${network.prefix}`,
    `    gateway ${network.gateway}`,
    ...extra,
  ]);
}

/** One run of `ip` for all of them: fifty would take seconds under emulation. */
function extraAddressFiles({ name, extraAddresses = [] }: LabMachine): DiskFile[] {
  if (extraAddresses.length === 0) return [];
  const content = lines(
    extraAddresses.map((address) => `address replace ${address}/${network.prefix} dev eth0`),
  );
  return [{ path: `machines/${name}/upper/etc/network/lab-addresses`, content }];
}

function hosts(): string {
  return lines(["127.0.0.1 localhost", "::1 localhost", ...machines.map((m) => `${m.address} ${m.name}`)]);
}

/** The same in every lab: nothing outside of it ever sees it. */
function machineId(name: string): string {
  return createHash("md5").update(`cosyvoice-lvs lab ${name}`).digest("hex");
}

/** For `ip -batch`. 10.0.2.15 is where QEMU's user-mode network forwards connections to. */
function bridgeCommands(): string {
  return lines([
    "link set lo up",
    "address add 10.0.2.15/24 dev eth0",
    "link set eth0 up",
    // Without spanning tree and snooping: a machine is heard at once, and VRRP's multicast by everyone.
    "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
    `address add ${network.gateway}/${network.prefix} dev br0`,
    "link set br0 up",
  ]);
}

function nftables(): string {
  return lines([
    "table inet lab {",
    "  chain prerouting {",
    "    type nat hook prerouting priority dstnat",
    ...[network.port, network.httpsPort].map(
      (port) => `    iifname "eth0" tcp dport ${port} dnat ip to ${network.vip}:${port}`,
    ),
    ...network.monitorPorts.map(
      (port) => `    iifname "eth0" tcp dport ${port} dnat ip to ${network.monitor}:${port}`,
    ),
    "  }",
    "  chain postrouting {",
    "    type nat hook postrouting priority srcnat",
    '    iifname "eth0" oifname "br0" masquerade',
    "  }",
    "  chain forward {",
    "    type filter hook forward priority filter",
    // Nothing leads out of the lab. Refused rather than dropped, so that nobody waits for it.
    '    iifname "br0" oifname "eth0" ct state new reject with icmpx admin-prohibited',
    "  }",
    "}",
  ]);
}

function hostKey(keys: DiskKeys, name: string): string {
  const key = keys.host[name];
  if (key === undefined) throw new Error(`No host key for ${name}: run scripts/lab destroy, then up.`);
  return key;
}

function lines(parts: readonly string[]): string {
  return `${parts.join("\n")}\n`;
}
