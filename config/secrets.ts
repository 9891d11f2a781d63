/** The secrets that a stack may set. */
import type { About } from "./leaves";

/** Keys whose values are secrets: set with `pulumi config set --secret`, never part of a {@link ClusterConfig}. */
export const secrets = {
  vrrpPassword: {
    text: "The password of `vrrp.authentication: PASS`, 1 to 8 characters (keepalived ignores what is longer).",
  },
  peerKey: {
    text: "The key by which the real servers know each other (see `service.peers`), 32 to 128 letters, digits or . _ + / = -, such as `openssl rand -hex 32` prints. To change it without a gap: set `OLD,NEW`, deploy, set `NEW,OLD`, deploy, set `NEW`, deploy: the first is signed with, both are taken. A change restarts nothing.",
  },
  tlsCertificate: {
    text: "The certificate of `https.certificate: config` in PEM, followed by those of its issuers up to one that clients know: `pulumi config set --secret tlsCertificate < fullchain.pem`. A change is one deployment, which restarts nothing.",
  },
  tlsKey: {
    text: "Its private key in PEM, without a passphrase: `pulumi config set --secret tlsKey < privkey.pem`.",
  },
  apiKeys: {
    text: "Keys for programs, with commas between them, each of 20 to 128 letters, digits or . _ - as `openssl rand -hex 32` prints. With it, HTTPS answers only those who send `Authorization: Bearer KEY` or, with `httpUsers`, log in; the deployment itself asks with the first one. Needs `https.plainPort: closed`.",
  },
  httpUsers: {
    text: "People who may log in with a browser (HTTP basic authentication), a line each: `NAME:HASH`, with the hash that `openssl passwd -6` prints. Needs `apiKeys`.",
  },
  receiverSecrets: {
    text: "What must not be read by others about `monitoring.receivers`, by their names: `pulumi config set --secret --path receiverSecrets.NAME VALUE`. The URL of a webhook, of slack, dingtalk or wecom (with dingtalk, after a blank, the secret that the robot's calls are signed with); the SMTP password of email.",
  },
  monitoringPassword: {
    text: "The password by which Prometheus, Alertmanager and Grafana let `admin` in, 12 to 72 letters, digits or . _ + / = -, such as `openssl rand -hex 16` prints. Without it the first two ask for none.",
  },
  sshPrivateKey: {
    text: "Private key to log in with, as text. Instead of `ssh.privateKeyFile`, for pipelines that have no file.",
  },
} as const satisfies Record<string, About>;

/** A secret's key. */
export type SecretKey = keyof typeof secrets;

/** The secrets' keys. */
export const secretKeys = Object.keys(secrets) as readonly SecretKey[];
