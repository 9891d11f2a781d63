// The front door, as somebody meets it who stands outside.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { fingerprintOf } from "../../../config/certificate";
import { listen, openBrowser, speakOnPage, visit } from "../../../scripts/lib/browser";
import { DIRECTORS, inside, lab, REAL_SERVERS, script, until, VIP } from "../../lab/bench";
import { causes, untilTold } from "../../monitoring/lab/hook";
import { at, CA, carefulLab, curl, deploy, onClient, planted, said, setSecrets, stack } from "./world";

const authorized = `-H 'Authorization: Bearer ${planted.apiKey}'`;

describe("HTTPS", () => {
  before(carefulLab);

  it("is on every real server, for who trusts the lab's CA and has a key", async () => {
    const nodes = new Set<string>();
    for (let last = 200; last < 230; last += 1)
      nodes.add(
        await inside(
          "client",
          `curl -sSf -m 15 --cacert ${CA} ${authorized} --interface 192.168.1.${last} -o /dev/null -D - ${at("/healthz")} | sed -n 's/^x-served-by: *//Ip' | tr -d '\r'`,
        ),
      );
    assert.deepEqual([...nodes].sort(), [...REAL_SERVERS]);
    assert.match(await curl(at("/healthz"), "another-key-of-nobody"), /^401 /);
    const without = await inside("client", `curl -s -o /dev/null ${authorized} ${at("/")}; echo $?`);
    assert.match(without, /^60$/, "no CA, no trust");
  });

  it("is where port 80 leads, and keeps to itself what nodes ask each other", async () => {
    assert.match(await curl(`http://${VIP}/v1/models`), new RegExp(`^308 https://${VIP}/v1/models 0`));
    for (const path of ["/metrics", "/readyz", "/peer/condition"])
      assert.match(await curl(at(path)), /^404 /, path);
  });

  it("is how scripts/cluster has a sentence spoken", async () => {
    const { exitCode, output } = await script(
      "cluster",
      ...["speak", "Is anybody there?", "--fresh", "--output", "/dev/null"],
    );
    assert.equal(exitCode, 0, output);
    assert.match(output, /s of audio, made by rs-\d/);
  });

  it("tells of a request by nginx and by the service, under one id, without its query and without the key", async () => {
    const id = `made-up-${Date.now()}`;
    const query = "made-up-query";
    assert.match(await curl(`-H 'X-Request-Id: ${id}' ${at(`/v1/models?${query}`)}`), /^200 /);
    await until("both have told of it", 60, async () => {
      const { stdout } = await script("cluster", "logs", "--request", id, "--since", "5m", "--json");
      assert.doesNotMatch(stdout, new RegExp(`${query}|${planted.apiKey}`));
      const lines = stdout.split("\n").filter((line) => line.includes(id));
      const sources = lines.map((line) => JSON.parse(line).source).sort();
      return sources.join(" ") === "cosyvoice-front-door gradio.access";
    });
  });

  it("is what scripts/cluster bench measures where the plain port is closed", async () => {
    const wanted = ["--sentences", "3", "--at-once", "1", "--characters", "60", "--rate", "2", "--json"];
    const { exitCode, stdout, output } = await script("cluster", "bench", ...wanted);
    assert.equal(exitCode, 0, output);
    const { kinds } = JSON.parse(stdout);
    assert.deepEqual(
      kinds.map(({ kind, errors }: { kind: string; errors: number }) => [kind, errors]),
      [
        ["sentence", 0],
        ["light", 0],
      ],
    );
    assert.equal(kinds[0].requests, 3);
  });

  it("brings sound to this computer while it is being made", async () => {
    const url = (await lab.httpsUrl()) ?? "";
    const ca = await readFile(stack.tls.caFile);
    const input = "One sentence after the other is being said here. ".repeat(6) + new Date().toISOString();
    const arrivals = await new Promise<number[]>((resolve, reject) => {
      const began = Date.now();
      const headers = { "content-type": "application/json", authorization: `Bearer ${planted.apiKey}` };
      const asked = request(new URL("/v1/audio/speech", url), { method: "POST", ca, headers }, (answer) => {
        const times: number[] = [];
        answer.on("data", () => times.push(Date.now() - began));
        answer.on("end", () =>
          answer.statusCode === 200 ? resolve(times) : reject(new Error(`answered ${answer.statusCode}`)),
        );
        answer.on("error", reject);
      });
      asked.on("error", reject);
      asked.end(JSON.stringify({ model: "cosyvoice", input, stream: true }));
    });
    const [first = 0, last = 0] = [arrivals[0], arrivals.at(-1)];
    console.log(`        first sound after ${first} ms, all of it after ${last} ms`);
    assert.ok(arrivals.length > 1 && first < last, `${first} of ${last} ms`);
  });

  it("opens the page in a browser, for who can log in", async () => {
    const url = (await lab.httpsUrl()) ?? "";
    const browser = await openBrowser();
    try {
      // Chromium keeps its own list of CAs; that the chain is good is seen above.
      const context = await browser.newContext({
        locale: "en-US",
        ignoreHTTPSErrors: true,
        httpCredentials: { username: "planted", password: planted.password },
      });
      const page = await context.newPage();
      await visit(page, url);
      const address = await speakOnPage(page, `Said by HTTPS at ${new Date().toISOString()}.`);
      assert.ok(address.startsWith(url), address);
      assert.ok((await listen(page, address)).duration > 1);
      const stranger = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
      await assert.rejects(stranger.goto(url), /ERR_INVALID_AUTH_CREDENTIALS/, "who cannot log in");
    } finally {
      await browser.close();
    }
  });

  it("takes a new certificate, new keys and a new peers' key under load, without a lost request or an ended stream", async () => {
    const before = fingerprintOf(await stack.tls.certificate());
    // What ends so soon is told ten minutes later: see the last test.
    await stack.tls.renew(10);
    await setSecrets({
      tlsCertificate: await stack.tls.certificate(),
      tlsKey: await stack.tls.key(),
      apiKeys: `${planted.apiKey},${planted.nextApiKey}`,
      httpUsers: `planted:${planted.passwordHash}\nother:${planted.passwordHash}`,
      peerKey: `${await peerKey()},planted-peer-key-of-32-characters`,
    });
    const preview = await script("lab", "pulumi", "preview", "--diff", "--non-interactive");
    said.push(preview.output);
    assert.equal(preview.exitCode, 0);
    const stop = "/run/https-load-ends";
    const load = onClient("https_load.py", [VIP, CA, "200", "249", "900", stop], planted.apiKey);
    let deployed = false;
    const processes = watchProcesses(() => deployed);
    const { exitCode } = await deploy();
    deployed = true;
    assert.equal(exitCode, 0);
    said.push(await processes);
    await inside("client", `touch ${stop}`);
    const after = fingerprintOf(await stack.tls.certificate());
    const { asked, failed, certificates, stream } = await load;
    console.log(`        ${asked} requests, ${failed.length} lost: ${JSON.stringify(certificates)}`);
    assert.deepEqual(failed, []);
    assert.equal(stream, "open");
    assert.deepEqual(Object.keys(certificates).sort(), [before, after].sort());
    assert.match(await curl(at("/healthz"), planted.nextApiKey), /^200 /);
  });

  it("goes on for the others when the nginx of one node is dead, which is told", async () => {
    await causes(
      [{ name: "FrontDoorDown", labels: { node: "rs-2" } }],
      async () => {
        await inside("rs-2", "systemctl stop cosyvoice-front-door");
        await until("no director sends to it", 30, async () => {
          const tables = await Promise.all(DIRECTORS.map((name) => inside(name, "ipvsadm -Ln")));
          return tables.every((table) => !/192\.168\.1\.102:\d+/.test(table));
        });
        for (let last = 200; last < 220; last += 1)
          assert.match(await curl(`--interface 192.168.1.${last} ${at("/healthz")}`), /^200 /);
      },
      () => inside("rs-2", "systemctl start cosyvoice-front-door"),
    );
  });

  it("tells two weeks before its certificate ends, until there is a new one", async () => {
    await untilTold({ name: "CertificateEnds" }, "firing", 0, 900);
    await stack.tls.renew();
    await setSecrets({ tlsCertificate: await stack.tls.certificate(), tlsKey: await stack.tls.key() });
    assert.equal((await deploy()).exitCode, 0);
    await untilTold({ name: "CertificateEnds" }, "resolved", 0, 240);
  });
});

/** The peers' key of the lab, which signs. */
async function peerKey(): Promise<string> {
  return (await inside("rs-1", "head -n1 /etc/cosyvoice/peers.key")).trim();
}

/** What the process lists of machines say while a deployment runs, again and again. */
async function watchProcesses(ended: () => boolean): Promise<string> {
  const seen: string[] = [];
  while (!ended())
    for (const machine of ["director-1", "rs-1", "client"])
      seen.push(await inside(machine, "ps axeww -o args"));
  return seen.join("\n");
}
