/** Fills in what follows from other values, so that nobody further down has to know a default. */
import { expandAddresses } from "./addresses";
import type {
  AwsConfig,
  ClusterConfig,
  DirectorConfig,
  MachineConfig,
  MachineRole,
  MonitoringConfig,
  ParsedConfig,
  SecretKey,
  StorageExportConfig,
  StorageMachineConfig,
} from "./schema";

/** Priority of a director that is given none, by its place in the list. */
export const defaultPriorities: readonly number[] = [100, 90];

/** Where the share lies on the storage machine when nothing is said. */
export const defaultStoragePath = "/srv/cosyvoice/outputs";

type RawMachine = Pick<
  NonNullable<ParsedConfig["directors"]>[number],
  "name" | "address" | "hostKey" | "ssh"
>;

/**
 * Completes a configuration that the schema and the cross-checks have passed.
 *
 * @throws Error when they have not: that is a mistake in this program, not in the stack file.
 */
export function resolveConfig(
  parsed: ParsedConfig,
  secrets: Readonly<Record<SecretKey, boolean>>,
): ClusterConfig | AwsConfig {
  const { vip, port } = parsed;
  if (parsed.platform === "aws") {
    return { platform: "aws", vip, port, aws: expectPresent(parsed.aws, "aws") };
  }

  const machine = <R extends MachineRole>(
    role: R,
    raw: RawMachine,
  ): MachineConfig & { readonly role: R } => ({
    name: raw.name,
    role,
    address: raw.address,
    hostKey: withoutComment(raw.hostKey),
    ssh: { user: raw.ssh?.user ?? parsed.ssh.user, port: raw.ssh?.port ?? parsed.ssh.port },
  });

  const directors = expectPresent(parsed.directors, "directors").map(
    (raw, index): DirectorConfig => ({
      ...machine("director", raw),
      interface: raw.interface ?? parsed.interface,
      priority: raw.priority ?? expectPresent(defaultPriorities[index], "a third director"),
    }),
  );
  const { ssh, loadBalancer, verification } = parsed;
  return {
    platform: "hosts",
    vip,
    port,
    ssh: {
      user: ssh.user,
      port: ssh.port,
      privateKeyFile: ssh.privateKeyFile,
      knownHostsFile: ssh.knownHostsFile,
      connectTimeout: ssh.connectTimeout,
      jumpHost: ssh.jumpHost && {
        address: ssh.jumpHost.address,
        port: ssh.jumpHost.port,
        user: ssh.jumpHost.user,
        hostKey: withoutComment(ssh.jumpHost.hostKey),
      },
    },
    directors: [expectPresent(directors[0], "directors[0]"), expectPresent(directors[1], "directors[1]")],
    realServers: expectPresent(parsed.realServers, "realServers").map((raw) => ({
      ...machine("realServer", raw),
      weight: raw.weight,
    })),
    storage: resolveStorage(expectPresent(parsed.storage, "storage"), machine),
    loadBalancer: {
      ...loadBalancer,
      connectionSync: loadBalancer.connectionSync ?? !hashing.has(loadBalancer.scheduler),
      sorryServer: loadBalancer.sorryServer && {
        address: loadBalancer.sorryServer.address,
        port: loadBalancer.sorryServer.port ?? port,
      },
    },
    vrrp: parsed.vrrp,
    service: parsed.service,
    verification: {
      sentence: verification.sentence,
      client: verification.client && machine("client", verification.client),
      sourceAddresses: expandAddresses(verification.sourceAddresses),
      timeout: verification.timeout,
    },
    monitoring: resolveMonitoring(parsed.monitoring, machine),
    secretsSet: {
      vrrpPassword: secrets.vrrpPassword,
      peerKey: secrets.peerKey,
      receiverSecrets: secrets.receiverSecrets,
      sshPrivateKey: secrets.sshPrivateKey,
    },
  };
}

/** The schedulers with which both directors come to the same answer without telling each other anything. */
const hashing: ReadonlySet<string> = new Set(["mh", "sh"]);

function resolveStorage(
  raw: NonNullable<ParsedConfig["storage"]>,
  machine: (role: "storage", raw: RawMachine) => MachineConfig & { readonly role: "storage" },
): StorageMachineConfig | StorageExportConfig {
  const { mountOptions } = raw;
  if (raw.export !== undefined) return { kind: "export", export: raw.export, mountOptions };
  const { hostKey, ssh } = raw;
  return {
    kind: "machine",
    ...machine("storage", {
      name: expectPresent(raw.name, "storage.name"),
      address: expectPresent(raw.address, "storage.address"),
      hostKey,
      ssh,
    }),
    path: raw.path ?? defaultStoragePath,
    mountOptions,
  };
}

function resolveMonitoring(
  raw: ParsedConfig["monitoring"],
  machine: (role: "monitor", raw: RawMachine) => MachineConfig & { readonly role: "monitor" },
): MonitoringConfig | undefined {
  if (raw?.enabled !== true) return undefined;
  const { hostKey, ssh, adminNetworks, metrics, ports, receivers, routing } = raw;
  const everybody = receivers.map(({ name }) => name);
  return {
    ...machine("monitor", {
      name: expectPresent(raw.name, "monitoring.name"),
      address: expectPresent(raw.address, "monitoring.address"),
      hostKey,
      ssh,
    }),
    adminNetworks,
    metrics,
    ports,
    receivers,
    routing: {
      critical: routing.critical ?? everybody,
      warning: routing.warning ?? everybody,
      watchdog: routing.watchdog,
    },
  };
}

/** Type and base64 of a public key: the comment is for people, and would make equal keys differ. */
function withoutComment(hostKey: string | undefined): string | undefined {
  return hostKey?.split(" ").slice(0, 2).join(" ");
}

function expectPresent<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} is missing in a configuration that was found valid`);
  return value;
}
