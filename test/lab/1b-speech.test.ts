// The speech service as its users meet it, under the scheduler that is hardest on it: rr without persistence sends every
// connection of a visitor to another real server.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { machineNamed } from "../../lab/machines";
import {
  addressOf,
  listen,
  openBrowser,
  play,
  recordOnPage,
  speakOnPage,
  visit,
} from "../../scripts/lib/browser";
import { repository } from "../../scripts/lib/paths";
import { applySettings, inside, lab, REAL_SERVERS, restoreSettings, script, untilWell, up } from "./bench";

/** Runs one of clients/ on this computer, which reaches the VIP by its forwarded port; the JSON that it prints. */
async function client(program: string, ...args: string[]) {
  const url = (await lab.url()) ?? "";
  const { stdout } = await execa(
    join(repository, "app/test"),
    ["--python", join(repository, "test/lab/clients", program), url, ...args],
    { stdin: "ignore", stderr: ["pipe", "inherit"] },
  );
  return JSON.parse(stdout);
}

/** How many syntheses each real server has made so far, by its own metrics. */
async function made(): Promise<Record<string, number>> {
  const counts = REAL_SERVERS.map(async (name) => {
    const metrics = await inside(name, "curl -sS http://127.0.0.1:7860/metrics");
    return [
      name,
      Number(/^tts_synthesis_seconds_count(?:\{[^}]*\})? (\S+)/m.exec(metrics)?.[1] ?? 0),
    ] as const;
  });
  return Object.fromEntries(await Promise.all(counts));
}

describe("the speech service, by rr and without persistence", () => {
  before(async () => {
    await applySettings({ "loadBalancer.scheduler": "rr" });
    assert.equal((await up()).exitCode, 0);
    await untilWell(60);
  });

  after(async () => {
    await restoreSettings();
    assert.equal((await up()).exitCode, 0);
    await untilWell(60);
  });

  it("keeps every session of the real Gradio client, each call on several connections", async () => {
    const { calls, failed } = await client("gradio_sessions.py", "3", "4");
    assert.deepEqual(failed, []);
    assert.equal(calls, 12);
  });

  it("answers the real openai client: formats, seeds, streams, cloning, saved voices, history, mistakes", async () => {
    const served = await client("openai_client.py");
    for (const kind of ["same input, same output", "saved voice", "history"])
      assert.deepEqual(served[kind], [...REAL_SERVERS], `${kind} came from every node`);
  });

  it("makes what two nodes are asked for within milliseconds once, with warm NFS caches", async () => {
    const program = await readFile(join(repository, "test/lab/clients/at_once.py"), "utf8");
    const addresses = ["rs-1", "rs-3"].map((name) => machineNamed(name).address);
    const { stdout } = await lab.exec("client", ["python3", "-", ...addresses, "--rounds", "8"], {
      input: program,
    });
    const rounds = String(stdout)
      .split("\n")
      .map((line) => JSON.parse(line));
    console.log(`        asked ${rounds.map(({ apart }) => apart).join(", ")} ms apart`);
    // Each node says itself whether it made what it sends.
    for (const { bad, misses, hits, same } of rounds)
      assert.deepEqual({ bad, misses, hits, same }, { bad: [], misses: 1, hits: 1, same: true });
  });

  it("loses no session while one node after the other is drained", async () => {
    const calling = client("gradio_sessions.py", "3", "12", "1");
    for (const name of REAL_SERVERS) {
      assert.equal((await script("cluster", "drain", name)).exitCode, 0);
      assert.equal((await script("cluster", "undrain", name)).exitCode, 0);
    }
    const { failed, calls } = await calling;
    assert.deepEqual(failed, []);
    assert.equal(calls, 36);
  });

  it("makes, plays and finds a result again in a real browser, from another node", async () => {
    const url = (await lab.url()) ?? "";
    const browser = await openBrowser();
    try {
      const context = await browser.newContext({ locale: "en-US" });
      const page = await context.newPage();
      const nodes = new Map<string, Set<string>>();
      page.on("response", (response) => {
        const node = response.headers()["x-served-by"];
        const kind =
          /\/v1\/results\/|\/queue\/data|\/queue\/join|\/config/.exec(response.url())?.[0] ?? "other";
        if (node) nodes.set(kind, (nodes.get(kind) ?? new Set()).add(node));
      });
      await visit(page, url);
      const text = `A browser has this said at ${new Date().toISOString()}.`;
      const address = await speakOnPage(page, text);
      const sound = await listen(page, address);
      assert.ok(sound.duration > 2 && sound.loudness > 0.01, JSON.stringify(sound));
      assert.ok((await play(page, text)) > sound.duration - 0.2, "played to its end");
      assert.ok(
        new Set([...nodes.values()].flatMap((some) => [...some])).size === REAL_SERVERS.length,
        "all nodes had a part in it",
      );

      // The same visitor, with one node after the other: each lists the result and has its sound.
      const cookies = await context.cookies();
      const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
      for (const name of REAL_SERVERS) {
        const own = `http://127.0.0.1:7860`;
        const list = await inside(name, `curl -sS -H 'Cookie: ${cookie}' ${own}/v1/history`);
        assert.ok(list.includes(text), `${name} lists it: ${list.slice(0, 300)}`);
        await inside(name, `curl -sSf -o /dev/null ${own}${new URL(address).pathname}`);
      }
      // And a page opened anew has it in its list, from whichever node.
      const again = await context.newPage();
      await visit(again, url);
      assert.equal(await addressOf(again, text), address);
      // A voice that the microphone has heard is another voice.
      const asked = again.waitForRequest((request) => request.url().includes("/queue/join"));
      await recordOnPage(again, 4);
      const recorded = await listen(again, await speakOnPage(again, `${text} Like this.`));
      assert.ok(recorded.duration > 2 && recorded.loudness > 0.01, JSON.stringify(recorded));
      assert.match((await asked).postData() ?? "", /"mime_type":"audio\/wav"/, "spoken like the recording");
      // Nobody else has it.
      const stranger = await (await browser.newContext({ locale: "en-US" })).newPage();
      await visit(stranger, url);
      assert.ok(!(await stranger.content()).includes(text), "a stranger sees it");
    } finally {
      await browser.close();
    }
  });
});

describe("the speech service, by mh", () => {
  it("shares the work of many users behind one address among all nodes", async () => {
    const before = await made();
    const { failed, calls } = await client("gradio_sessions.py", "12", "1");
    assert.deepEqual(failed, []);
    const after = await made();
    const work = REAL_SERVERS.map((name) => (after[name] ?? 0) - (before[name] ?? 0));
    console.log(`        ${calls} syntheses: ${work.join(", ")}`);
    assert.ok(Math.min(...work) > 0, `one address, and a node had nothing to do: ${work.join(", ")}`);
  });
});
