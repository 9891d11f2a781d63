import { execa } from "execa";

/**
 * Installs the Debian packages that are missing, after naming them; through `sudo` for an ordinary user.
 *
 * @throws when a package cannot be had, with the command to run by hand.
 */
export async function ensurePackages(packages: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of packages) {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query has its own
    const { stdout } = await execa("dpkg-query", ["-W", "-f", "${db:Status-Status}", name], {
      reject: false,
    });
    if (stdout !== "installed") missing.push(name);
  }
  if (missing.length === 0) return;
  console.log(`Installing packages that the tests need: ${missing.join(" ")}`);
  const root = process.getuid?.() === 0 ? [] : ["sudo"];
  const apt = (...args: string[]) => {
    const [program = "apt-get", ...rest] = [
      ...root,
      "env",
      "DEBIAN_FRONTEND=noninteractive",
      "apt-get",
      "-qq",
      ...args,
    ];
    return execa(program, rest, { stdout: "ignore", stderr: "inherit" });
  };
  const install = () => apt("install", "-y", "--no-install-recommends", ...missing);
  try {
    await apt("update");
    await install();
  } catch (error) {
    throw new Error(`Could not install ${missing.join(" ")}. By hand: apt-get install ${missing.join(" ")}`, {
      cause: error,
    });
  }
}
