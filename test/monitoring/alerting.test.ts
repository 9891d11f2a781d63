import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { World } from "./world";

describe("monitoring, from the fault to the receiver", () => {
  const world = new World();
  before(() => world.start());
  after(() => world.stop());

  /** Nothing is wrong any more, and nobody was left in the belief that it is. */
  async function calm(): Promise<void> {
    let firing: string[] = [];
    const quiet = world.until("nothing fires", 90, async () => {
      const found = await world.query('ALERTS{alertstate="firing",alertname!="Watchdog"}');
      firing = found.map(({ labels }) => JSON.stringify(labels));
      return firing.length === 0;
    });
    await quiet.catch((error: Error) => assert.fail(`${firing.join("\n")}\n${error.message}`));
  }

  it("sees every target, and tells that the way to the receiver works", async () => {
    await world.until("all targets are up", 60, async () => {
      const up = await world.query("up");
      return up.length === 11 && up.every(({ value }) => value === 1);
    });
    await world.until("the watchdog came", 60, () => world.about("Watchdog").length > 0);
    await calm();
    assert.deepEqual(
      (await world.query("count by (job) (up)")).map(({ labels, value }) => [labels.job, value]).sort(),
      [
        ["alertmanager", 1],
        ["node", 5],
        ["prober", 1],
        ["prometheus", 1],
        ["speech", 1],
        ["vip-http", 1],
        ["vip-tcp", 1],
      ].sort(),
    );
  });

  it("a director that dies is one message, and so is its end", async () => {
    const since = world.messages.length;
    await world.kill("director-2");
    await world.until("it was told", 60, () => world.about("MachineDown", since).length > 0);
    const [alert] = world.about("MachineDown", since);
    assert.equal(alert?.labels.node, "director-2");
    assert.equal(alert?.annotations.summary, "director-2 (director) does not answer.");
    assert.equal(alert?.annotations.runbook, "docs/runbooks/MachineDown.md");
    world.nodeExporter("director-2", "127.0.1.12");
    await world.until("its end was told", 60, () => world.about("MachineDown", since, "resolved").length > 0);
    await calm();
    const others = world.messages
      .slice(since)
      .flatMap(({ alerts }) => alerts)
      .filter(({ labels }) => !["MachineDown", "Watchdog"].includes(labels.alertname ?? ""));
    assert.deepEqual(
      others.map(({ labels }) => labels.alertname),
      [],
    );
  });

  it("no holder of the VIP is critical, goes to the robot as well, and explains the sentence that does not come", async () => {
    const since = world.messages.length;
    world.readings("director-1", { held: false });
    await world.until("it was told", 60, () => world.about("NoVipHolder", since).length > 0);
    world.sentence(0);
    await world.until("the sentence is known to fail", 60, async () => {
      const failed = await world.query("tts_probe_success == 0");
      return failed.length === 1;
    });
    await world.until("the robot got it", 60, () =>
      world.robot.some(({ markdown }) => markdown.content.includes("No director holds the VIP")),
    );
    // Longer than the group waits and the receiver is told.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    assert.deepEqual(world.about("SentenceFailed", since), []);
    world.readings("director-1", {});
    await world.until("its end", 60, () => world.about("NoVipHolder", since, "resolved").length > 0);
    assert.deepEqual(world.about("SentenceFailed", since), [], "nor of its end: the next sentence will show");
    await world.until("it did not", 60, () => world.about("SentenceFailed", since).length > 0);
    world.sentence(1);
    await calm();
  });

  it("two holders, an empty pool and a keepalived that hangs are told apart", async () => {
    const since = world.messages.length;
    world.readings("director-2", { held: true });
    await world.until("two holders", 60, () => world.about("SplitBrain", since).length > 0);
    world.readings("director-2", { keepalived: 0 });
    await world.until("keepalived", 60, () => world.about("KeepalivedDown", since).length > 0);
    for (const director of ["director-1", "director-2"]) world.readings(director, { weight: 0 });
    await world.until("no pool", 60, () => world.about("PoolEmpty", since).length > 0);
    for (const director of ["director-1", "director-2"]) world.readings(director, {});
    await calm();
  });

  it("a share that is away is told by the real service", async () => {
    const since = world.messages.length;
    renameSync(world.file("outputs"), world.file("away"));
    await world.until("it was told", 90, () => world.about("OutputsAway", since).length > 0);
    assert.equal(world.about("OutputsAway", since)[0]?.labels.node, "rs-1");
    renameSync(world.file("away"), world.file("outputs"));
    await calm();
  });

  it("a real service that is killed is told, once, and so is the VIP that no longer answers", async () => {
    const since = world.messages.length;
    await world.kill("service");
    for (const alert of ["SpeechServiceDown", "VipProbeFailed"])
      await world.until(alert, 60, () => world.about(alert, since).length > 0);
    assert.deepEqual(
      world
        .about("VipProbeFailed", since)
        .map(({ labels }) => labels.job)
        .sort()
        .filter((job, index, all) => job !== all[index - 1]),
      ["vip-http", "vip-tcp"],
    );
    world.startService();
    await world.until(
      "its end was told",
      120,
      () => world.about("SpeechServiceDown", since, "resolved").length > 0,
    );
    await calm();
  });

  it("lets in who has the password, and nobody else", async () => {
    const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString("base64")}` });
    assert.deepEqual(await world.letIn({}), [401, 401]);
    assert.deepEqual(await world.letIn(basic("admin:made-up-passwort")), [401, 401]);
    assert.deepEqual(await world.letIn(basic("admin:made-up-password")), [200, 200]);
  });

  it("never told the robot what is only a warning", () => {
    for (const { markdown } of world.robot)
      assert.doesNotMatch(markdown.content, /MachineDown|KeepalivedDown|SpeechServiceDown|Watchdog/);
  });
});
