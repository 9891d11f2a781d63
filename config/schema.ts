/**
 * What a stack may configure: the shape, the bounds, the defaults, and for every key what it does, its unit and why it is
 * as it is. Each section has a file of its own in sections/, with what comes of it; the whole is put together here.
 * docs/configuration.md is generated from them (`scripts/config-reference`), so the words there are the manual.
 *
 * What concerns more than one key lives in validate.ts.
 */
import type * as z from "zod";
import { address, choice, list, networkInterface, port, section } from "./leaves";
import { secretKeys } from "./secrets";
import { appSchema } from "./sections/app";
import { awsSchema } from "./sections/aws";
import { firewallSchema } from "./sections/firewall";
import { httpsSchema } from "./sections/https";
import { loadBalancerSchema } from "./sections/loadBalancer";
import { directorSchema, realServerSchema } from "./sections/machines";
import { monitoringSchema } from "./sections/monitoring";
import { serviceSchema } from "./sections/service";
import { sshSchema } from "./sections/ssh";
import { storageSchema } from "./sections/storage";
import { verificationSchema } from "./sections/verification";
import { vrrpSchema } from "./sections/vrrp";

export * from "./cluster";
export * from "./secrets";
export * from "./sections/app";
export * from "./sections/firewall";
export * from "./sections/https";
export * from "./sections/loadBalancer";
export {
  type DirectorConfig,
  directorSchema,
  type MachineConfig,
  type MachineRole,
  type RealServerConfig,
  realServerSchema,
} from "./sections/machines";
export * from "./sections/monitoring";
export * from "./sections/service";
export * from "./sections/ssh";
export * from "./sections/storage";
export * from "./sections/verification";
export * from "./sections/vrrp";

export const configSchema = section(
  {
    platform: choice(["hosts", "aws"], {
      text: "Where the machines come from. hosts: the stack file lists them, and they are reached over SSH. aws: this program creates them on EC2 (docs/aws.md).",
    }),
    vip: address({
      text: "The virtual IP address that clients use. It belongs to no machine: keepalived puts it on one director at a time. On aws it must lie outside the VPC's range, because a route leads to it; with `aws.exposure: internet` it is instead a free address of `aws.network.publicCidr`.",
    }),
    port: port({ text: "Port of the service, on the VIP and on every real server." }).default(7860),
    interface: networkInterface({
      text: "Network interface that holds a director's address and the VIP. A director can have an `interface` of its own.",
      why: "It is written into keepalived.conf, so it must be known before any machine is contacted.",
      derived: "eth0; on aws ens5, its name in Debian's and Ubuntu's images",
    }).optional(),
    ssh: sshSchema.prefault({}),
    directors: list(directorSchema, {
      text: "The pair of directors.",
      form: "a list of exactly 2 directors",
      required: "with platform hosts",
    }).optional(),
    realServers: list(realServerSchema, {
      text: "The pool, with at least one real server. Their order matters to mh; both directors get the order written here.",
      form: "a list of real servers",
      required: "with platform hosts",
    }).optional(),
    storage: storageSchema.optional(),
    loadBalancer: loadBalancerSchema.prefault({}),
    vrrp: vrrpSchema.prefault({}),
    https: httpsSchema.prefault({}),
    firewall: firewallSchema.prefault({}),
    service: serviceSchema.prefault({}),
    app: appSchema.prefault({}),
    verification: verificationSchema.prefault({}),
    monitoring: monitoringSchema.optional(),
    aws: awsSchema.optional(),
  },
  { text: "The top-level keys of a stack file, each with the prefix `cosyvoice-lvs:`." },
);

/** Every top-level key a stack may set, secrets included. */
export const configKeys: readonly string[] = [...Object.keys(configSchema.shape), ...secretKeys];

/** The stack file as it is after the schema, before {@link ClusterConfig} is made of it. */
export type ParsedConfig = z.output<typeof configSchema>;
