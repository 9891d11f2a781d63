import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import type { Issued } from "./keep";

export interface LegoOptions {
  /** Where lego keeps its account and what was issued: what an interrupted run got is not asked for again. */
  readonly directory: string;
  readonly email: string;
  /** The DNS provider, by the name that lego has for it. Its credentials are in the environment, as lego documents. */
  readonly dns: string;
  /** URL of the CA's directory. @default Let's Encrypt */
  readonly server?: string | undefined;
  /** Other options of lego. */
  readonly more?: readonly string[];
}

/**
 * Has lego get a certificate by a DNS record, which needs no port of the VIP; one that lego already has is renewed when it ends
 * within so many days.
 *
 * @throws with lego's last words.
 */
export async function issueByLego(
  serverName: string,
  days: number,
  { directory, email, dns, server, more = [] }: LegoOptions,
): Promise<Issued> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const file = (end: string) => join(directory, "certificates", `${serverName}.${end}`);
  const args = [
    ...["--accept-tos", "--email", email, "--domains", serverName, "--dns", dns],
    ...["--key-type", "ec256", "--path", directory],
    ...(server === undefined ? [] : ["--server", server]),
    ...more,
    // Its own pause by chance is for a thousand machines that renew at the same minute.
    ...(existsSync(file("crt")) ? ["renew", "--days", String(days), "--no-random-sleep"] : ["run"]),
  ];
  const { failed, exitCode, all, message } = await execa("lego", args, {
    reject: false,
    all: true,
    stdin: "ignore",
  });
  if (exitCode === undefined) throw new Error(`lego cannot be run (${message}): apt-get install lego`);
  if (failed) throw new Error(`lego did not get a certificate: ${lastLines(all ?? "")}`);
  const [certificate, key] = await Promise.all(
    [file("crt"), file("key")].map((path) => readFile(path, "utf8")),
  );
  return { certificate: certificate ?? "", key: key ?? "" };
}

function lastLines(text: string): string {
  return text.trim().split("\n").slice(-3).join(" ");
}
