import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { makeKey } from "./harness/sshd";
import type { Outcome, Resource, Stack } from "./harness/stack";
import type { World } from "./harness/world";

const MANY = 30;
const LINES = 20_000;

function program(world: World, changed: boolean): Resource[] {
  const { target, jump, path } = world;
  const { hostKey: _, ...unpinned } = target;
  const through = { ...target, proxy: jump };
  const { privateKey: __, ...keyless } = target;
  const encrypted = readFileSync(path("encrypted-key"), "utf8");
  const remote = (name: string, connection: unknown, create: string, more = {}): Resource => ({
    name,
    type: "remote.Command",
    args: { connection, create, ...more },
  });
  const copy = (name: string, source: unknown, to: string): Resource => ({
    name,
    type: "remote.CopyToRemote",
    args: { connection: through, source, remotePath: path(to) },
  });
  return [
    remote("direct", target, "echo here"),
    remote("unpinned", unpinned, "echo here"),
    remote("jumped", through, 'echo "$SSH_CONNECTION" | wc -w; cat; echo "$CONFORMANCE_J"', {
      stdin: "through",
      environment: { CONFORMANCE_J: "j" },
    }),
    remote("jumped-unpinned", { ...unpinned, proxy: { ...jump, hostKey: undefined } }, "echo here"),
    remote(
      "encrypted-key",
      { ...target, privateKey: encrypted, privateKeyPassword: "open sesame" },
      "echo here",
    ),
    remote("agent", { ...keyless, agentSocketPath: path("agent.sock") }, "echo here"),
    remote("wide", target, `head -c 500000 /dev/zero | tr '\\0' x`, { logging: "none" }),
    remote("long", target, `seq ${LINES}; seq ${LINES} >&2`, { logging: "none" }),
    remote("shown", target, "seq 2000"),
    remote("fed", target, "wc -c", { stdin: "0123456789".repeat(40_000) }),
    remote("not-reading", target, "echo here", { stdin: "0123456789".repeat(40_000) }),
    remote("refused-previous", jump, "echo here", { stdin: changed ? "2" : "1" }),
    copy("copy-text", { $text: changed ? "changed ✓\n" : "text ✓\n" }, "copied/deep/text"),
    copy("copy-file", { $file: path("source.bin") }, changed ? "copied/moved.bin" : "copied/file.bin"),
    copy("copy-into", { $file: path("source.bin") }, "into"),
    copy("copy-tree", { $archive: path("tree") }, "copied/trees"),
    copy("copy-contents", { $archive: `${path("tree")}/` }, "copied/contents"),
    {
      name: "copy-old",
      type: "remote.CopyFile",
      args: {
        connection: target,
        localPath: path("source.bin"),
        remotePath: path(changed ? "old-2" : "old-1"),
      },
    },
  ];
}

