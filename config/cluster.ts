/** What the rest of the program gets of a configuration. */
import type * as z from "zod";
import type { SecretKey } from "./secrets";
import type { AppConfig } from "./sections/app";
import type { AwsConfig } from "./sections/aws";
import type { firewallSchema } from "./sections/firewall";
import type { HttpsConfig } from "./sections/https";
import type { LoadBalancerConfig } from "./sections/loadBalancer";
import type { DirectorConfig, MachineConfig, RealServerConfig } from "./sections/machines";
import type { MonitoringConfig } from "./sections/monitoring";
import type { ServiceConfig } from "./sections/service";
import type { SshConfig } from "./sections/ssh";
import type { StorageEfsConfig, StorageExportConfig, StorageMachineConfig } from "./sections/storage";
import type { VerificationConfig } from "./sections/verification";
import type { VrrpConfig } from "./sections/vrrp";

/** A cluster on either platform: valid, complete, every default filled in, no secrets. */
export interface ClusterConfig {
  readonly platform: "hosts" | "aws";
  readonly vip: string;
  readonly port: number;
  readonly ssh: SshConfig;
  readonly directors: readonly [DirectorConfig, DirectorConfig];
  readonly realServers: readonly RealServerConfig[];
  readonly storage: StorageMachineConfig | StorageExportConfig | StorageEfsConfig;
  readonly loadBalancer: LoadBalancerConfig;
  readonly vrrp: VrrpConfig;
  /** `undefined`: off. */
  readonly https: HttpsConfig | undefined;
  readonly firewall: z.output<typeof firewallSchema>;
  readonly service: ServiceConfig;
  readonly app: AppConfig;
  readonly verification: VerificationConfig;
  /** What is to be made; only on the platform `aws`. */
  readonly aws: AwsConfig | undefined;
  /** `undefined`: nothing is watched. */
  readonly monitoring: MonitoringConfig | undefined;
  /** Which secrets are set. Their text stays with Pulumi. */
  readonly secretsSet: Readonly<Record<SecretKey, boolean>>;
}

/** Whether the real servers pass sessions and jobs on to each other. */
export function peersOn({ service, secretsSet }: Pick<ClusterConfig, "service" | "secretsSet">): boolean {
  return service.peers && secretsSet.peerKey;
}

/** Every machine that is configured or used over SSH, directors first, in a stable order. */
export function machinesOf(config: ClusterConfig): readonly MachineConfig[] {
  const { directors, realServers, storage, verification, monitoring } = config;
  return [
    ...directors,
    ...realServers,
    ...(storage.kind === "machine" ? [storage] : []),
    ...(verification.client ? [verification.client] : []),
    ...(monitoring ? [monitoring] : []),
  ];
}

/** Those of them that are watched: all but the one that only asks. */
export function watchedMachines(config: ClusterConfig): readonly MachineConfig[] {
  return machinesOf(config).filter(({ role }) => role !== "client");
}
