/**
 * The sandbox of our daemons on a director, as lines of a unit's [Service]. What they read below /proc/net stays in sight:
 * no PrivateNetwork, no ProcSubset=pid.
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
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    `RestrictAddressFamilies=${addressFamilies.join(" ")}`,
    "RestrictNamespaces=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
  ];
}
