/** A machine, or the jump host, as OpenSSH gets to know it. */
export interface SshEntry {
  /** Alias: `ssh -F FILE NAME`. */
  readonly name: string;
  readonly address: string;
  readonly user: string;
  readonly port: number;
  /** Pinned key, type and base64. `undefined`: looked up by address in the last of `knownHostsFiles`. */
  readonly hostKey: string | undefined;
  /** Alias of the entry to go through. */
  readonly through?: string;
}

/** What an OpenSSH client config is made of. */
export interface SshConfigInput {
  readonly entries: readonly SshEntry[];
  /** Absolute paths of the files with host keys: the one of {@link renderKnownHosts}, then the user's if there is one. */
  readonly knownHostsFiles: readonly string[];
  /** Absolute path. `undefined`: the keys of the agent. */
  readonly identityFile?: string | undefined;
  /** Seconds. */
  readonly connectTimeout: number;
  /**
   * Absolute path (may have OpenSSH's tokens) of the socket by which all dials through a jump host share one connection to
   * it: an sshd drops new ones above its MaxStartups. It closes a minute after its last use, or by `ssh -O exit`.
   * @default every dial connects anew
   */
  readonly controlPath?: string | undefined;
}

/**
 * An OpenSSH client config that reaches every machine by its name, asks nothing, trusts pinned host keys only and takes
 * nothing from the user's own config.
 */
export function renderSshConfig(input: SshConfigInput): string {
  const { entries, knownHostsFiles, identityFile, connectTimeout, controlPath } = input;
  const jumpHosts = new Set(entries.map(({ through }) => through));
  const hosts = entries.map(({ name, address, user, port, hostKey, through }) =>
    hostBlock(name, [
      `HostName ${address}`,
      `Port ${port}`,
      `User ${user}`,
      // The key is filed under the name: two machines behind two jump hosts may well have one address.
      hostKey === undefined ? undefined : `HostKeyAlias ${name}`,
      through === undefined ? undefined : `ProxyJump ${through}`,
      ...(controlPath !== undefined && jumpHosts.has(name)
        ? ["ControlMaster auto", `ControlPath "${controlPath}"`, "ControlPersist 60"]
        : []),
    ]),
  );
  const everywhere = hostBlock("*", [
    "BatchMode yes",
    `ConnectTimeout ${Math.ceil(connectTimeout)}`,
    "StrictHostKeyChecking yes",
    "UpdateHostKeys no",
    "CheckHostIP no",
    `UserKnownHostsFile ${knownHostsFiles.map(quotePath).join(" ")}`,
    "GlobalKnownHostsFile /dev/null",
    ...(identityFile === undefined ? [] : [`IdentityFile ${quotePath(identityFile)}`, "IdentitiesOnly yes"]),
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "ForwardAgent no",
    "ServerAliveInterval 5",
    "ServerAliveCountMax 3",
    "LogLevel ERROR",
  ]);
  return [...hosts, everywhere].join("\n");
}

function hostBlock(pattern: string, options: readonly (string | undefined)[]): string {
  return `Host ${pattern}\n${options
    .filter((option) => option !== undefined)
    .map((option) => `    ${option}\n`)
    .join("")}`;
}

/** OpenSSH expands % in file names and splits at blanks. */
function quotePath(path: string): string {
  return `"${path.replaceAll("%", "%%")}"`;
}

/** The known_hosts file that goes with {@link renderSshConfig}: the pinned keys, filed under the machines' names. */
export function renderKnownHosts(entries: readonly SshEntry[]): string {
  return entries
    .filter((entry) => entry.hostKey !== undefined)
    .map(({ name, hostKey }) => `${name} ${hostKey}\n`)
    .join("");
}
