import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { PlacedMachine } from "../../../config/awsLayout";
import type { Machine, SshAccess } from "../machine";
import { type KeyPair, sshKey } from "./keys";
import { renderUserData } from "./userData";

/** What all machines of one kind have in common. */
export interface MachineKind {
  readonly instanceType: string;
  readonly image: pulumi.Input<string>;
  /** GiB. */
  readonly disk: number;
  readonly spot?: boolean;
  readonly securityGroup: pulumi.Input<string>;
  readonly instanceProfile?: pulumi.Input<string> | undefined;
  readonly placementGroup?: pulumi.Input<string> | undefined;
  /** Addresses outside the VPC that the machine also has. */
  readonly localRange?: string | undefined;
  /** It forwards packets, or answers for addresses that AWS does not know as its own. */
  readonly foreignAddresses: boolean;
  /** What moves between its interfaces is left where it is. */
  readonly floatingAddress?: boolean;
}

/** A machine while it is made: its key and its interface are there before it, and stay when it is replaced. */
export interface MadeMachine {
  readonly placed: PlacedMachine;
  readonly hostKey: KeyPair;
  readonly interface: aws.ec2.NetworkInterface;
  readonly instance: aws.ec2.Instance;
}

/** A login for deployments takes a minute from when AWS says that a machine runs; a dial waits up to 5 s between attempts. */
export const DIAL_ATTEMPTS = 60;

/**
 * What an instance is asked for.
 *
 * A pure function of what is known; what AWS names comes in `ids`.
 */
function instanceArgs(
  kind: MachineKind,
  ids: {
    readonly name: string;
    readonly networkInterfaceId: pulumi.Input<string>;
    readonly userData: pulumi.Input<string>;
  },
): aws.ec2.InstanceArgs {
  return {
    ami: kind.image,
    instanceType: kind.instanceType,
    primaryNetworkInterface: { networkInterfaceId: ids.networkInterfaceId },
    ...(kind.instanceProfile === undefined ? {} : { iamInstanceProfile: kind.instanceProfile }),
    ...(kind.placementGroup === undefined ? {} : { placementGroup: kind.placementGroup }),
    rootBlockDevice: { volumeType: "gp3", volumeSize: kind.disk, encrypted: true },
    // Version 2 only, and an answer that crosses no hop: no container and nothing that is forwarded gets one.
    metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
    ...(kind.spot
      ? {
          instanceMarketOptions: {
            marketType: "spot",
            // Persistent and stopped: it comes back as what it was, with its disk.
            spotOptions: { spotInstanceType: "persistent", instanceInterruptionBehavior: "stop" },
          },
        }
      : {}),
    userData: ids.userData,
    tags: { Name: ids.name },
  };
}

/** Makes a machine, its key and its interface. */
export function makeMachine(
  name: string,
  placed: PlacedMachine,
  kind: MachineKind,
  args: { readonly subnetId: pulumi.Input<string>; readonly loginKey: KeyPair },
  opts: { readonly parent: pulumi.Resource; readonly dependsOn: readonly pulumi.Resource[] },
): MadeMachine {
  const parent = { parent: opts.parent };
  const hostKey = sshKey(`${name}-host-key`, parent);
  const networkInterface = new aws.ec2.NetworkInterface(
    `${name}-interface`,
    {
      subnetId: args.subnetId,
      privateIps: [placed.address],
      securityGroups: [kind.securityGroup],
      sourceDestCheck: !kind.foreignAddresses,
      tags: { Name: name },
    },
    // A VIP that a failover has brought here must not be taken away by the next deployment.
    { ...parent, ...(kind.floatingAddress ? { ignoreChanges: ["privateIps", "privateIpsCount"] } : {}) },
  );
  const userData = pulumi
    .all([hostKey.privateKey, hostKey.publicKey, args.loginKey.publicKey])
    .apply(([privateKey, publicKey, loginKey]) =>
      renderUserData({
        name: placed.name,
        hostKey: { privateKey, publicKey },
        loginKey,
        localRange: kind.localRange,
      }),
    );
  const instance = new aws.ec2.Instance(
    `${name}-instance`,
    instanceArgs(kind, { name, networkInterfaceId: networkInterface.id, userData }),
    {
      ...parent,
      dependsOn: [...opts.dependsOn],
      // Each of them would replace or stop machines that serve, all at the same time.
      ignoreChanges: ["ami", "userData", "instanceType", "rootBlockDevice"],
      // Its address and its interface are taken until it is gone.
      deleteBeforeReplace: true,
    },
  );
  return { placed, hostKey, interface: networkInterface, instance };
}

/** A made machine as the rest of the program sees it. */
export function asMachine(
  { placed, hostKey, instance }: MadeMachine,
  user: string,
  access: SshAccess,
): Machine {
  return {
    name: placed.name,
    role: placed.role,
    address: placed.address,
    endpoint: {
      // Known all along; said when the machine is there, so that its layers wait for it.
      address: instance.id.apply(() => placed.address),
      port: 22,
      user,
      hostKey: hostKey.publicKey,
    },
    access,
    incarnation: instance.id,
  };
}
