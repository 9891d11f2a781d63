import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { parse } from "yaml";
import { parseIPv4 } from "../../config/addresses";
import { isSection } from "../../config/keys";
import { configNamespace } from "../../config/load";

/** Which machine is meant says its address; no connection is made. */
const HOST_KEY = `ssh-ed25519 ${"A".repeat(68)}`;

/** What stands for a secret, whose text only Pulumi can read. A layer that holds one is never shown or applied. */
const MADE_UP: Readonly<Record<string, string>> = {
  vrrpPassword: "made-up",
  peerKey: "0123456789abcdef".repeat(4),
  apiKeys: "made-up-key-of-twenty-characters",
  httpUsers: "made-up:$apr1$made-up",
  sshPrivateKey: "made up",
};

/**
 * A stack file as Pulumi hands it to the program, with nothing in it that needs Pulumi or this computer's files: secrets are
 * made up, and so is how the machines are reached.
 *
 * @param besides secrets that the file does not have yet, by name: the lab gets its own when it is made.
 * @returns texts by their full keys, and which of these are secret
 * @throws when there is no such file.
 */
export async function settingsOf(
  file: string,
  besides: readonly string[] = [],
): Promise<{ readonly values: Record<string, string>; readonly secrets: string[] }> {
  const text = await readFile(file, "utf8").catch(() => {
    throw new Error(`There is no ${file}. --stack names another one.`);
  });
  const { config } = (parse(text) ?? {}) as { readonly config?: unknown };
  const given = Object.fromEntries(besides.map((name) => [`${configNamespace}:${name}`, { secure: "" }]));
  const found = Object.entries({ ...given, ...(isSection(config) ? config : {}) });
  const secrets = found.filter(([, value]) => isSealed(value)).map(([key]) => key);
  const certificate = secrets.includes(`${configNamespace}:tlsCertificate`)
    ? await madeUpCertificate(found)
    : {};
  const values = found.map(([key, value]) => {
    const name = key.slice(configNamespace.length + 1);
    if (isSealed(value)) return [key, certificate[name] ?? MADE_UP[name] ?? "made-up"];
    if (name === "ssh" && isSection(value)) {
      const { privateKeyFile, knownHostsFile, jumpHost, ...rest } = value;
      return [key, JSON.stringify(rest)];
    }
    return [key, typeof value === "string" ? value : JSON.stringify(unsealed(withHostKeys(value)))];
  });
  return { values: Object.fromEntries(values), secrets };
}

/** How a stack file keeps a secret. */
function isSealed(value: unknown): boolean {
  return isSection(value) && Object.keys(value).length === 1 && typeof value.secure === "string";
}

/** The secrets within a section are addresses of receivers. */
function unsealed(value: unknown): unknown {
  if (isSealed(value)) return "https://receiver.invalid/made-up";
  if (Array.isArray(value)) return value.map(unsealed);
  if (!isSection(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unsealed(inner)]));
}

/** A machine is what has a name and an address. */
function withHostKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withHostKeys);
  if (!isSection(value)) return value;
  const inner = Object.fromEntries(Object.entries(value).map(([key, part]) => [key, withHostKeys(part)]));
  const isMachine = typeof value.name === "string" && typeof value.address === "string";
  return isMachine ? { ...inner, hostKey: HOST_KEY } : inner;
}

/** A certificate of a day for the name that HTTPS is to have: a wrong one would be refused. */
async function madeUpCertificate(
  config: readonly (readonly [string, unknown])[],
): Promise<Record<string, string>> {
  const https = config.find(([key]) => key === `${configNamespace}:https`)?.[1];
  const name = String(isSection(https) ? https.serverName : "");
  const kind = parseIPv4(name) === undefined ? "DNS" : "IP";
  const base = join(tmpdir(), `cosyvoice-lvs-dev-${process.pid}`);
  try {
    await execa("openssl", [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"],
      ...["-subj", `/CN=${name}`, "-addext", `subjectAltName=${kind}:${name}`],
      ...["-keyout", `${base}.key`, "-out", `${base}.pem`],
    ]);
    const [tlsCertificate, tlsKey] = await Promise.all(
      [`${base}.pem`, `${base}.key`].map((file) => readFile(file, "utf8")),
    );
    return { tlsCertificate: tlsCertificate ?? "", tlsKey: tlsKey ?? "" };
  } finally {
    await Promise.all([`${base}.pem`, `${base}.key`].map((file) => rm(file, { force: true })));
  }
}
