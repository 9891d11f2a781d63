/** Fills in what follows from other values, so that nobody further down has to know a default. */
import { expandAddresses } from "./addresses";
import {
  type AppConfig,
  type AwsConfig,
  type ClusterConfig,
  type DirectorConfig,
  defaultHsts,
  defaultLimits,
  type HttpsConfig,
  type MachineConfig,
  type MachineRole,
  type ParsedConfig,
  type SecretKey,
  type StorageExportConfig,
  type StorageMachineConfig,
} from "./schema";

/** Priority of a director that is given none, by its place in the list. */
export const defaultPriorities: readonly number[] = [100, 90];

/** Where the share lies on the storage machine when nothing is said. */
export const defaultStoragePath = "/srv/cosyvoice/outputs";

type RawMachine = NonNullable<ParsedConfig["directors"]>[number];

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
    firewall: parsed.firewall,
    https: parsed.https.enabled ? resolveHttps(parsed) : undefined,
    service: parsed.service,
    app: { ...parsed.app, model: resolveModel(parsed.app.model) },
    verification: {
      sentence: verification.sentence,
      client: verification.client && machine("client", verification.client),
      sourceAddresses: expandAddresses(verification.sourceAddresses),
      timeout: verification.timeout,
    },
    secretsSet: {
      vrrpPassword: secrets.vrrpPassword,
      peerKey: secrets.peerKey,
      tlsCertificate: secrets.tlsCertificate,
      tlsKey: secrets.tlsKey,
      apiKeys: secrets.apiKeys,
      httpUsers: secrets.httpUsers,
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

/** Type and base64 of a public key: the comment is for people, and would make equal keys differ. */
function withoutComment(hostKey: string | undefined): string | undefined {
  return hostKey?.split(" ").slice(0, 2).join(" ");
}

function expectPresent<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} is missing in a configuration that was found valid`);
  return value;
}
