import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as pulumi from "@pulumi/pulumi";
import { Cluster } from "./components/cluster";
import { endWithEngine } from "./components/engine";
import { hostMachines } from "./components/platform/hosts";
import { packRelease } from "./components/release";
import { preflight } from "./components/remote/preflight";
import { formatProblems, parseConfig, rawFromStack } from "./config/load";
import { cacheDir } from "./scripts/lib/paths";

endWithEngine();

const parsed = parseConfig(rawFromStack(pulumi.runtime.allConfig()));
if (!parsed.ok) throw new pulumi.RunError(formatProblems(parsed.problems));
const { config } = parsed;
if (config.platform === "aws") {
  throw new pulumi.RunError(
    "platform: aws is not there yet. The configuration is valid, and nothing was touched. Use platform: hosts with machines that you have.",
  );
}

if (config.service.engine === "cosyvoice") {
  throw new pulumi.RunError(
    "service.engine: cosyvoice is not there yet, and nothing was touched. Use engine: cpu (espeak-ng), which goes through the same code path.",
  );
}

const secrets = new pulumi.Config();
const found = hostMachines({ config, privateKey: secrets.getSecret("sshPrivateKey") });
if ("problems" in found) throw new pulumi.RunError(formatProblems(found.problems));
const { machines } = found;
if (!pulumi.runtime.isDryRun()) await preflight(machines);

// Tests deploy other versions of the app.
const app = process.env.COSYVOICE_LVS_APP ?? fileURLToPath(new URL("app", import.meta.url));

const cluster = new Cluster("cosyvoice", {
  config,
  machines,
  release: packRelease(app, join(cacheDir(), "releases")),
  vrrpPassword: secrets.getSecret("vrrpPassword"),
  peerKey: secrets.getSecret("peerKey"),
  receiverSecrets: secrets.getSecretObject<Record<string, string>>("receiverSecrets"),
});

/** Where clients find the service. */
export const url = cluster.url;
/**
 * What `scripts/cluster` needs to reach the machines. Kept as a secret because it is nobody's business who reads a
 * preview on a pull request, and because it would bury the URL below pages of addresses.
 */
export const inventory = pulumi.secret({
  vip: config.vip,
  port: config.port,
  ssh: {
    privateKeyFile: config.ssh.privateKeyFile,
    connectTimeout: config.ssh.connectTimeout,
    jumpHost: machines[0]?.access.jumpHost,
  },
  machines: machines.map(({ name, role, endpoint }) => ({ name, role, ...endpoint })),
});
