import { posix } from "node:path";
import type { ClusterConfig } from "../config/schema";
import { paths } from "./paths";
import { never, renderSections } from "./text";

/** Seconds that one attempt to mount the share may take. */
const MOUNT_LIMIT = 20;

/** Seconds between two looks whether it is mounted. */
const MOUNT_PAUSE = 5;

/**
 * The mount unit of the share on a real server. One attempt is short, for the service waits for it when it starts: without the
 * share it starts as well, and says in its answers that the share is away. {@link renderOutputsKeeper} tries again.
 */
export function renderOutputsMount(config: ClusterConfig): string {
  const { storage } = config;
  const options = [
    storage.mountOptions,
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
        `What=${shareSource(config)}`,
        `Where=${paths.outputs}`,
        "Type=nfs",
        `Options=${options.join(",")}`,
        // Nobody writes below the mount point while nothing is mounted there.
        "DirectoryMode=0555",
        // The kernel has no such hurry with a server that swallows packets.
        `TimeoutSec=${MOUNT_LIMIT}`,
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

function shareSource({ storage }: ClusterConfig): string {
  switch (storage.kind) {
    case "machine":
      // The export is the root of the server's NFSv4 tree (fsid=0), whatever its path.
      return `${storage.address}:/`;
    case "export":
      return storage.export;
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
