/** The section `storage`: where results lie. */
import { address, hostKey, isPlainPath, machineName, section, text } from "../leaves";
import { type MachineConfig, machineSshSchema } from "./machines";

const defaultMountOptions = "nfsvers=4.2,proto=tcp,softerr,timeo=50,retrans=3,noatime,nosuid,nodev,noexec";

export const storageSchema = section(
  {
    name: machineName({
      text: "Name of the machine that is made the NFS server. With it come `address` and the machine's other keys.",
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
        text: "Directory on the storage machine that is exported. Its content is kept when the stack is destroyed.",
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
        text: "An NFS export that is there already, for example of a storage appliance. It must admit every real server and let `service.uid` write.",
        required: "unless `name` and `address` are given",
      },
    ).optional(),
    mountOptions: text(
      (value) => /^[A-Za-z0-9_.:=,-]+$/.test(value),
      "mount options joined by commas, without spaces",
      {
        text: "NFS options of the mount on the real servers.",
        why: "`softerr` makes a request fail with an error after about `timeo` (tenths of a second) x `retrans` when the storage is away: the service says so and goes on, instead of hanging in the kernel. `noexec,nosuid,nodev`: the share carries sound, not programs.",
      },
    ).default(defaultMountOptions),
  },
  {
    text: "The share that is mounted on every real server at /root/CosyVoice/outputs: either a machine that is made an NFS server (`name`, `address`) or an export that is there (`export`).",
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
