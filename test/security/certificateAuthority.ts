/** A certificate authority of one's own on this computer, with the DNS that it believes: Let's Encrypt's test server, Pebble. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { freePortFrom } from "../../lab/ports";
import { cached } from "../../scripts/toolchain/cache";
import { makeCertificate } from "../golden/nginx";

const modules = fileURLToPath(new URL("pebble/", import.meta.url));
const PROGRAMS = ["pebble", "pebble-challtestsrv"] as const;

/** The folder with Pebble's programs, built from its Go module when they are not there yet. */
async function programs(): Promise<string> {
  const hash = createHash("sha256");
  for (const file of ["go.mod", "go.sum"]) hash.update(readFileSync(join(modules, file)));
  return cached(`pebble-${hash.digest("hex").slice(0, 16)}`, console.log, async (target) => {
    const packages = PROGRAMS.map((name) => `github.com/letsencrypt/pebble/v2/cmd/${name}`);
    await execa("go", ["build", "-ldflags", "-s -w", "-o", `${target}/`, ...packages], {
      cwd: modules,
      env: { GOFLAGS: "-mod=readonly -buildvcs=false -trimpath", GOWORK: "off", CGO_ENABLED: "0" },
    });
  });
}

export class CertificateAuthority {
  private readonly running: ChildProcess[] = [];
  private constructor(
    /** URL of the directory, for an ACME client. */
    readonly directory: string,
    /** Path of the certificate by which that URL is known. */
    readonly known: string,
    /** Where records of the DNS are asked for. */
    readonly resolver: string,
    /** A program that sets and removes a record, as lego's provider `exec` calls it. */
    readonly setRecord: string,
    private readonly management: string,
  ) {}

  /** Starts one; all that it needs is in this folder. */
  static async start(folder: string): Promise<CertificateAuthority> {
    const bin = await programs();
    const ports: number[] = [];
    while (ports.length < 4)
      ports.push(await freePortFrom((ports.at(-1) ?? 24_000 + (process.pid % 4000)) + 1));
    const [acme, management, dns, records] = ports.map((port) => `127.0.0.1:${port}`);
    mkdirSync(join(folder, "known"), { recursive: true });
    const { certificate, key } = makeCertificate(join(folder, "known"), "localhost");
    const pebble = {
      listenAddress: acme,
      managementListenAddress: management,
      certificate,
      privateKey: key,
      httpPort: 1,
      tlsPort: 1,
      retryAfter: { authz: 1, order: 1 },
      profiles: { default: { description: "made up", validityPeriod: 90 * 24 * 3600 } },
    };
    writeFileSync(join(folder, "pebble.json"), JSON.stringify({ pebble }));
    const setRecord = join(folder, "set-record");
    writeFileSync(
      setRecord,
      [
        "#!/bin/sh",
        '[ "$1" = present ] && what=set-txt || what=clear-txt',
        `exec curl -sf -d "{\\"host\\": \\"$2\\", \\"value\\": \\"$3\\"}" http://${records}/$what`,
        "",
      ].join("\n"),
    );
    chmodSync(setRecord, 0o755);
    const authority = new CertificateAuthority(
      `https://${acme}/dir`,
      certificate,
      dns ?? "",
      setRecord,
      `https://${management}`,
    );
    const off = ["http01", "https01", "tlsalpn01", "doh"].flatMap((server) => [`-${server}`, ""]);
    authority.run(join(bin, "pebble-challtestsrv"), [
      ...["-dns01", dns ?? "", "-management", records ?? "", ...off],
    ]);
    authority.run(
      join(bin, "pebble"),
      ["-config", join(folder, "pebble.json"), "-dnsserver", dns ?? ""],
      // No pauses and rejections by chance, and the DNS is asked each time.
      { PEBBLE_VA_NOSLEEP: "1", PEBBLE_WFE_NONCEREJECT: "0", PEBBLE_AUTHZREUSE: "0" },
    );
    for (const end = Date.now() + 15_000; ; await sleep(50)) {
      if (await authority.root().catch(() => undefined)) return authority;
      if (Date.now() > end) throw new Error("Pebble does not answer");
    }
  }

  private run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
    this.running.push(spawn(program, args, { stdio: "ignore", env: { ...process.env, ...env } }));
  }

  /** The certificate that whoever trusts this CA has. */
  root(): Promise<string> {
    return new Promise((resolve, reject) => {
      request(`${this.management}/roots/0`, { ca: readFileSync(this.known) }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("end", () => resolve(Buffer.concat(chunks).toString()));
        answer.on("error", reject);
      })
        .on("error", reject)
        .end();
    });
  }

  stop(): void {
    for (const one of this.running) one.kill();
  }
}
