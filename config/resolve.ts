/** Fills in what follows from other values, so that nobody further down has to know a default. */
import { expandAddresses, formatIPv4, isPrivate, parseCidr } from "./addresses";
import { defaultPublicCidr, placedMachines } from "./awsLayout";
import {
  type AppConfig,
  type ClientConfig,
  type ClusterConfig,
  type DirectorConfig,
  defaultHsts,
  defaultLimits,
  type HttpsConfig,
  type MachineConfig,
  type MachineRole,
  type MonitoringConfig,
  type ParsedConfig,
  type RealServerConfig,
  type SecretKey,
  type StorageExportConfig,
  type StorageMachineConfig,
} from "./schema";
import { type AwsConfig, awsUser } from "./sections/aws";

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
): ClusterConfig {
  const { vip, port, platform, ssh, loadBalancer, verification } = parsed;
  const made = platform === "aws" ? resolveAws(parsed) : resolveHosts(parsed);
  return {
    platform,
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
    directors: [
      expectPresent(made.directors[0], "directors[0]"),
      expectPresent(made.directors[1], "directors[1]"),
    ],
    realServers: made.realServers,
    storage: made.storage,
    loadBalancer: {
      ...loadBalancer,
      connectionSync:
        loadBalancer.connectionSync ?? (platform === "hosts" && !hashing.has(loadBalancer.scheduler)),
      sorryServer: loadBalancer.sorryServer && {
        address: loadBalancer.sorryServer.address,
        port: loadBalancer.sorryServer.port ?? port,
      },
    },
    vrrp: parsed.vrrp,
    firewall: parsed.firewall,
    https: parsed.https.enabled ? resolveHttps(parsed) : undefined,
    service: parsed.service,
    app: { ...parsed.app, model: resolveModel(parsed.app.model) },
    verification: {
      sentence: verification.sentence,
      client: made.client,
      sourceAddresses: made.sourceAddresses,
      timeout: verification.timeout,
    },
    aws: made.aws,
    monitoring: made.monitoring,
    secretsSet: {
      vrrpPassword: secrets.vrrpPassword,
      peerKey: secrets.peerKey,
      tlsCertificate: secrets.tlsCertificate,
      tlsKey: secrets.tlsKey,
      apiKeys: secrets.apiKeys,
      httpUsers: secrets.httpUsers,
      receiverSecrets: secrets.receiverSecrets,
      monitoringPassword: secrets.monitoringPassword,
      sshPrivateKey: secrets.sshPrivateKey,
    },
  };
}

function resolveHttps({ https, loadBalancer }: ParsedConfig): HttpsConfig {
  const { enabled: _, ...said } = https;
  // Behind NAT all clients are one: a limit for each would be one for all.
  const limits = loadBalancer.forwarding === "NAT" ? { requestsPerSecond: 0, connections: 0 } : defaultLimits;
  return {
    ...said,
    serverName: expectPresent(said.serverName, "https.serverName"),
    requestsPerSecond: said.requestsPerSecond ?? limits.requestsPerSecond,
    connections: said.connections ?? limits.connections,
    hsts: said.hsts ?? (said.plainPort === "closed" && said.certificate === "config" ? defaultHsts : 0),
  };
}

/** What the two platforms come to in different ways. */
interface Made {
  readonly directors: readonly DirectorConfig[];
  readonly realServers: readonly RealServerConfig[];
  readonly storage: ClusterConfig["storage"];
  readonly client: ClientConfig | undefined;
  readonly sourceAddresses: readonly string[];
  readonly monitoring: MonitoringConfig | undefined;
  readonly aws: AwsConfig | undefined;
}

