/** Which machines there are, where results lie, and whose ports are whose. */
import { type Path, pathText } from "./keys";
import { defaultStoragePath } from "./resolve";
import type { MachineRole } from "./schema";
import type { Draft, Report } from "./validate";
import { checkAws } from "./validateAws";

export function checkPlatform(draft: Draft, report: Report): void {
  const machineKeys = ["directors", "realServers", "storage"] as const;
  if (draft.platform === "aws") {
    if (draft.aws === undefined) {
      report(["aws"], "is missing, but the platform is aws", "write a section aws, as in Pulumi.prod.yaml");
    }
    for (const key of machineKeys) {
      if (draft[key] !== undefined) {
        report(
          [key],
          "is given, but the platform aws creates its machines itself",
          "remove it, or set platform to hosts",
        );
      }
    }
    checkAws(draft, report);
    return;
  }
  if (draft.platform !== "hosts") return;

  if (draft.aws !== undefined) {
    report(["aws"], "is given, but the platform is hosts", "remove it, or set platform to aws");
  }
  if (draft.directors === undefined) {
    report(["directors"], "is missing", "list the two directors, each with name, address and hostKey");
  } else if (draft.directors.length !== 2) {
    report(
      ["directors"],
      `has ${draft.directors.length} ${draft.directors.length === 1 ? "entry" : "entries"}, but must have two`,
      "list exactly two directors",
    );
  }
  if (draft.realServers === undefined) {
    report(["realServers"], "is missing", "list the real servers, each with name, address and hostKey");
  } else if (draft.realServers.length === 0) {
    report(["realServers"], "is empty: nobody would answer", "list at least one real server");
  }
  if (draft.storage === undefined) {
    report(
      ["storage"],
      "is missing",
      "name a storage machine (name, address, hostKey) or an existing export (export)",
    );
  }
}

interface FoundMachine {
  readonly path: Path;
  readonly role: MachineRole;
  readonly what: string;
  readonly name: string | undefined;
  readonly address: string | undefined;
  readonly hostKey: string | undefined;
  readonly sshPort: number | undefined;
}

/** Every machine that the file mentions, as far as it can be read. */
export function machinesIn(draft: Draft): FoundMachine[] {
  const machines: FoundMachine[] = [];
  type Raw = { name?: string | undefined; address?: string | undefined; hostKey?: string | undefined } & {
    ssh?: { port?: number | undefined } | undefined;
  };
  const add = (path: Path, role: FoundMachine["role"], raw: Raw | undefined) => {
    if (raw === undefined) return;
    const { name, address, hostKey } = raw;
    const what = name === undefined ? pathText(path) : `${name} (${pathText(path)})`;
    machines.push({ path, role, what, name, address, hostKey, sshPort: raw.ssh?.port ?? draft.ssh?.port });
  };
  for (const [index, raw] of (draft.directors ?? []).entries()) add(["directors", index], "director", raw);
  for (const [index, raw] of (draft.realServers ?? []).entries())
    add(["realServers", index], "realServer", raw);
  if (draft.storage?.export === undefined) add(["storage"], "storage", draft.storage);
  add(["verification", "client"], "client", draft.verification?.client);
  if (draft.monitoring?.enabled !== false) add(["monitoring"], "monitor", draft.monitoring);
  return machines;
}

export function checkMachines(draft: Draft, report: Report): void {
  const names = new Map<string, FoundMachine>();
  const addresses = new Map<string, FoundMachine>();
  for (const machine of machinesIn(draft)) {
    const { path, name, address } = machine;
    if (name !== undefined) {
      const first = names.get(name);
      if (first === undefined) names.set(name, machine);
      else
        report(
          [...path, "name"],
          `is the name of ${first.what} as well`,
          "give every machine a name of its own",
        );
    }
    if (address === undefined) continue;
    if (address === draft.vip) {
      report(
        [...path, "address"],
        "is the VIP, which belongs to no machine",
        "write the machine's own address, or move the VIP",
      );
    }
    const first = addresses.get(address);
    if (first === undefined) addresses.set(address, machine);
    else {
      report(
        [...path, "address"],
        `is the address of ${first.what} as well`,
        "give every machine its own address; one machine has one role",
      );
    }
  }

  const jumpHost = draft.ssh?.jumpHost?.address;
  if (jumpHost === undefined) return;
  const path = ["ssh", "jumpHost", "address"];
  const machine = addresses.get(jumpHost);
  if (jumpHost === draft.vip) {
    report(
      path,
      "is the VIP: which machine answers there can change",
      "jump through a machine that is not part of the cluster",
    );
  } else if (machine !== undefined) {
    report(
      path,
      `is ${machine.what}: while it is down, no machine could be reached`,
      "jump through a machine that is not part of the cluster",
    );
  }
}

