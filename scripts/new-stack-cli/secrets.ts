import { readFile } from "node:fs/promises";
import { expandHome } from "../../components/remote/openssh";
import type { Problem } from "../../config/problems";
import type { Answers } from "./answers";
import type { FutureSecrets } from "./check";

/**
 * What is known of the secrets that these answers lead to, so that the file can be checked with them: a certificate's files by
 * their texts; what ACME is going to bring, or what cannot be read, only as such.
 */
export async function futureSecrets({
  https,
}: Answers): Promise<{ readonly secrets: FutureSecrets; readonly problems: readonly Problem[] }> {
  const problems: Problem[] = [];
  const certificate = https?.certificate;
  if (certificate?.from === "acme") return { secrets: { tlsCertificate: true, tlsKey: true }, problems };
  if (certificate?.from !== "files") return { secrets: {}, problems };
  const read = (flag: string, file: string): Promise<string | true> =>
    readFile(expandHome(file), "utf8").catch((error: NodeJS.ErrnoException) => {
      problems.push({
        path: flag,
        value: file,
        message: `cannot be read (${error.code})`,
        fix: "name a file on this computer that you may read",
      });
      return true;
    });
  const [tlsCertificate, tlsKey] = [
    await read("--certificate", certificate.chain),
    await read("--certificate-key", certificate.key),
  ];
  return { secrets: { tlsCertificate, tlsKey }, problems };
}

/** The commands by which a new stack gets its secrets, each with what it is for. */
export function secretCommands(stack: string, { https, monitoring }: Answers): string[] {
  const set = (key: string) => `pulumi config set --secret ${key} --stack ${stack}`;
  return [
    `openssl rand -hex 32 | ${set("peerKey")}   # by which real servers know each other`,
    ...(https?.certificate.from === "files"
      ? [
          `${set("tlsCertificate")} < ${quoted(https.certificate.chain)}`,
          `${set("tlsKey")} < ${quoted(https.certificate.key)}`,
        ]
      : []),
    ...(https?.certificate.from === "acme"
      ? [`${certificateCommand(stack, https.certificate)} --no-deploy   # sets tlsCertificate and tlsKey`]
      : []),
    ...(monitoring
      ? [`openssl rand -hex 16 | ${set("monitoringPassword")}   # admin's, at Prometheus and Alertmanager`]
      : []),
  ];
}

/** What keeps the certificate fresh, run every day. */
export function certificateCommand(
  stack: string,
  { email, dns }: { readonly email: string; readonly dns: string },
): string {
  return `scripts/certificate --stack ${stack} --email ${quoted(email)} --dns ${quoted(dns)}`;
}

/** As the shell must be told. The home directory's sign stays what it is. */
function quoted(text: string): string {
  return /^[\w~.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