function resolveHosts(parsed: ParsedConfig): Made {
  const machine = <R extends MachineRole>(
    role: R,
    raw: Pick<RawMachine, "name" | "address" | "hostKey" | "ssh">,
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
      interface: raw.interface ?? parsed.interface ?? "eth0",
      priority: raw.priority ?? expectPresent(defaultPriorities[index], "a third director"),
    }),
  );
  const { verification } = parsed;
  return {
    directors,
    realServers: expectPresent(parsed.realServers, "realServers").map((raw) => ({
      ...machine("realServer", raw),
      weight: raw.weight,
    })),
    storage: resolveStorage(expectPresent(parsed.storage, "storage"), machine),
    client: verification.client && machine("client", verification.client),
    sourceAddresses: expandAddresses(verification.sourceAddresses),
    monitoring: resolveMonitoring(parsed.monitoring, ({ name, address, hostKey, ssh }) =>
      machine("monitor", {
        name: expectPresent(name, "monitoring.name"),
        address: expectPresent(address, "monitoring.address"),
        hostKey,
        ssh,
      }),
    ),
    aws: undefined,
  };
}

function resolveAws(parsed: ParsedConfig): Made {
  const section = expectPresent(parsed.aws, "aws");
  const { network, admins, verifier } = section;
  const range = (text: string) => expectPresent(parseCidr(text), text);
  const publicCidr =
    network.vpcId === undefined ? (network.publicCidr ?? defaultPublicCidr(range(network.cidr))) : undefined;
  const aws: AwsConfig = {
    ...section,
    network: {
      cidr: network.cidr,
      vpcId: network.vpcId,
      publicCidr,
      zones: network.zones.map(({ name, cidr, subnetId }) => ({ name, cidr, subnetId })),
      clientRouteTables: network.clientRouteTables,
      flowLogs: network.vpcId === undefined && network.flowLogs,
    },
    access: admins.every((admin) => isPrivate(range(admin))) ? "private" : "internet",
    verifier,
    monitor: parsed.monitoring?.enabled ? section.monitor : undefined,
  };
  const machines = placedMachines(aws).map(({ name, role, address }) => ({
    name,
    role,
    address,
    // Made with the machine: nobody can know it now.
    hostKey: undefined,
    ssh: { user: awsUser, port: 22 },
  }));
  const withRole = <R extends MachineRole>(role: R) =>
    machines.filter((machine) => machine.role === role).map((machine) => ({ ...machine, role }));
  return {
    directors: withRole("director").map((machine, index) => ({
      ...machine,
      interface: parsed.interface ?? "ens5",
      priority: expectPresent(defaultPriorities[index], "a third director"),
    })),
    realServers: withRole("realServer").map((machine) => ({ ...machine, weight: 1 })),
    storage: { kind: "efs" },
    client: withRole("client")[0],
    sourceAddresses: verifier === undefined ? [] : hostsOf(verifier.sources),
    monitoring: resolveMonitoring(parsed.monitoring, () =>
      expectPresent(withRole("monitor")[0], "the machine that watches"),
    ),
    aws,
  };
}

/** The addresses of a range, but for its first and its last one where there are more. */
function hostsOf(cidr: string): string[] {
  const { first, last } = expectPresent(parseCidr(cidr), cidr);
  if (last - first < 3) return expandAddresses(`${formatIPv4(first)}-${formatIPv4(last)}`);
  return expandAddresses(`${formatIPv4(first + 1)}-${formatIPv4(last - 1)}`);
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

/** The branch that a hub calls its main one. */
const mainBranches = { huggingface: "main", modelscope: "master" } as const;

function resolveModel(raw: ParsedConfig["app"]["model"]): AppConfig["model"] {
  const { hub, id, directory, checksums } = raw;
  if (directory !== undefined) {
    return { kind: "directory", directory, id, checksums: expectPresent(checksums, "app.model.checksums") };
  }
  const revision = raw.revision ?? mainBranches[hub];
  return { kind: "hub", hub, id, revision, endpoint: raw.endpoint, checksums };
}

function resolveMonitoring(
  raw: ParsedConfig["monitoring"],
  machine: (raw: NonNullable<ParsedConfig["monitoring"]>) => MachineConfig & { readonly role: "monitor" },
): MonitoringConfig | undefined {
  if (raw?.enabled !== true) return undefined;
  const { adminNetworks, metrics, logs, grafana, programs, ports, receivers, routing } = raw;
  const everybody = receivers.map(({ name }) => name);
  return {
    ...machine(raw),
    adminNetworks,
    metrics,
    logs,
    grafana,
    programs,
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
