import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as pulumi from "@pulumi/pulumi";
import { Cluster } from "./components/cluster";
import { endWithEngine } from "./components/engine";
import { growHeapSlowly } from "./components/heap";
import { hostMachines } from "./components/platform/hosts";
import { packRelease } from "./components/release";
import { preflight } from "./components/remote/preflight";
import { findEngine } from "./components/speechEngine";
import { forgetPromiseStacks } from "./components/stacks";
import { foreignAddresses } from "./components/verification";
import { formatProblems, parseConfig, rawFromStack } from "./config/load";
import { listeningPorts } from "./render/listeners";
import { servicePorts } from "./render/virtualServices";
import { cacheDir } from "./scripts/lib/paths";

endWithEngine();
forgetPromiseStacks();
growHeapSlowly();

const parsed = parseConfig(rawFromStack(pulumi.runtime.allConfig()));
if (!parsed.ok) throw new pulumi.RunError(formatProblems(parsed.problems));
const { config } = parsed;

const secrets = new pulumi.Config();
// Its SDK takes seconds to load.
const cloud =
  config.aws && (await (await import("./components/platform/aws")).awsPlatform(config, config.aws));
const machines = cloud?.machines ?? (await hosts());

// A branch is looked up in a preview, too: it shows the commit that would run.
const engine = config.service.engine === "cosyvoice" ? await findEngine(config) : undefined;
if (engine && "problems" in engine) throw new pulumi.RunError(formatProblems(engine.problems));

async function hosts() {
  const found = hostMachines({ config, privateKey: secrets.getSecret("sshPrivateKey") });
  if ("problems" in found) throw new pulumi.RunError(formatProblems(found.problems));
  if (!pulumi.runtime.isDryRun()) await preflight(found.machines);
  return found.machines;
}

// Tests deploy other versions of the app.
const app = process.env.COSYVOICE_LVS_APP ?? fileURLToPath(new URL("app", import.meta.url));

const cluster = new Cluster("cosyvoice", {
  config,
  machines,
  cloud,
  release: packRelease(app, join(cacheDir(), "releases")),
  engine,
  vrrpPassword: secrets.getSecret("vrrpPassword"),
  peerKey: secrets.getSecret("peerKey"),
  frontDoor: {
    tlsCertificate: secrets.getSecret("tlsCertificate"),
    tlsKey: secrets.getSecret("tlsKey"),
    apiKeys: secrets.getSecret("apiKeys"),
    httpUsers: secrets.getSecret("httpUsers"),
  },
  monitoringPassword: secrets.getSecret("monitoringPassword"),
  receiverSecrets: secrets.getSecretObject<Record<string, string>>("receiverSecrets"),
});

/** Where clients find the service. */
export const url = cluster.url;
/**
 * What `scripts/cluster` needs to reach the machines. Kept as a secret because it is nobody's business who reads a
 * preview on a pull request, and because it would bury the URL below pages of addresses.
 */
export const inventory = pulumi.secret({
  platform: config.platform,
  vip: config.vip,
  port: config.port,
  servicePort: servicePorts(config)[0],
  https: config.https && {
    serverName: config.https.serverName,
    port: config.https.port,
    certificate: cluster.certificate,
    apiKey: secrets.getSecret("apiKeys")?.apply((keys) => keys.split(",")[0]),
  },
  alertmanagerPort: config.monitoring?.ports.alertmanager,
  unchecked: config.aws && foreignAddresses(config),
  ssh: {
    privateKeyFile: config.ssh.privateKeyFile,
    // That of a file or of the stack's secrets is not written down a second time.
    privateKey: cloud && machines[0]?.access.privateKey,
    connectTimeout: config.ssh.connectTimeout,
    jumpHost: machines[0]?.access.jumpHost,
  },
  machines: machines.map(({ name, role, endpoint }) => ({
    name,
    role,
    ...endpoint,
    listens: listeningPorts(config, role),
  })),
});
