import { paths } from "../paths";
import { renderYaml } from "../yaml";
import type { Watched } from "./alert";

/** Who may log in to what watches. */
export const ADMIN = "admin";

/** Whether Prometheus and Alertmanager ask for the password. */
export function hasPassword({ secretsSet }: Pick<Watched, "secretsSet">): boolean {
  return secretsSet.monitoringPassword;
}

/**
 * Whom Prometheus and Alertmanager let in. They read it with every request.
 *
 * @param hash bcrypt's of the password
 */
export function renderWebConfig(hash: string): string {
  return renderYaml({ basic_auth_users: { [ADMIN]: hash } });
}

/** The password, for curl: `curl --config`, so that it is not an argument that everybody on the machine can read. */
export function renderCurlConfig(password: string): string {
  return `user = "${ADMIN}:${password}"\n`;
}

/** How one of them asks another one. */
export function basicAuth(config: Watched): Record<string, unknown> {
  if (!hasPassword(config)) return {};
  return { basic_auth: { username: ADMIN, password_file: paths.watchPassword } };
}

/** What lets root's curl in, as arguments. */
export function curlAccess(config: Watched): string {
  return hasPassword(config) ? ` --config ${paths.watchCurl}` : "";
}
