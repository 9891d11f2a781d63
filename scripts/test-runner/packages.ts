import { execa } from "execa";
import { installPackages } from "../lib/debianPackages";

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
