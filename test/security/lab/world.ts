/** The lab as somebody runs it who is careful: HTTPS and nothing else, keys, packet filters. All of these tests meet it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { LabStack } from "../../../lab/stack";
import { repository } from "../../../scripts/lib/paths";
import { resolveToolchain } from "../../../scripts/toolchain";
import {
  applySettings,
  inside,
  lab,
  type Outcome,
  ownLab,
  restoreSettings,
  script,
  untilWell,
  up,
  VIP,
} from "../../lab/bench";
import { HOOK, hangUp, listen } from "../../monitoring/lab/hook";

export const stack = new LabStack(lab);

/** The lab's CA on the client machine. */
export const CA = "/root/lab-ca.pem";

/** Keys and passwords that can be told from everything else. */
export const planted = {
  apiKey: "planted-api-key-the-first",
  nextApiKey: "planted-api-key-the-second",
  password: "planted-password",
  /** Of what watches. */
  watchPassword: "planted-password-of-what-watches",
  /** Of that password, by `openssl passwd -6 -salt planted`. */
  passwordHash: "",
};

/** What deployments and previews said, for whoever looks for secrets in it. */
export const said: string[] = [];

/** Sets secrets of the stack, and says nothing of them to anybody. */
export async function setSecrets(secrets: Readonly<Record<string, string>>): Promise<void> {
  const toolchain = await resolveToolchain();
  for (const [name, text] of Object.entries(secrets)) await stack.setSecret(toolchain, name, text);
}

/** Deploys. */
export async function deploy(): Promise<Outcome> {
  const outcome = await up();
  said.push(outcome.output);
  return outcome;
}

let made: Promise<void> | undefined;

/** Makes it, once for all who ask. */
export function carefulLab(): Promise<void> {
  made ??= make();
  return made;
}

async function make(): Promise<void> {
  if (!(await lab.status()).running) assert.equal((await script("lab", "up", "--no-deploy")).exitCode, 0);
  const toolchain = await resolveToolchain();
  await stack.prepare(toolchain);
  await applySettings({
    "https.enabled": true,
    "https.plainPort": "closed",
    // Everything is deployed through the virtual machine.
    firewall: { enabled: true, admins: ["192.168.1.1"] },
    "monitoring.receivers": [{ name: "hook", kind: "webhook", url: HOOK }],
  });
  await stack.prepare(toolchain);
  planted.passwordHash = (
    await inside("client", `openssl passwd -6 -salt planted ${planted.password}`)
  ).trim();
  await setSecrets({
    apiKeys: planted.apiKey,
    httpUsers: `planted:${planted.passwordHash}`,
    monitoringPassword: planted.watchPassword,
  });
  await listen();
  assert.equal((await deploy()).exitCode, 0);
  await lab.exec("client", ["sh", "-c", `cat >${CA}`], { input: await readFile(stack.tls.caFile, "utf8") });
  await untilWell(120);
}

/** Leaves a lab of one's own off, and that of somebody else as it was found. */
export async function leaveLab(): Promise<void> {
  await hangUp();
  await restoreSettings();
  if (ownLab) await script("lab", "down");
  else assert.equal((await up()).exitCode, 0);
}

/** Runs one of the programs for the client machine there. */
export async function onClient(program: string, args: readonly string[], input?: string) {
  const text = await readFile(join(repository, "test/lab/clients", program), "utf8");
  const command = ["python3", ...(input === undefined ? ["-"] : ["-c", text]), ...args];
  const { stdout } = await lab.exec("client", command, { input: input ?? text });
  return JSON.parse(String(stdout));
}

/** What curl on the client machine gets, with the first API key; its exit code where it gets nothing. */
export const curl = (what: string, key = planted.apiKey) =>
  inside(
    "client",
    `curl -s -m 15 --cacert ${CA} -H 'Authorization: Bearer ${key}' -o /dev/null -w '%{http_code} %{redirect_url}' ${what}; echo " $?"`,
  );

/** The URL of a path of the service. */
export const at = (path: string) => `https://${VIP}${path}`;
