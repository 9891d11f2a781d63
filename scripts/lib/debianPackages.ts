import { execa } from "execa";

/**
 * Installs Debian packages on this computer, through `sudo` for an ordinary user.
 *
 * @param announce gets the line that names the packages, before anything is installed
 * @throws an Error with the command to run by hand, caused by what apt said.
 */
export async function installPackages(
  names: readonly string[],
  announce: (text: string) => void,
): Promise<void> {
  if (names.length === 0) return;
  announce(`installing on this computer: ${names.join(", ")}`);
  const prefix = process.getuid?.() === 0 ? [] : ["sudo"];
  const apt = async (...args: string[]) => {
    const words = [...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", ...args];
    const [program = "", ...rest] = words;
    // sudo may ask for a password.
    await execa(program, rest, { stdin: "inherit", stdout: "ignore", stderr: ["inherit", "pipe"] });
  };
  try {
    await apt("update");
    await apt("install", "--yes", "--no-install-recommends", ...names);
  } catch (error) {
    throw new Error(
      `These packages are missing and could not be installed: ${names.join(", ")}. As root: apt-get install ${names.join(" ")}`,
      { cause: error },
    );
  }
}

/** Installs those of the packages that are missing, after naming them. @throws with what to do by hand. */
export async function ensurePackages(packages: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of packages) {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query fills that in
    const query = ["-W", "-f", "${db:Status-Status}", name];
    const { stdout } = await execa("dpkg-query", query, { reject: false });
    if (stdout !== "installed") missing.push(name);
  }
  await installPackages(missing, console.log);
}
