/** How the keys of `https` and its secrets fit together, and with the rest. */
import { certificateMistakes } from "./certificate";
import { DOOR_HEALTH_PORT, REDIRECT_PORT } from "./schema";
import type { Draft, Report } from "./validate";

/** Finds what is wrong with HTTPS as a whole. */
export function checkHttps(draft: Draft, report: Report): void {
  const { https } = draft;
  if (https === undefined) return;
  if (https.enabled !== true) {
    checkNotNeeded(draft, report);
    return;
  }
  if (https.serverName === undefined && !draft.refused.has("https.serverName")) {
    report(
      ["https", "serverName"],
      "is missing",
      "write the name that clients use, such as speech.example.org",
    );
  }
  checkCertificate(draft, report);
  checkPorts(draft, report);
  checkAccess(draft, report);
  if (https.plainPort === "closed" && draft.loadBalancer?.sorryServer !== undefined) {
    report(
      ["loadBalancer", "sorryServer"],
      "stands in for the pool at `port`, which https.plainPort closes",
      "leave sorryServer out, or set https.plainPort to open",
    );
  }
  if (https.hsts !== undefined && https.hsts > 0 && https.plainPort !== "closed") {
    report(
      ["https", "hsts"],
      "makes browsers refuse the name without HTTPS, but https.plainPort is open",
      "write 0, or set plainPort to closed",
    );
  }
  if (draft.loadBalancer?.forwarding === "NAT") {
    for (const key of ["requestsPerSecond", "connections"] as const) {
      if ((https[key] ?? 0) > 0)
        report(
          ["https", key],
          "limits each client address, but with forwarding NAT all clients have the director's",
          "leave it out, or use forwarding DR or TUN",
        );
    }
  }
}

/** A secret that nothing uses is a mistake: somebody believes that it does something. */
function checkNotNeeded(draft: Draft, report: Report): void {
  for (const secret of ["tlsCertificate", "tlsKey", "apiKeys", "httpUsers"] as const) {
    if (draft.secrets[secret])
      report(
        [secret],
        "is set, but https.enabled is not true",
        `set https.enabled to true, or run: pulumi config rm ${secret}`,
        "(a secret)",
      );
  }
}

function checkCertificate({ https, secrets, now }: Draft, report: Report): void {
  const given = ["tlsCertificate", "tlsKey"] as const;
  if (https?.certificate === "selfSigned") {
    for (const secret of given.filter((name) => secrets[name])) {
      report(
        [secret],
        "is set, but https.certificate is selfSigned",
        `run: pulumi config rm ${secret}, or set https.certificate to config`,
        "(a secret)",
      );
    }
    return;
  }
  if (https?.certificate !== "config") return;
  for (const secret of given.filter((name) => !secrets[name])) {
    report(
      [secret],
      "is not set, but https.certificate is config",
      `run: pulumi config set --secret ${secret} < ${secret === "tlsKey" ? "privkey.pem" : "fullchain.pem"}, or set https.certificate to selfSigned`,
    );
  }
  const texts = { certificate: secrets.tlsCertificateText, key: secrets.tlsKeyText };
  for (const { secret, message, fix } of certificateMistakes(texts, https.serverName, now))
    report([secret], message, fix, "(a secret)");
}

function checkPorts(draft: Draft, report: Report): void {
  const { https, port, ssh, directors, realServers } = draft;
  const taken = new Map<number, string>([
    [22, "SSH's usual port"],
    [111, "the port of rpcbind"],
    [2049, "the port of NFS"],
    [7861, "the port on which the directors give out turns"],
    [DOOR_HEALTH_PORT, "the port on which nginx answers the directors' health checks"],
    ...(https?.redirect === false
      ? []
      : [[REDIRECT_PORT, "the port from which clients are sent to HTTPS"] as const]),
  ]);
  for (const machine of [...(directors ?? []), ...(realServers ?? [])]) {
    const used = machine?.ssh?.port ?? ssh?.port;
    if (used !== undefined && !taken.has(used)) taken.set(used, `the port of SSH on ${machine?.name}`);
  }
  if (https?.port !== undefined && taken.has(https.port)) {
    report(["https", "port"], `is ${taken.get(https.port)}`, "write a port of its own: 443 is usual");
  }
  if (port !== undefined && port === https?.port) {
    report(["https", "port"], "is also the service's `port`", "write 443, or give `port` another value");
  } else if (port === DOOR_HEALTH_PORT || (port === REDIRECT_PORT && https?.redirect !== false)) {
    report(["port"], `is ${taken.get(port)}`, "give the service a port of its own, such as 7860");
  }
}

/** Whether a password's hash is one of those that keep a processor busy for longer than a tenth of a second. */
function isCostly(line: string): boolean {
  const cost = Number(/:\$2[aby]\$(\d+)\$/.exec(line)?.[1] ?? 0);
  const rounds = Number(/:\$[56]\$rounds=(\d+)\$/.exec(line)?.[1] ?? 0);
  return cost > 10 || rounds > 100_000;
}

function checkAccess({ https, secrets }: Draft, report: Report): void {
  const keys = secrets.apiKeysText?.split(",");
  const set = "run: openssl rand -hex 32 | pulumi config set --secret apiKeys";
  if (keys?.some((key) => !/^[A-Za-z0-9._-]{20,128}$/.test(key)))
    report(
      ["apiKeys"],
      "is not a list, separated by commas, of keys of 20 to 128 letters, digits or . _ -",
      set,
      "(a secret)",
    );
  else if (keys !== undefined && new Set(keys).size < keys.length)
    report(["apiKeys"], "has the same key twice", "list every key once", "(a secret)");

  const lines = secrets.httpUsersText?.trimEnd().split("\n");
  const wrong = lines?.findIndex(
    (line) => !/^[A-Za-z0-9._@-]{1,64}:\$(1|5|6|2[aby]|y|apr1)\$[A-Za-z0-9./$=,]{8,200}$/.test(line),
  );
  if (wrong !== undefined && wrong >= 0)
    report(
      ["httpUsers"],
      `is not NAME:HASH in line ${wrong + 1}`,
      'for each user write a line NAME:HASH, with the hash of: openssl passwd -6 (a "$6$...")',
      "(a secret)",
    );
  const costly = lines?.findIndex(isCostly);
  if (wrong === -1 && costly !== undefined && costly >= 0)
    report(
      ["httpUsers"],
      `has in line ${costly + 1} a hash that takes long to compute: nginx computes it for every request, and all other requests wait`,
      'make it with: openssl passwd -6 (a "$6$..."), or bcrypt of cost 10 or less',
      "(a secret)",
    );
  if (secrets.httpUsers && !secrets.apiKeys)
    report(
      ["apiKeys"],
      "is not set, but httpUsers is: the verification at the end of a deployment could not log in",
      set,
    );
  if ((secrets.apiKeys || secrets.httpUsers) && https?.plainPort === "open")
    report(
      ["https", "plainPort"],
      "is open, which lets everybody in without a key, but apiKeys or httpUsers is set",
      "set it to closed",
    );
}
