/**
 * What no single value can get wrong: how values fit together. Every check takes what is sound of the stack file and passes
 * over what is not (the schema has named that), so that all mistakes come at once.
 */
import type { Path } from "./keys";
import type { ParsedConfig } from "./schema";
import { withAwsMachines } from "./validateAws";
import { checkLoadBalancer, checkVrrp } from "./validateDirectors";
import { checkHttps } from "./validateHttps";
import { checkHostKeys, checkMachines, checkPlatform, checkPorts, checkStorage } from "./validateMachines";
import { checkMonitoring } from "./validateMonitoring";
import { checkApp, checkService, checkVerification } from "./validateService";

/** A mistake between values. */
export interface Conflict {
  readonly path: Path;
  readonly message: string;
  readonly fix: string;
  /** What to show instead of the value, where that is a secret. */
  readonly secret?: string;
}

type DeepPartial<T> = T extends readonly (infer E)[]
  ? (DeepPartial<E> | undefined)[]
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> | undefined }
    : T;

/** What is sound of a stack file. A value that is missing or refused is `undefined`. */
export type Draft = DeepPartial<ParsedConfig> & {
  readonly secrets: {
    readonly vrrpPassword: boolean;
    readonly vrrpPasswordText: string | undefined;
    readonly peerKey: boolean;
    readonly peerKeyText: string | undefined;
    readonly tlsCertificate: boolean;
    readonly tlsCertificateText: string | undefined;
    readonly tlsKey: boolean;
    readonly tlsKeyText: string | undefined;
    readonly apiKeys: boolean;
    readonly apiKeysText: string | undefined;
    readonly httpUsers: boolean;
    readonly httpUsersText: string | undefined;
    readonly receiverSecrets: boolean;
    readonly receiverSecretTexts: Readonly<Record<string, unknown>> | undefined;
    readonly monitoringPassword: boolean;
    readonly monitoringPasswordText: string | undefined;
    readonly sshPrivateKey: boolean;
  };
  /** Paths that the schema has refused: what is `undefined` for that reason is not missing. */
  readonly refused: ReadonlySet<string>;
  /** The time at which certificates must be valid. */
  readonly now: Date;
};

/** Takes one conflict. */
export type Report = (path: Path, message: string, fix: string, secret?: string) => void;

/** Finds every conflict. Pure; the order is that of the checks. */
export function findConflicts(draft: Draft): Conflict[] {
  const conflicts: Conflict[] = [];
  const report: Report = (path, message, fix, secret) =>
    conflicts.push({ path, message, fix, ...(secret === undefined ? {} : { secret }) });
  const complete = withAwsMachines(draft);
  checkPlatform(draft, report);
  checkSecrets(draft, report);
  checkVrrp(complete, report);
  checkLoadBalancer(complete, report);
  checkHttps(complete, report);
  checkService(complete, report);
  checkApp(complete, report);
  checkMachines(draft, report);
  checkStorage(draft, report);
  checkPorts(draft, report);
  checkHostKeys(draft, report);
  checkVerification(draft, report);
  checkMonitoring(complete, report);
  return conflicts;
}

function checkSecrets(draft: Draft, report: Report): void {
  const { secrets, vrrp, ssh } = draft;
  const set = "run: pulumi config set --secret vrrpPassword (1 to 8 letters, digits or . _ - + = / , :)";
  if (vrrp?.authentication === "PASS" && !secrets.vrrpPassword) {
    report(["vrrpPassword"], "is not set, but vrrp.authentication is PASS", set);
  }
  if (secrets.vrrpPassword && vrrp?.authentication === "none") {
    report(
      ["vrrpPassword"],
      "is set, but vrrp.authentication is none",
      "run: pulumi config rm vrrpPassword, or set vrrp.authentication to PASS",
      "(a secret)",
    );
  }
  const password = secrets.vrrpPasswordText;
  if (password !== undefined && (password.length > 8 || password.length === 0)) {
    report(["vrrpPassword"], `has ${password.length} characters, but VRRP takes 1 to 8`, set, "(a secret)");
  } else if (password !== undefined && !/^[A-Za-z0-9._+=/,:-]+$/.test(password)) {
    report(
      ["vrrpPassword"],
      "has characters that have a special meaning in keepalived.conf",
      set,
      "(a secret)",
    );
  }
  const keys = secrets.peerKeyText?.split(",");
  if (
    keys !== undefined &&
    (keys.length > 2 || keys.some((key) => !/^[A-Za-z0-9._+/=-]{32,128}$/.test(key)))
  ) {
    report(
      ["peerKey"],
      "is neither one key of 32 to 128 letters, digits or . _ + / = - nor two such keys separated by a comma",
      "run: openssl rand -hex 32 | pulumi config set --secret peerKey",
      "(a secret)",
    );
  }
  if (secrets.sshPrivateKey && ssh?.privateKeyFile !== undefined) {
    report(
      ["ssh", "privateKeyFile"],
      "is given, and the secret sshPrivateKey is set too",
      "keep only one of them",
    );
  }
}