export function checkHostKeys(draft: Draft, report: Report): void {
  if (draft.platform === "aws" || draft.ssh?.knownHostsFile !== undefined) return;
  if (draft.refused.has("ssh.knownHostsFile")) return;
  const fix =
    "write the public key from the machine's /etc/ssh/ssh_host_ed25519_key.pub, or set ssh.knownHostsFile to a file that has it";
  for (const { path, what, hostKey, name, address, role } of machinesIn(draft)) {
    // A section that is only half there is refused for that already.
    if ((role === "storage" || role === "monitor") && (name === undefined || address === undefined)) continue;
    if (hostKey === undefined)
      report([...path, "hostKey"], `is missing: nothing would tell ${what} from an impostor`, fix);
  }
  const jumpHost = draft.ssh?.jumpHost;
  if (jumpHost !== undefined && jumpHost.hostKey === undefined) {
    report(
      ["ssh", "jumpHost", "hostKey"],
      "is missing: nothing would tell the jump host from an impostor",
      fix,
    );
  }
}

export function checkStorage(draft: Draft, report: Report): void {
  const { storage } = draft;
  if (storage === undefined || draft.platform === "aws") return;
  if (storage.export !== undefined) {
    for (const key of ["name", "address", "hostKey", "ssh", "path"] as const) {
      if (storage[key] !== undefined) {
        report(
          ["storage", key],
          "is given together with export, but this program does not configure the machine behind an export",
          "keep either export or the keys of the machine",
        );
      }
    }
    if (draft.vip !== undefined && storage.export.startsWith(`${draft.vip}:`)) {
      report(
        ["storage", "export"],
        "is on the VIP, where only the service answers",
        "write the storage machine's own address",
      );
    }
    return;
  }
  for (const key of ["name", "address"] as const) {
    if (storage[key] === undefined && !draft.refused.has("storage.export")) {
      report(
        ["storage", key],
        "is missing",
        "name a storage machine (name and address), or set export to an existing export",
      );
    }
  }
  const path = storage.path ?? defaultStoragePath;
  const taken = [
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/boot",
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/root",
    "/tmp",
  ];
  const over = taken.find((prefix) => path.startsWith(`${prefix}/`));
  if (over !== undefined) {
    report(
      ["storage", "path"],
      `lies in ${over}, which belongs to the system`,
      `write a path such as ${defaultStoragePath}`,
    );
  }
}

export function checkPorts(draft: Draft, report: Report): void {
  const { port } = draft;
  if (port === undefined) return;
  const clash = machinesIn(draft).find(
    ({ role, sshPort }) => (role === "director" || role === "realServer") && sshPort === port,
  );
  if (clash !== undefined) {
    report(
      ["port"],
      `is the port of SSH on ${clash.what}`,
      "give the service a port of its own, such as 7860",
    );
  }
  const taken: Readonly<Record<number, string>> = {
    111: "of rpcbind",
    2049: "of NFS",
    7861: "on which the directors give out turns",
  };
  const owner = taken[port];
  if (owner !== undefined) {
    report(["port"], `is the port ${owner}`, "give the service a port of its own, such as 7860");
  }
  for (const { path, role, sshPort } of machinesIn(draft)) {
    if (role === "storage" && sshPort === 2049) {
      const ownPort = draft.storage?.ssh?.port !== undefined;
      report(
        ownPort ? [...path, "ssh", "port"] : ["ssh", "port"],
        "is the port of NFS on the storage machine",
        "let SSH listen on another port there",
      );
    }
  }
}
