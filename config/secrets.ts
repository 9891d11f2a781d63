/** The secrets that a stack may set. */
import type { About } from "./leaves";

/** Keys whose values are secrets: set with `pulumi config set --secret`, never part of a {@link ClusterConfig}. */
export const secrets = {
  vrrpPassword: {
    text: "The password of `vrrp.authentication: PASS`, 1 to 8 characters (keepalived ignores further ones).",
  },
  peerKey: {
    text: "The key with which the real servers authenticate each other (see `service.peers`): 32 to 128 letters, digits or . _ + / = -, such as `openssl rand -hex 32` prints. To change it without interruption, set `OLD,NEW` and deploy, set `NEW,OLD` and deploy, then set `NEW` and deploy: requests are signed with the first key, and both are accepted. A change restarts nothing.",
  },
  tlsCertificate: {
    text: "The certificate for `https.certificate: config` in PEM, followed by the intermediate certificates up to an issuer that clients trust: `pulumi config set --secret tlsCertificate < fullchain.pem`. A change takes one deployment, which restarts nothing.",
  },
  tlsKey: {
    text: "The certificate's private key in PEM, without a passphrase: `pulumi config set --secret tlsKey < privkey.pem`.",
  },
  apiKeys: {
    text: "API keys for programs, separated by commas, each of 20 to 128 letters, digits or . _ -, such as `openssl rand -hex 32` prints. When set, HTTPS answers only clients that send `Authorization: Bearer KEY` or, with `httpUsers`, log in. The verification of a deployment uses the first key. Needs `https.plainPort: closed`.",
  },
  httpUsers: {
    text: "Users who may log in with a browser (HTTP basic authentication), one per line: `NAME:HASH`, with the hash that `openssl passwd -6` prints. Needs `apiKeys`.",
  },
  receiverSecrets: {
    text: "The secret of each of `monitoring.receivers`, by its name: `pulumi config set --secret --path receiverSecrets.NAME VALUE`. For webhook, slack, dingtalk and wecom it is the URL (for dingtalk, optionally followed by a space and the robot's signing secret); for email it is the SMTP password.",
  },
  monitoringPassword: {
    text: "The password of the user `admin` of Prometheus, Alertmanager and Grafana: 12 to 72 letters, digits or . _ + / = -, such as `openssl rand -hex 16` prints. Without it, Prometheus and Alertmanager ask for no password.",
  },
  sshPrivateKey: {
    text: "Private key to log in with, as text. Use it instead of `ssh.privateKeyFile`, for example in a pipeline that has no file.",
  },
} as const satisfies Record<string, About>;

/** A secret's key. */
export type SecretKey = keyof typeof secrets;

/** The secrets' keys. */
export const secretKeys = Object.keys(secrets) as readonly SecretKey[];
