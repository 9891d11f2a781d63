/**
 * System calls that our programs get, and none of those that need root's rights or change the machine's resources. EPERM and not
 * a kill: a library that tries its luck goes on without.
 */
export const systemCalls: readonly string[] = [
  "SystemCallArchitectures=native",
  "SystemCallFilter=@system-service",
  "SystemCallFilter=~@privileged @resources",
  "SystemCallErrorNumber=EPERM",
];

/**
 * The sandbox of our own programs, as lines of a unit's [Service]. What they read below /proc/net stays in sight: no
 * PrivateNetwork, no ProcSubset=pid.
 *
 * @param capabilities those it keeps. @default none
 */
export function sandbox(addressFamilies: readonly string[], capabilities: readonly string[] = []): string[] {
  return [
    "NoNewPrivileges=yes",
    `CapabilityBoundingSet=${capabilities.join(" ")}`,
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "ProtectControlGroups=yes",
    `RestrictAddressFamilies=${addressFamilies.join(" ")}`,
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    ...systemCalls,
  ];
}
