import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { ServiceConfig } from "../../../config/schema";
import { mountPolicy, sharePolicy } from "./policies";

export interface ShareArgs {
  readonly service: Pick<ServiceConfig, "uid">;
  /** One in each zone. */
  readonly subnetIds: readonly { readonly zone: string; readonly id: pulumi.Input<string> }[];
  readonly securityGroup: pulumi.Input<string>;
  /** Of the real servers. */
  readonly role: aws.iam.Role;
}

/** The share: a file system of EFS that only the real servers' role can mount, only by TLS, and only one directory of it. */
export class Share extends pulumi.ComponentResource {
  readonly fileSystemId: pulumi.Output<string>;
  readonly accessPointId: pulumi.Output<string>;
  /** After these it can be mounted. */
  readonly ready: readonly pulumi.Resource[];

  constructor(name: string, args: ShareArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:aws:Share", name, {}, opts);
    const parent = { parent: this };
    const files = new aws.efs.FileSystem(
      `${name}-files`,
      { encrypted: true, throughputMode: "elastic", tags: { Name: name } },
      // As on a storage machine, the results stay when the stack goes. docs/aws.md says how to delete them.
      { ...parent, retainOnDelete: true },
    );
    const fileSystemId = files.id;
    new aws.efs.BackupPolicy(`${name}-backup`, { fileSystemId, backupPolicy: { status: "ENABLED" } }, parent);
    const { uid } = args.service;
    const access = new aws.efs.AccessPoint(
      `${name}-access`,
      {
        fileSystemId,
        // Whoever comes through it is the service's user, whatever number the machine says.
        posixUser: { uid, gid: uid },
        rootDirectory: {
          path: "/outputs",
          creationInfo: { ownerUid: uid, ownerGid: uid, permissions: "0755" },
        },
        tags: { Name: name },
      },
      parent,
    );
    const arns = pulumi.all([files.arn, access.arn, args.role.arn]);
    const policy = new aws.efs.FileSystemPolicy(
      `${name}-policy`,
      {
        fileSystemId,
        policy: arns.apply(([file, point, role]) => JSON.stringify(sharePolicy(file, point, role))),
      },
      parent,
    );
    const grant = new aws.iam.RolePolicy(
      `${name}-mount`,
      {
        role: args.role.id,
        policy: arns.apply(([file, point]) => JSON.stringify(mountPolicy(file, point))),
      },
      parent,
    );
    const targets = args.subnetIds.map(
      ({ zone, id }) =>
        new aws.efs.MountTarget(
          `${name}-${zone}`,
          { fileSystemId, subnetId: id, securityGroups: [args.securityGroup] },
          parent,
        ),
    );
    this.ready = [policy, grant, ...targets];
    // Known to others only when it can be mounted.
    const mountable = pulumi.all(this.ready.map(({ urn }) => urn));
    this.fileSystemId = pulumi.all([files.id, mountable]).apply(([id]) => id);
    this.accessPointId = access.id;
    this.registerOutputs({ fileSystemId: this.fileSystemId });
  }
}
