/** What can be said of a certificate and its key before any machine has them. */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { isIPv4 } from "node:net";

/** Texts in PEM, as the secrets hold them. */
export interface CertificateTexts {
  readonly certificate: string | undefined;
  readonly key: string | undefined;
}

/** One mistake in one of the two. */
export interface CertificateMistake {
  readonly secret: "tlsCertificate" | "tlsKey";
  readonly message: string;
  readonly fix: string;
}

const setCertificate =
  "run: pulumi config set --secret tlsCertificate < fullchain.pem (the server's certificate first, then its issuers')";
const setKey =
  "run: pulumi config set --secret tlsKey < privkey.pem (the key of that certificate, without a passphrase)";

/**
 * Every mistake in a chain and a key: what they are, whether they belong together, whether browsers take them for this
 * name at this time.
 *
 * @param serverName a DNS name or an IPv4 address; undefined when it is not known
 */
export function certificateMistakes(
  { certificate, key }: CertificateTexts,
  serverName: string | undefined,
  now: Date,
): CertificateMistake[] {
  const mistakes: CertificateMistake[] = [];
  const ofCertificate = (message: string, fix = setCertificate) =>
    mistakes.push({ secret: "tlsCertificate", message, fix });
  const ofKey = (message: string, fix = setKey) => mistakes.push({ secret: "tlsKey", message, fix });

  const privateKey = key === undefined ? undefined : readKey(key);
  if (typeof privateKey === "string") ofKey(privateKey);
  else if (privateKey !== undefined) {
    const weakness = weaknessOf(privateKey);
    if (weakness !== undefined)
      ofKey(weakness, "create a new key, such as with: openssl ecparam -name prime256v1 -genkey -noout");
  }

  const chain = certificate === undefined ? undefined : readChain(certificate);
  if (typeof chain === "string") ofCertificate(chain);
  else if (chain !== undefined) {
    const [leaf, ...issuers] = chain;
    if (typeof privateKey === "object" && !leaf.checkPrivateKey(privateKey))
      ofKey("is not the key of the first certificate in tlsCertificate");
    if (serverName !== undefined && !isFor(leaf, serverName))
      ofCertificate(
        `is for ${leaf.subjectAltName ?? "no name"}, but https.serverName is ${serverName}`,
        "get a certificate for that name, or set https.serverName to a name that it is for",
      );
    for (const [index, one] of chain.entries()) {
      const what = index === 0 ? "the certificate" : `certificate ${index + 1} of the chain`;
      if (now > new Date(one.validTo))
        ofCertificate(`has expired: ${what} was valid until ${one.validTo}`, "renew it, then set it");
      if (now < new Date(one.validFrom))
        ofCertificate(
          `is not valid yet: ${what} is valid from ${one.validFrom} on`,
          "wait, or correct this computer's clock",
        );
    }
    for (const [index, issuer] of issuers.entries()) {
      const issued = chain[index];
      if (issued !== undefined && !(issued.checkIssued(issuer) && issued.verify(issuer.publicKey)))
        ofCertificate(`is not a chain: certificate ${index + 2} did not issue the one before it`);
    }
  }
  return mistakes;
}

/** SHA-256 of the first certificate in a PEM text, as hexadecimal digits. @throws when there is none. */
export function fingerprintOf(certificate: string): string {
  return new X509Certificate(certificate).fingerprint256.replaceAll(":", "").toLowerCase();
}

/** SHA-256 of the public key in the first certificate of a PEM text, in base64, as `curl --pinnedpubkey` takes it. @throws when there is none. */
export function pinOf(certificate: string): string {
  const { publicKey } = new X509Certificate(certificate);
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("base64");
}

/** The key, or what is wrong with the text. */
function readKey(text: string): KeyObject | string {
  if (/ENCRYPTED/.test(text)) return "has a passphrase, which nobody is there to type when nginx starts";
  try {
    return createPrivateKey(text);
  } catch {
    return "is not a private key in PEM";
  }
}

function weaknessOf(key: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === "rsa") {
    const bits = details?.modulusLength ?? 0;
    return bits < 2048 ? `is an RSA key of ${bits} bits, but browsers require 2048 or more` : undefined;
  }
  if (type === "ec") {
    const curve = details?.namedCurve ?? "";
    return ["prime256v1", "secp384r1"].includes(curve)
      ? undefined
      : `is a key on the curve ${curve}, but browsers know only prime256v1 and secp384r1`;
  }
  return `is a key of type ${type}, but browsers know only RSA and ECDSA`;
}

/** The certificates, the server's first; or what is wrong with the text. */
function readChain(text: string): [X509Certificate, ...X509Certificate[]] | string {
  if (/PRIVATE KEY/.test(text)) return "contains a private key, which belongs in tlsKey";
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  const chain: X509Certificate[] = [];
  for (const block of blocks) {
    try {
      chain.push(new X509Certificate(block));
    } catch {
      return `is not PEM from certificate ${chain.length + 1} on`;
    }
  }
  const [leaf, ...issuers] = chain;
  return leaf === undefined ? "is not a certificate in PEM" : [leaf, ...issuers];
}

function isFor(leaf: X509Certificate, serverName: string): boolean {
  return isIPv4(serverName)
    ? leaf.checkIP(serverName) !== undefined
    : leaf.checkHost(serverName, { subject: "never" }) !== undefined;
}
