import { X509Certificate } from "node:crypto";
import { isIPv4 } from "node:net";
import { certificateMistakes, fingerprintOf } from "../../config/certificate";

/** A certificate with its issuers', and its key; in PEM. */
export interface Issued {
  readonly certificate: string;
  readonly key: string;
}

/** What this has to do with a stack. */
export interface CertificateStack {
  /** A value of its configuration, a secret too; undefined when it is not set. */
  get(key: string): Promise<string | undefined>;
  setSecret(key: string, text: string): Promise<void>;
  /** The certificate that the last deployment brought to the real servers. */
  deployed(): Promise<string | undefined>;
  /** @throws when it fails. */
  deploy(): Promise<void>;
}

export interface KeepOptions {
  /** Days before its end from which on a certificate is replaced. */
  readonly days: number;
  readonly issue: (serverName: string) => Promise<Issued>;
  readonly now: () => Date;
  readonly say: (text: string) => void;
  /** Whether what is set is deployed, too. @default true */
  readonly deploy?: boolean;
}

const DAY = 24 * 3600_000;

/**
 * Replaces a stack's certificate when that is due, and deploys it. Whatever an earlier run left undone is done now: it can be
 * run every day, and does nothing on most of them.
 *
 * @throws when the stack has no use for a certificate from elsewhere, none is to be had, or the deployment fails.
 */
export async function keepCertificate(
  stack: CertificateStack,
  { days, issue, now, say, deploy = true }: KeepOptions,
): Promise<void> {
  const serverName = await nameOf(stack);
  let certificate = await stack.get("tlsCertificate");
  const key = await stack.get("tlsKey");
  const due = reasonToRenew({ certificate, key }, serverName, now(), days);
  if (due !== undefined) {
    say(`${serverName}: ${due}; a new certificate is asked for`);
    const issued = await issue(serverName);
    const [mistake] = certificateMistakes(issued, serverName, now());
    if (mistake !== undefined)
      throw new Error(
        `The certificate that was issued cannot be used: ${mistake.secret} ${mistake.message}.`,
      );
    certificate = issued.certificate;
    await stack.setSecret("tlsKey", issued.key);
    await stack.setSecret("tlsCertificate", certificate);
  }
  if (certificate === undefined) return;
  const until = new X509Certificate(certificate).validTo;
  if (!deploy) {
    say(`${serverName}: the certificate that is valid until ${until} is set, and not deployed`);
    return;
  }
  const deployed = await stack.deployed();
  if (deployed !== undefined && fingerprintOf(deployed) === fingerprintOf(certificate)) {
    say(`${serverName}: the certificate is valid until ${until}, and deployed`);
    return;
  }
  say(`${serverName}: the certificate that is valid until ${until} is being deployed`);
  await stack.deploy();
}

async function nameOf(stack: CertificateStack): Promise<string> {
  const [enabled, source, serverName] = await Promise.all(
    ["https.enabled", "https.certificate", "https.serverName"].map((key) => stack.get(key)),
  );
  if (enabled !== "true") throw new Error("https.enabled is not true: nothing would show the certificate.");
  if (source !== undefined && source !== "config")
    throw new Error(`https.certificate is ${source}: set it to config for a certificate from elsewhere.`);
  if (serverName === undefined || isIPv4(serverName))
    throw new Error(
      `https.serverName is ${serverName ?? "not set"}: a DNS record proves a name, such as speech.example.org.`,
    );
  return serverName;
}

/** Why a certificate must be replaced; undefined when it need not. */
function reasonToRenew(
  texts: { certificate: string | undefined; key: string | undefined },
  serverName: string,
  now: Date,
  days: number,
): string | undefined {
  if (texts.certificate === undefined || texts.key === undefined) return "no certificate and key are set";
  const [mistake] = certificateMistakes(texts, serverName, now);
  if (mistake !== undefined) return `${mistake.secret} ${mistake.message}`;
  const { validTo } = new X509Certificate(texts.certificate);
  const left = (Date.parse(validTo) - now.getTime()) / DAY;
  return left < days ? `the certificate ends on ${validTo}` : undefined;
}
