/** The section `storage`: where results lie. */
import { address, hostKey, isPlainPath, machineName, section, text } from "../leaves";
import { type MachineConfig, machineSshSchema } from "./machines";

const defaultMountOptions = "nfsvers=4.2,proto=tcp,softerr,timeo=50,retrans=3,noatime,nosuid,nodev,noexec";

export const storageSchema = section(
  {
    name: machineName({
      text: "Name of the machine that becomes the NFS server. `address` and the machine's other keys go with it.",
      required: "unless `export` is given",
    }).optional(),
    address: address({
      text: "Address of the storage machine, for SSH and for NFS.",
      required: "with `name`",
    }).optional(),
    hostKey: hostKey("the storage machine").optional(),
    ssh: machineSshSchema.optional(),
    path: text(
      (value) => isPlainPath(value) && value.split("/").length > 2,
      "an absolute path at least two levels deep, such as /srv/cosyvoice/outputs, made of letters, digits and . _ - + = , @",
      {
        text: "Directory on the storage machine to export. Its content is kept when the stack is destroyed.",
        derived: "/srv/cosyvoice/outputs",
      },
    ).optional(),
    export: text(
      (value) => {
        const colon = value.indexOf(":");
        return (
          colon > 0 &&
          /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(value.slice(0, colon)) &&
          (value.slice(colon + 1) === "/" || isPlainPath(value.slice(colon + 1)))
        );
      },
      'an NFS export as "host:/path"',
      {
        text: "An existing NFS export, for example of a storage appliance. It must admit every real server and let `service.uid` write.",
        required: "unless `name` and `address` are given",
      },
    ).optional(),
    mountOptions: text(
      (value) => /^[A-Za-z0-9_.:=,-]+$/.test(value),
      "mount options joined by commas, without spaces",
      {
        text: "NFS options of the mount on the real servers.",
        why: "`softerr`: when the storage is unreachable, a request fails after about `timeo` (in tenths of a second) x `retrans`, and the service reports it and goes on instead of hanging in the kernel. `noexec,nosuid,nodev`: the share holds audio, not programs.",
      },
    ).default(defaultMountOptions),
  },
  {
    text: "The share that is mounted on every real server at /root/CosyVoice/outputs: either a machine that becomes an NFS server (`name`, `address`) or an existing export (`export`).",
    required: "with platform hosts",
  },
);

/** A machine that this program makes the NFS server. */
export interface StorageMachineConfig extends MachineConfig {
  readonly kind: "machine";
  readonly role: "storage";
  /** Exported directory. */
  readonly path: string;
  readonly mountOptions: string;
}

/** An NFS export that is there already. */
export interface StorageExportConfig {
  readonly kind: "export";
  /** `host:/path` */
  readonly export: string;
  readonly mountOptions: string;
}

/** A share of Amazon EFS. What it is called is only known once it is there. */
export interface StorageEfsConfig {
  readonly kind: "efs";
}
