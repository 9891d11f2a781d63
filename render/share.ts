import { posix } from "node:path";
import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { never, renderSections } from "./text";

/** Seconds that one attempt to mount the share may take. */
const MOUNT_LIMIT = 20;

/** A file system of EFS and the way into it, as AWS has named them. */
export interface EfsShare {
  readonly fileSystemId: string;
  readonly accessPointId: string;
}

/** As for NFS; `noresvport`: a connection that is made anew may come from another port, and AWS asks for it. No `nconnect`: EFS has none. */
const EFS_OPTIONS = "noresvport,softerr,timeo=50,retrans=3,noatime,nosuid,nodev,noexec";

/** Seconds between two looks whether it is mounted. */
const MOUNT_PAUSE = 5;

/**
 * The mount unit of the share on a real server. One attempt is short, for the service waits for it when it starts: without the
 * share it starts as well, and says in its answers that the share is away. {@link renderOutputsKeeper} tries again.
 */
export function renderOutputsMount(config: ClusterConfig, efs?: EfsShare): string {
  const { what, type, mountOptions, limit } = shareSource(config, efs);
  const options = [
    mountOptions,
    "_netdev",
    // Not ordered before remote-fs.target, for which logins wait.
    "nofail",
    "fg",
    // Minutes; by itself mount.nfs would go on for two.
    "retry=0",
  ];
  return renderSections([
    [
      "Unit",
      [
        "Description=Shared outputs of the speech service",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Mount",
      [
        `What=${what}`,
        `Where=${paths.outputs}`,
        `Type=${type}`,
        `Options=${options.join(",")}`,
        // Nobody writes below the mount point while nothing is mounted there.
        "DirectoryMode=0555",
        // The kernel has no such hurry with a server that swallows packets.
        `TimeoutSec=${limit}`,
        // Taking the unit down must work while the storage does not answer.
        "LazyUnmount=yes",
        "ForceUnmount=yes",
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** The unit that mounts the share whenever it is not mounted. */
export function renderOutputsKeeper(): string {
  const mount = posix.basename(paths.outputsMount);
  return renderSections([
    [
      "Unit",
      [
        "Description=Keeps the shared outputs mounted",
        // And is stopped before it: or it would mount what is being taken away.
        `After=${mount}`,
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        `ExecStart=${paths.keepMounted} ${paths.outputs} ${mount} ${MOUNT_PAUSE}`,
        "Restart=always",
        "RestartSec=1",
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

function shareSource({ storage }: ClusterConfig, efs: EfsShare | undefined) {
  const nfs = { type: "nfs", limit: MOUNT_LIMIT };
  switch (storage.kind) {
    case "machine":
      // The export is the root of the server's NFSv4 tree (fsid=0), whatever its path.
      return { ...nfs, what: `${storage.address}:/`, mountOptions: storage.mountOptions };
    case "export":
      return { ...nfs, what: storage.export, mountOptions: storage.mountOptions };
    case "efs": {
      if (efs === undefined) throw new Error("a share of EFS has a file system and an access point");
      return {
        type: "efs",
        what: `${efs.fileSystemId}:/`,
        mountOptions: `tls,iam,accesspoint=${efs.accessPointId},${EFS_OPTIONS}`,
        // Before it mounts, mount.efs asks for credentials and starts its tunnel.
        limit: 3 * MOUNT_LIMIT,
      };
    }
    default:
      return never(storage);
  }
}

/**
 * /etc/exports.d on the storage machine: the real servers may write, each by its address, nobody else sees anything.
 *
 * @throws Error when the share is an export that is there already.
 */
export function renderExports(config: ClusterConfig): string {
  const { storage, realServers } = config;
  if (storage.kind !== "machine")
    throw new Error("the share is served elsewhere: there is nothing to export");
  // One line a client, so that a preview shows the client that comes or goes. sync: an answer means that it is on disk.
  const options = "rw,sync,fsid=0,no_subtree_check,root_squash,sec=sys";
  return realServers.map(({ address }) => `${storage.path} ${address}(${options})\n`).join("");
}

/** /etc/nfs.conf.d on the storage machine. */
export function renderNfsServerConfig(): string {
  return renderSections([
    [
      "nfsd",
      [
        // NFSv4 alone: one port, no rpcbind, and a client that was cut off is known by its lease.
        "udp=n",
        "vers3=n",
        "vers4=y",
        "vers4.0=n",
        "vers4.1=y",
        "vers4.2=y",
        // After a restart clients reclaim what they had within the grace time, and writes wait for it: 90 s by default.
        "grace-time=10",
        "lease-time=10",
      ],
    ],
  ]);
}
