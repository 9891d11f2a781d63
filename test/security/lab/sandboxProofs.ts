/**
 * What the sandbox of our units forbids, each with an operation that works for root without it and fails with it alone.
 * sandbox.py runs them on a machine, where these stand: $DIR, a directory of root's on the disk; /root/$NAME and /tmp/$NAME, files;
 * $DIR/id, a set-user-ID copy of `id`.
 */
export interface SandboxProof {
  /** As in a unit. */
  readonly directive: string;
  /** Shell commands that succeed where it is not in force. */
  readonly works: string;
  /** Another user than root, for what says nothing about root. */
  readonly user?: "daemon";
  /** Shell commands outside the unit, after it has ended, that succeed where the directive was not in force. */
  readonly leaves?: string;
}

/** A call of the C library that must not be refused with EPERM; any other answer will do. */
const call = (text: string) =>
  `python3 -c 'import ctypes, errno, sys; c = ctypes.CDLL(None, use_errno=True); c.${text}; sys.exit(ctypes.get_errno() == errno.EPERM)'`;

/** x86-64: getpid by the way of 32-bit programs. */
const otherArchitecture =
  "python3 -c 'import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex(\"53b814000000cd805bc3\")); ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()'";

export const sandboxProofs: readonly SandboxProof[] = [
  { directive: "NoNewPrivileges=yes", works: '[ "$($DIR/id -u)" = 0 ]', user: "daemon" },
  { directive: "CapabilityBoundingSet=", works: "chown 1 $DIR/file" },
  { directive: "ProtectSystem=strict", works: "touch $DIR/other" },
  { directive: "ProtectHome=yes", works: "[ -e /root/$NAME ]" },
  { directive: "ProtectHome=tmpfs", works: "[ -e /root/$NAME ]" },
  { directive: "ProtectHome=read-only", works: "touch /root/$NAME" },
  { directive: "PrivateTmp=yes", works: "[ -e /tmp/$NAME ]" },
  { directive: "PrivateDevices=yes", works: "touch /dev/$NAME && rm /dev/$NAME" },
  {
    directive: "PrivateMounts=yes",
    works: "mount -t tmpfs none $DIR/mount",
    leaves: "umount $DIR/mount",
  },
  {
    directive: "ProtectKernelTunables=yes",
    works:
      "cat /proc/sys/net/ipv4/ip_default_ttl >$DIR/ttl && cat $DIR/ttl >/proc/sys/net/ipv4/ip_default_ttl",
  },
  { directive: "ProtectKernelModules=yes", works: call('syscall(176, b"no_such_module", 0)') },
  { directive: "ProtectKernelLogs=yes", works: call("klogctl(10, 0, 0)") },
  { directive: "ProtectClock=yes", works: call("adjtimex(ctypes.create_string_buffer(512))") },
  {
    directive: "ProtectHostname=yes",
    works: "python3 -c 'import socket; socket.sethostname(socket.gethostname())'",
  },
  { directive: "ProtectProc=invisible", works: "[ -e /proc/1/status ]", user: "daemon" },
  { directive: "ProcSubset=pid", works: "[ -e /proc/meminfo ]" },
  {
    directive: "ProtectControlGroups=yes",
    works: "mkdir /sys/fs/cgroup/$NAME && rmdir /sys/fs/cgroup/$NAME",
  },
  {
    directive: "RestrictAddressFamilies=AF_UNIX",
    works: "python3 -c 'import socket; socket.socket(socket.AF_INET)'",
  },
  { directive: "RestrictNamespaces=yes", works: "unshare -n true" },
  { directive: "RestrictRealtime=yes", works: "chrt -f 1 true" },
  { directive: "RestrictSUIDSGID=yes", works: "chmod u+s $DIR/file" },
  { directive: "LockPersonality=yes", works: "setarch -R true" },
  { directive: "MemoryDenyWriteExecute=yes", works: "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'" },
  { directive: "SystemCallArchitectures=native", works: otherArchitecture },
  {
    directive: "SystemCallFilter=@system-service",
    works: "mount -t tmpfs none $DIR/mount && umount $DIR/mount",
  },
  { directive: "SystemCallFilter=~@privileged @resources", works: "chroot / true && nice -n 1 true" },
  { directive: "UMask=0077", works: "rm -f $DIR/made; touch $DIR/made; [ $(stat -c %a $DIR/made) = 644 ]" },
  {
    directive: "RemoveIPC=yes",
    works: "ipcmk -M 64 >/dev/null",
    user: "daemon",
    leaves: "ipcrm -m $(ipcs -m | awk '$3 == \"daemon\" { print $2 }')",
  },
  { directive: "MemoryMax=64M", works: "python3 -c 'len(bytearray(200_000_000))'" },
  {
    directive: "TemporaryFileSystem=/srv:size=1M,mode=1777",
    works: "head -c 4000000 /dev/zero >/srv/$NAME && rm /srv/$NAME",
  },
  { directive: "DynamicUser=yes", works: "[ $(id -u) = 0 ]" },
];

/** Lines of [Service] that take nothing away: what a unit runs, and what it is given. */
const others =
  /^(Type|NotifyAccess|Exec[A-Za-z]+|Environment(File)?|Timeout[A-Za-z]+|Kill[A-Za-z]+|Restart[A-Za-z]*|RemainAfterExit|WatchdogSec|OOMScoreAdjust|Nice|CPU(Quota|Weight)|Limit[A-Z]+|LogRateLimit[A-Za-z]+|(State|Runtime)Directory[A-Za-z]*|AmbientCapabilities|ReadWritePaths|Bind(ReadOnly)?Paths|LoadCredential|User|Group|SupplementaryGroups|SystemCallErrorNumber)=|^SystemCallFilter=setpriority$|^UMask=0022$/;

/** The proof of a unit's line; undefined for one that takes nothing away. @throws Error when there should be one. */
export function proofOf(line: string): SandboxProof | undefined {
  const [name, value = ""] = line.split(/=(.*)/s);
  // Those that say what is left are proved with less or nothing left; "no" takes nothing away.
  const listing = [
    "CapabilityBoundingSet",
    "RestrictAddressFamilies",
    "MemoryMax",
    "TemporaryFileSystem",
  ].includes(name ?? "");
  if (others.test(line) || value === "no") return undefined;
  const found = sandboxProofs.find(({ directive }) =>
    listing ? directive.startsWith(`${name}=`) : directive === line,
  );
  if (found === undefined) throw new Error(`nothing proves that ${line} does anything`);
  return found;
}
