/** A real nginx for tests, of the distribution, and certificates that are made for the moment. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { paths, renderApiKeys, renderHttpUsers } from "../../render";
import { cacheDir } from "../../scripts/lib/paths";

/**
 * The path of nginx. Where the package is not installed it is only downloaded and unpacked: installing it would start a web
 * server on this computer.
 */
export function nginxProgram(): string {
  const installed = "/usr/sbin/nginx";
  const unpacked = join(cacheDir(), "nginx");
  if (existsSync(installed)) return installed;
  const program = join(unpacked, "usr/sbin/nginx");
  if (existsSync(program)) return program;
  mkdirSync(cacheDir(), { recursive: true });
  const folder = mkdtempSync(join(cacheDir(), "nginx-"));
  try {
    execFileSync("sh", ["-c", "apt-get -q download nginx && dpkg-deb -x nginx_*.deb unpacked"], {
      cwd: folder,
      stdio: "pipe",
    });
    renameSync(join(folder, "unpacked"), unpacked);
  } catch (error) {
    throw new Error("nginx is not installed and could not be downloaded: apt-get install nginx", {
      cause: error,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return program;
}

/** The keys and the login (`made-up`, `made-up-password`) of {@link placeFrontDoor}. */
export const madeUpApiKeys = ["a-made-up-key-for-nginx", "another.made_up.key.for.nginx"] as const;

const openssl = (...args: string[]) => execFileSync("openssl", args, { encoding: "utf8", stdio: "pipe" });

/** A key and a certificate for a name and 127.0.0.1, which vouches for itself. */
export function makeCertificate(folder: string, name = "speech.example.org", days = 1) {
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-keyout", key, "-out", certificate, "-days", String(days), "-subj", "/CN=made up"],
    ...["-addext", `subjectAltName=DNS:${name},IP:127.0.0.1`],
  );
  return { key, certificate };
}

/** Puts a rendered nginx.conf and what it reads into a folder, with the machine's paths replaced by it. */
export function placeFrontDoor(folder: string, text: string): void {
  mkdirSync(join(folder, "state"), { recursive: true });
  if (!existsSync(join(folder, "key.pem"))) makeCertificate(folder);
  const hash = openssl("passwd", "-6", "-salt", "made-up", "made-up-password").trim();
  writeFileSync(join(folder, "users"), renderHttpUsers(`made-up:${hash}`));
  writeFileSync(join(folder, "api-keys.conf"), renderApiKeys(madeUpApiKeys.join(",")));
  // Ports that need no right.
  const here = text
    .replaceAll(`${paths.frontDoorState}/`, `${folder}/state/`)
    .replaceAll(`${paths.frontDoor}/`, `${folder}/`)
    .replace(/listen (80|443)\b/g, "listen 1$1");
  writeFileSync(join(folder, "nginx.conf"), here);
}

/** What every nginx in a folder is started with. */
export function nginxArguments(folder: string): string[] {
  return ["-e", "stderr", "-g", `daemon off; pid ${folder}/pid;`, "-c", join(folder, "nginx.conf")];
}

/** What nginx says about the configuration in a folder; nothing when it takes it. */
export function testFrontDoor(folder: string): string {
  const { stdout, stderr, status } = spawnSync(nginxProgram(), [...nginxArguments(folder), "-t", "-q"], {
    encoding: "utf8",
  });
  return status === 0 ? stdout + stderr : `exit ${status}: ${stdout}${stderr}`;
}
