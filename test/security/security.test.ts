// The front door and the narrow ports, as somebody meets them who stands outside.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { fingerprintOf } from "../../config/certificate";
import { machineNamed } from "../../lab/machines";
import { LabStack } from "../../lab/stack";
import { listen, openBrowser, speakOnPage, visit } from "../../scripts/lib/browser";
import { repository } from "../../scripts/lib/paths";
import { resolveToolchain } from "../../scripts/toolchain";
import {
  applySettings,
  DIRECTORS,
  inside,
  lab,
  ownLab,
  REAL_SERVERS,
  restoreSettings,
  script,
  untilWell,
  up,
  VIP,
  withSettings,
} from "../lab/bench";

const stack = new LabStack(lab);
const CA = "/root/lab-ca.pem";

/** Runs one of clients/ on the client machine. */
async function onClient(program: string, args: readonly string[], input?: string) {
  const text = await readFile(join(repository, "test/lab/clients", program), "utf8");
  const command = ["python3", ...(input === undefined ? ["-"] : ["-c", text]), ...args];
  const { stdout } = await lab.exec("client", command, { input: input ?? text });
  return JSON.parse(String(stdout));
}

/** What curl on the client machine gets; its exit code where it gets nothing. */
const curl = (what: string) =>
  inside(
    "client",
    `curl -s -m 15 --cacert ${CA} -o /dev/null -w '%{http_code} %{redirect_url}' ${what}; echo " $?"`,
  );

