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
