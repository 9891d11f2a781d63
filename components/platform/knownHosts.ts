import { createHmac } from "node:crypto";

/**
 * Key types in the order of preference. `ssh-rsa` is left out: the provider offers a pinned RSA key only with SHA-1
 * signatures, which OpenSSH has refused since 8.8.
 */
const TYPES = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];

/**
 * The host key that an OpenSSH known_hosts text has for a host, as `<type> <base64>`.
 *
 * Plain and hashed names are understood; patterns and marked lines (@revoked, @cert-authority) are passed over.
 *
 * @returns undefined when there is none of a type that can be pinned.
 */
export function findHostKey(knownHosts: string, address: string, port: number): string | undefined {
  const name = port === 22 ? address : `[${address}]:${port}`;
  const keys = knownHosts
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(([names, type, key]) => names && type && key && !/^[#@]/.test(names) && matches(names, name))
    .map(([, type, key]) => ({ type: type ?? "", text: `${type} ${key}` }));
  for (const type of TYPES) {
    const found = keys.find((key) => key.type === type);
    if (found) return found.text;
  }
  return undefined;
}

function matches(names: string, name: string): boolean {
  const hashed = /^\|1\|([^|]+)\|(.+)$/.exec(names);
  if (hashed) {
    const [, salt = "", digest] = hashed;
    return createHmac("sha1", Buffer.from(salt, "base64")).update(name).digest("base64") === digest;
  }
  return names.split(",").includes(name);
}