describe("HTTPS", () => {
  before(async () => {
    if (!(await lab.status()).running) assert.equal((await script("lab", "up")).exitCode, 0);
    await applySettings({ "https.enabled": true });
    assert.equal((await up()).exitCode, 0);
    await lab.exec("client", ["sh", "-c", `cat >${CA}`], { input: await readFile(stack.tls.caFile, "utf8") });
    await untilWell(60);
  });

  after(async () => {
    await restoreSettings();
    if (ownLab) await script("lab", "down");
    else assert.equal((await up()).exitCode, 0);
  });

  it("is on every real server, for who trusts the lab's CA", async () => {
    const nodes = new Set<string>();
    for (let last = 200; last < 230; last += 1)
      nodes.add(
        await inside(
          "client",
          `curl -sSf -m 15 --cacert ${CA} --interface 192.168.1.${last} -o /dev/null -D - https://${VIP}/healthz | sed -n 's/^x-served-by: *//Ip' | tr -d '\r'`,
        ),
      );
    assert.deepEqual([...nodes].sort(), [...REAL_SERVERS]);
    assert.match(
      await inside("client", `curl -s -o /dev/null https://${VIP}/; echo $?`),
      /^60$/,
      "no CA, no trust",
    );
  });

  it("is where port 80 leads, and keeps to itself what nodes ask each other", async () => {
    assert.match(await curl(`http://${VIP}/v1/models`), new RegExp(`^308 https://${VIP}/v1/models 0`));
    for (const path of ["/metrics", "/readyz", "/peer/condition"])
      assert.match(await curl(`https://${VIP}${path}`), /^404 /, path);
  });

  it("reaches this computer: sound that comes while it is being made, and the page in a browser", async () => {
    const url = (await lab.httpsUrl()) ?? "";
    const ca = await readFile(stack.tls.caFile);
    const input = "One sentence after the other is being said here. ".repeat(12) + new Date().toISOString();
    const arrivals = await new Promise<number[]>((resolve, reject) => {
      const began = Date.now();
      const asked = request(
        new URL("/v1/audio/speech", url),
        { method: "POST", ca, headers: { "content-type": "application/json" } },
        (answer) => {
          const times: number[] = [];
          answer.on("data", () => times.push(Date.now() - began));
          answer.on("end", () => resolve(times));
          answer.on("error", reject);
        },
      );
      asked.on("error", reject);
      asked.end(JSON.stringify({ model: "cosyvoice", input, stream: true }));
    });
    const [first = 0, last = 0] = [arrivals[0], arrivals.at(-1)];
    console.log(`        first sound after ${first} ms, all of it after ${last} ms`);
    assert.ok(arrivals.length > 1 && first < last / 2, `${first} of ${last} ms`);

    const browser = await openBrowser();
    try {
      // Chromium keeps its own list of CAs; that the chain is good is seen above.
      const page = await (await browser.newContext({ locale: "en-US", ignoreHTTPSErrors: true })).newPage();
      await visit(page, url);
      const address = await speakOnPage(page, `Said by HTTPS at ${new Date().toISOString()}.`);
      assert.ok(address.startsWith(url), address);
      assert.ok((await listen(page, address)).duration > 1);
    } finally {
      await browser.close();
    }
  });

  it("takes a new certificate under load without a lost request or an ended stream", async () => {
    const before = fingerprintOf(await stack.tls.certificate());
    const load = onClient("https_load.py", [VIP, CA, "200", "249", "240"]);
    await stack.tls.renew();
    const toolchain = await resolveToolchain();
    await stack.setSecret(toolchain, "tlsCertificate", await stack.tls.certificate());
    await stack.setSecret(toolchain, "tlsKey", await stack.tls.key());
    assert.equal((await up()).exitCode, 0);
    const after = fingerprintOf(await stack.tls.certificate());
    const { asked, failed, certificates, stream } = await load;
    console.log(`        ${asked} requests, ${failed.length} lost: ${JSON.stringify(certificates)}`);
    assert.deepEqual(failed, []);
    assert.equal(stream, "open");
    assert.deepEqual(Object.keys(certificates).sort(), [before, after].sort());
  });

  it("goes on for the others when the nginx of one node is dead, and the plain port goes on with all", async () => {
    await inside("rs-2", "systemctl stop cosyvoice-front-door");
    try {
      for (let tries = 0; ; tries += 1) {
        const tables = await Promise.all(DIRECTORS.map((name) => inside(name, "ipvsadm -Ln")));
        const rows = tables.flatMap((table) => table.match(/192\.168\.1\.102:\d+/g) ?? []);
        if (rows.every((row) => row.endsWith(":7860")) && rows.length === 2) break;
        assert.ok(tries < 30, rows.join(" "));
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      for (let last = 200; last < 220; last += 1)
        assert.match(await curl(`--interface 192.168.1.${last} https://${VIP}/healthz`), /^200 /);
    } finally {
      await inside("rs-2", "systemctl start cosyvoice-front-door");
    }
  });
});

describe("narrow ports", () => {
  it("let in from outside what a role needs, and nothing else that listens", async () => {
    const settings = {
      "https.plainPort": "closed",
      // Everything is deployed through the virtual machine.
      firewall: { enabled: true, admins: ["192.168.1.1"] },
    };
    await withSettings(settings, async () => {
      assert.equal((await up()).exitCode, 0);
      await untilWell(60);
      const machines = [...DIRECTORS, ...REAL_SERVERS, "storage"];
      const listening = await Promise.all(
        machines.map(async (name) => {
          const ports = (await inside(name, "ss -Hltn")).match(/(?<=:)\d+(?= )/g) ?? [];
          return [
            name,
            { address: machineNamed(name).address, ports: [...new Set(ports.map(Number))] },
          ] as const;
        }),
      );
      for (const [name, { ports }] of listening)
        console.log(`        ${name} listens on ${ports.join(", ")}`);
      const targets = {
        ...Object.fromEntries(listening),
        vip: { address: VIP, ports: [22, 80, 443, 7860, 7861, 7862] },
      };
      assert.deepEqual(await onClient("reachable.py", [], JSON.stringify(targets)), {
        "director-1": [],
        "director-2": [],
        "rs-1": [80, 443],
        "rs-2": [80, 443],
        "rs-3": [80, 443],
        storage: [],
        vip: [80, 443],
      });
    });
  });

  it("never shut out who deploys", async () => {
    await withSettings({ firewall: { enabled: true, admins: ["10.0.0.0/8"] } }, async () => {
      const { exitCode, output } = await up();
      assert.notEqual(exitCode, 0);
      assert.match(output, /192\.168\.1\.1 is connected by SSH, and firewall\.admins does not have it/);
    });
    assert.equal((await up()).exitCode, 0, "and the machines are still reached");
    await untilWell(60);
    for (const name of [...DIRECTORS, ...REAL_SERVERS, "storage"])
      await inside(name, "! nft list tables | grep cosyvoice_lvs_firewall");
    assert.match(await curl(`http://${VIP}:7860/healthz`), /^200 /);
  });
});
