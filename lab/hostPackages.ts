import { execa } from "execa";
import { installPackages } from "../scripts/lib/debianPackages";
import { LabError, reason } from "./errors";

/** Debian packages that the lab needs on the user's computer, with a program that shows that they are there. */
const needed: readonly { name: string; program: string }[] = [
  { name: "qemu-system-x86", program: "qemu-system-x86_64" },
  { name: "mmdebstrap", program: "mmdebstrap" },
  { name: "e2fsprogs", program: "mkfs.ext4" },
  { name: "uidmap", program: "newuidmap" },
  { name: "openssh-client", program: "ssh" },
  { name: "openssl", program: "openssl" },
  { name: "debian-archive-keyring", program: "/usr/share/keyrings/debian-archive-keyring.gpg" },
];

/** PATH with the system's programs (`mkfs.ext4`), which an ordinary user's often lacks. */
export function systemPath(): { PATH: string } {
  return { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin` };
}

/** The needed packages whose program is not there; on other distributions than Debian the programs are what counts. */
async function missingPackages(): Promise<string[]> {
  const script =
    'for program; do command -v "$program" >/dev/null || test -r "$program" || echo "$program"; done';
  const { stdout } = await execa("sh", ["-c", script, "sh", ...needed.map(({ program }) => program)], {
    env: systemPath(),
  });
  const absent = new Set(stdout.split("\n"));
  return needed.filter(({ program }) => absent.has(program)).map(({ name }) => name);
}

/**
 * Installs the missing packages, after naming them to `announce`.
 *
 * @throws LabError when they cannot be installed, with the command to run by hand.
 */
export async function installMissingPackages(announce: (text: string) => void): Promise<void> {
  const missing = await missingPackages();
  try {
    await installPackages(missing, announce);
  } catch (error) {
    const cause = error instanceof Error ? error.cause : error;
    throw new LabError(
      `These packages are missing and could not be installed: ${missing.join(", ")}. ${reason(cause)}`,
      `As root: apt-get install ${missing.join(" ")}`,
      undefined,
      { cause: error },
    );
  }
}
