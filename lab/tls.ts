import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { network } from "./machines";

const names = [`IP:${network.vip}`, "IP:127.0.0.1", "DNS:localhost"];

/**
 * One lab's certificates, in a directory of its state: a CA, made once, and a certificate that it signs. They come into the
 * stack as everybody's do, as secrets.
 */
export class LabTls {
  constructor(private readonly directory: string) {}

  /** Path of the CA's certificate, for whoever is to trust the lab: `curl --cacert`. */
  get caFile(): string {
    return join(this.directory, "ca.pem");
  }

  /** Makes what is not there yet. */
  async ensure(): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    if (!existsSync(this.caFile)) {
      await this.makeKey("ca");
      await this.openssl(
        ...["req", "-x509", "-new", "-key", "ca.key", "-out", "ca.pem", "-days", "3650"],
        ...["-subj", "/CN=cosyvoice-lvs lab", "-addext", "keyUsage=critical,keyCertSign"],
      );
    }
    if (!existsSync(join(this.directory, "server.pem"))) await this.renew();
  }

  /**
   * Makes a new key and a new certificate for it. Who trusts the CA notices nothing.
   *
   * @param days how long it is valid
   */
  async renew(days = 365): Promise<void> {
    const extensions = [
      `subjectAltName=${names.join(",")}`,
      "extendedKeyUsage=serverAuth",
      "basicConstraints=CA:FALSE",
    ];
    await writeFile(join(this.directory, "extensions"), `${extensions.join("\n")}\n`);
    await this.makeKey("new");
    await this.openssl("req", "-new", "-key", "new.key", "-out", "new.csr", "-subj", "/CN=cosyvoice");
    await this.openssl(
      ...["x509", "-req", "-in", "new.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
      ...["-days", String(days), "-extfile", "extensions", "-out", "new.pem"],
    );
    for (const end of ["key", "pem"])
      await rename(join(this.directory, `new.${end}`), join(this.directory, `server.${end}`));
  }

  /** The chain, as the stack's secret has it. */
  async certificate(): Promise<string> {
    return (
      (await readFile(join(this.directory, "server.pem"), "utf8")) + (await readFile(this.caFile, "utf8"))
    );
  }

  async key(): Promise<string> {
    return readFile(join(this.directory, "server.key"), "utf8");
  }

  private async makeKey(name: string): Promise<void> {
    await this.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", `${name}.key`);
  }

  private async openssl(...args: string[]): Promise<void> {
    await execa("openssl", args, { cwd: this.directory, stdin: "ignore" });
  }
}