/** Connections, large outputs, copies, many at once, interruption. */
export function transport(shared: () => World): void {
  let world: World;
  let stack: Stack;
  let created: Outcome;
  let updated: Outcome;
  const stdout = (outcome: Outcome, name: string) => String(outcome.state[name]?.outputs.stdout);

  before(async () => {
    world = shared();
    const { path } = world;
    makeKey(path("encrypted-key"), "open sesame");
    // The servers let one key in: add the second one to their list.
    const keys = `${world.folder}/user.pub`;
    writeFileSync(keys, readFileSync(keys, "utf8") + readFileSync(`${path("encrypted-key")}.pub`, "utf8"));
    writeFileSync(path("source.bin"), Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 31) % 256)));
    mkdirSync(path("into"));
    mkdirSync(path("tree/inner"), { recursive: true });
    writeFileSync(path("tree/one"), "1\n");
    writeFileSync(path("tree/inner/two"), "2\n");
    const agent = await startAgent(world);
    try {
      stack = await world.stack("transport");
      created = await stack.up(program(world, false), { title: "create" });
      updated = await stack.up(program(world, true), { title: "change" });
    } finally {
      agent();
    }
  });

  for (const name of ["direct", "unpinned", "jumped-unpinned", "encrypted-key", "agent", "not-reading"]) {
    it(`connects: ${name}`, () => assert.equal(stdout(created, name), "here"));
  }
  it("goes through a jump host, with input and environment", () => {
    assert.equal(stdout(created, "jumped"), "4\nthroughj");
  });
  it("carries a line of 500 kB", () => assert.equal(stdout(created, "wide"), "x".repeat(500_000)));
  it("carries long outputs on both streams", () => {
    const expected = Array.from({ length: LINES }, (_, i) => i + 1).join("\n");
    assert.equal(stdout(created, "long"), expected);
    assert.equal(created.state.long?.outputs.stderr, expected);
  });
  it("shows every line, in order", () => {
    assert.deepEqual(
      created.lines.shown,
      Array.from({ length: 2000 }, (_, i) => `${i + 1}`),
    );
  });
  it("feeds 400 kB of input", () => assert.equal(stdout(created, "fed"), "400000"));
  it("goes on when the server does not take the outputs of the run before", () => {
    assert.deepEqual(updated.steps["refused-previous"], ["update"]);
    assert.equal(stdout(updated, "refused-previous"), "here");
  });
  it("copies a text, making the directories above it", () => {
    assert.equal(readFileSync(world.path("copied/deep/text"), "utf8"), "changed ✓\n");
    assert.deepEqual(updated.steps["copy-text"], ["update"]);
  });
  it("copies a file as it is, also into a directory", () => {
    const source = readFileSync(world.path("source.bin"));
    assert.deepEqual(readFileSync(world.path("copied/file.bin")), source);
    assert.deepEqual(readFileSync(world.path("copied/moved.bin")), source);
    assert.deepEqual(readFileSync(world.path("into/source.bin")), source);
  });
  it("copies a folder, or only what is in it", () => {
    assert.equal(readFileSync(world.path("copied/trees/tree/inner/two"), "utf8"), "2\n");
    assert.equal(readFileSync(world.path("copied/contents/one"), "utf8"), "1\n");
  });
  it("replaces the older kind of copy on every change", () => {
    assert.deepEqual(updated.steps["copy-old"], ["create-replacement", "replace", "delete-replaced"]);
    assert.ok(existsSync(world.path("old-1")) && existsSync(world.path("old-2")));
  });

  it(`runs ${MANY} commands at once through one jump host`, async () => {
    const many = await world.stack("many");
    const connection = { ...world.target, proxy: world.jump };
    const resources = Array.from(
      { length: MANY },
      (_, i): Resource => ({
        name: `n${i}`,
        type: "remote.Command",
        args: { connection, create: `sleep 1; echo ${i}` },
      }),
    );
    // A command that ends at once tells its exit status together with its start.
    const quick = Array.from(
      { length: 10 },
      (_, i): Resource => ({
        name: `quick${i}`,
        type: "remote.Command",
        args: { connection: world.target, create: ":" },
      }),
    );
    const { state } = await many.up([...resources, ...quick], {
      title: "many at once",
      flags: ["--parallel", `${MANY}`],
    });
    for (let i = 0; i < MANY; i++) assert.equal(state[`n${i}`]?.outputs.stdout, `${i}`);
    for (const { name } of quick) assert.equal(state[name]?.outputs.stdout, "");
  });

  it("stops when interrupted: ends what runs here, waits for what runs elsewhere, starts nothing new", async () => {
    const stopped = await world.stack("interrupted");
    const { path, target } = world;
    const resources: Resource[] = [
      { name: "here", type: "local.Command", args: { create: `touch ${path("started")}; exec sleep 60` } },
      {
        name: "there",
        type: "remote.Command",
        args: { connection: target, create: "sleep 4; echo finished" },
      },
      {
        name: "later",
        type: "local.Command",
        args: { create: "echo never" },
        options: { dependsOn: ["there"] },
      },
    ];
    let stop = () => undefined as unknown;
    const watch = setInterval(() => {
      if (!existsSync(path("started"))) return;
      clearInterval(watch);
      setTimeout(() => stop(), 1500);
    }, 50);
    const outcome = await stopped.up(resources, {
      title: "interrupted",
      fails: true,
      started: (interrupt) => {
        stop = interrupt;
      },
    });
    assert.deepEqual(Object.keys(outcome.state), ["there"]);
    assert.equal(outcome.state.there?.outputs.stdout, "finished");
    assert.match(outcome.errors.here?.join() ?? "", /signal: killed: running "touch/);
  });
}

/** An agent that holds the suite's key; returns the way to end it. */
async function startAgent(world: World): Promise<() => void> {
  const { spawn, execFileSync } = await import("node:child_process");
  const socket = world.path("agent.sock");
  const agent = spawn("ssh-agent", ["-D", "-a", socket], { stdio: "ignore" });
  for (let tries = 0; !existsSync(socket); tries++) {
    if (tries > 100) throw new Error("ssh-agent did not start");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const env = { ...process.env, SSH_AUTH_SOCK: socket };
  execFileSync("ssh-add", ["-q", `${world.folder}/user`], { env });
  return () => agent.kill();
}
