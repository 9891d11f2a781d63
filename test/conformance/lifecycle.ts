import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import type { Outcome, Resource, Stack } from "./harness/stack";
import type { World } from "./harness/world";

const CONTROL = "日本語 ✓ naïve\t\u0001\\\"'";

/** The resources before and after the change, by what they are to show. */
function program(world: World, changed: boolean): Resource[] {
  const { target: connection, path } = world;
  const note = (text: string) => `echo ${text} >> ${path("notes")}`;
  const both = "echo shown on stdout; echo shown on stderr >&2";
  const pick = <T>(before: T, after: T): T => (changed ? after : before);
  const resources: Resource[] = [
    {
      name: "local-all",
      type: "local.Command",
      args: {
        create: 'echo out "$CONFORMANCE_A"; echo err >&2; pwd; cat',
        delete: `${note('local-all deleted: "$PULUMI_COMMAND_STDERR"')}`,
        stdin: "a line\nand another\n",
        environment: { CONFORMANCE_A: "ä b" },
        dir: path("."),
      },
    },
    {
      name: "remote-all",
      type: "remote.Command",
      args: {
        connection,
        create: 'echo out "$CONFORMANCE_A"; echo err >&2; cat',
        delete: `${note('remote-all deleted: "$PULUMI_COMMAND_STDERR"')}`,
        stdin: "a line\nand another\n",
        environment: { CONFORMANCE_A: "ä b" },
      },
    },
    { name: "local-no-create", type: "local.Command", args: { delete: note("local-no-create deleted") } },
    {
      name: "remote-no-create",
      type: "remote.Command",
      args: { connection, delete: note("remote-no-create deleted") },
    },
    {
      name: "local-interpreter",
      type: "local.Command",
      args: { create: "x y", interpreter: ["printf", "%s|%s\n\n", "first"] },
    },
    { name: "local-text", type: "local.Command", args: { create: "cat", stdin: CONTROL } },
    { name: "remote-text", type: "remote.Command", args: { connection, create: "cat", stdin: CONTROL } },
    {
      name: "local-secret",
      type: "local.Command",
      args: {
        create: { $secret: "cat; printf ' %s' \"$CONFORMANCE_S\"" },
        stdin: { $secret: "hidden" },
        environment: { CONFORMANCE_S: { $secret: "also" }, CONFORMANCE_P: "plain" },
      },
    },
    {
      name: "remote-secret",
      type: "remote.Command",
      args: { connection, create: "cat", stdin: { $secret: "hidden" }, logging: "none" },
      options: { additionalSecretOutputs: ["stdout", "stderr"] },
    },
    {
      name: "local-trigger",
      type: "local.Command",
      args: {
        create: note(`local-trigger created ${pick(1, 2)}`),
        delete: note(`local-trigger deleted ${pick(1, 2)}`),
        triggers: pick(["a", { b: [1] }], ["a", { b: [2] }]),
      },
    },
    {
      name: "remote-trigger",
      type: "remote.Command",
      args: {
        connection,
        create: note(`remote-trigger created ${pick(1, 2)}`),
        delete: note(`remote-trigger deleted ${pick(1, 2)}`),
        triggers: pick(["a"], ["a", "b"]),
      },
    },
    {
      name: "trigger-first",
      type: "local.Command",
      args: { create: "echo once", update: "echo not", ...pick({}, { triggers: [1] }) },
    },
    {
      name: "trigger-delete-first",
      type: "local.Command",
      args: {
        create: note(`trigger-delete-first created ${pick(1, 2)}`),
        delete: note("trigger-delete-first deleted"),
        triggers: pick([true], [false]),
      },
      options: { deleteBeforeReplace: true },
    },
    {
      name: "local-update",
      type: "local.Command",
      args: {
        create: "echo created; echo warned >&2",
        update: 'echo "after $PULUMI_COMMAND_STDOUT, $PULUMI_COMMAND_STDERR"',
        environment: pick({ CONFORMANCE_A: "1" }, { CONFORMANCE_A: "2", CONFORMANCE_B: "" }),
      },
    },
    {
      name: "remote-update",
      type: "remote.Command",
      args: {
        connection,
        create: "echo created; echo warned >&2",
        update: 'echo "after $PULUMI_COMMAND_STDOUT, $PULUMI_COMMAND_STDERR"',
        stdin: pick("1", "2"),
      },
    },
    { name: "local-rerun", type: "local.Command", args: { create: `echo run ${pick("one", "two")}` } },
    {
      name: "remote-rerun",
      type: "remote.Command",
      args: { connection, create: `echo run ${pick("one", "two")}` },
    },
    {
      name: "local-no-previous",
      type: "local.Command",
      args: {
        create: 'echo "[$PULUMI_COMMAND_STDOUT]"',
        stdin: pick("1", "2"),
        addPreviousOutputInEnv: false,
      },
    },
    {
      name: "remote-no-previous",
      type: "remote.Command",
      args: {
        connection,
        create: 'echo "[$PULUMI_COMMAND_STDOUT]"',
        stdin: pick("1", "2"),
        addPreviousOutputInEnv: false,
      },
    },
    {
      name: "manifest",
      type: "remote.Command",
      args: {
        connection,
        create: "wc -l",
        stdin: JSON.stringify(
          { files: { "/etc/a": { content: pick("x=1\ny=2\n", "x=1\ny=3\n") } }, packages: ["p"] },
          null,
          2,
        ),
      },
    },
    {
      name: "only-delete-changes",
      type: "local.Command",
      args: {
        create: note("only-delete-changes run"),
        delete: pick("true", note("only-delete-changes deleted")),
      },
    },
    {
      name: "ignores",
      type: "local.Command",
      args: { create: "echo ignored", stdin: pick("1", "2") },
      options: { ignoreChanges: ["stdin"] },
    },
    {
      name: "assets",
      type: "local.Command",
      args: {
        create: "mkdir -p a/b && echo 1 > a/one.txt && echo 2 > a/b/two.txt && echo 3 > a/b/three.log",
        dir: path("assets"),
        assetPaths: ["a/**.txt", "!**/one.txt", "a/b/*.log"],
      },
    },
    ...["stdout", "stderr", "stdoutAndStderr", "none", undefined].flatMap((logging): Resource[] => [
      {
        name: `local-log-${logging}`,
        type: "local.Command",
        args: { create: both, ...(logging ? { logging } : {}) },
      },
      {
        name: `remote-log-${logging}`,
        type: "remote.Command",
        args: { connection, create: both, ...(logging ? { logging } : {}) },
      },
    ]),
  ];
  if (changed) return resources.filter(({ name }) => name !== "local-all" && name !== "remote-all");
  return resources;
}

/** Create, update, replace, delete; inputs, outputs, secrets, logs. */
export function lifecycle(shared: () => World): void {
  let world: World;
  let stack: Stack;
  let created: Outcome;
  let again: Outcome;
  let preview: Outcome;
  let updated: Outcome;
  let destroyed: Outcome;
  const notes = () => readFileSync(world.path("notes"), "utf8");
  const invocation = { command: 'echo "ran $A"; cat', stdin: "now", environment: { A: "1" } };

  before(async () => {
    world = shared();
    mkdirSync(world.path("assets"));
    stack = await world.stack("lifecycle");
    created = await stack.up(program(world, false), { title: "create", run: invocation });
    again = await stack.up(program(world, false), { title: "the same again", run: invocation });
    preview = await stack.preview(program(world, true), {
      title: "preview of a change",
      flags: ["--parallel", "1"],
    });
    updated = await stack.up(program(world, true), { title: "change" });
    destroyed = await stack.destroy({ title: "destroy" });
  });

  for (const where of ["local", "remote"]) {
    describe(where, () => {
      const stored = (outcome: Outcome, name: string) => {
        const found = outcome.state[`${where}-${name}`];
        assert.ok(found, `${where}-${name} is not in the state`);
        return found;
      };

      it("creates, with input, environment and outputs", () => {
        const { outputs, id } = stored(created, "all");
        assert.equal(id, `${where}-allHEX`);
        const dir = where === "local" ? "$T/files\n" : "";
        assert.equal(outputs.stdout, `out ä b\n${dir}a line\nand another`);
        assert.equal(outputs.stderr, "err");
      });
      it("does nothing where there is nothing to create", () => {
        const { outputs } = stored(created, "no-create");
        assert.deepEqual([outputs.stdout, outputs.stderr], ["", ""]);
      });
      it("keeps every character", () => assert.equal(stored(created, "text").outputs.stdout, CONTROL));
      it("shows the lines that were asked for, while it runs", () => {
        const shown = (logging: string) => [...(created.lines[`${where}-log-${logging}`] ?? [])].sort();
        assert.deepEqual(shown("none"), []);
        assert.deepEqual(shown("stdout"), ["shown on stdout"]);
        assert.deepEqual(shown("stderr"), ["shown on stderr"]);
        assert.deepEqual(shown("stdoutAndStderr"), ["shown on stderr", "shown on stdout"]);
        assert.deepEqual(shown("undefined"), ["shown on stderr", "shown on stdout"]);
      });
      it("captures both streams whatever is shown", () => {
        const { outputs } = stored(created, "log-none");
        assert.deepEqual([outputs.stdout, outputs.stderr], ["shown on stdout", "shown on stderr"]);
      });
      it("updates with the outputs of the run before in its environment", () => {
        assert.deepEqual(updated.steps[`${where}-update`], ["update"]);
        assert.equal(stored(updated, "update").outputs.stdout, "after created, warned");
        assert.equal(stored(updated, "update").outputs.stderr, "");
      });
      it("runs create again where there is no update", () => {
        assert.deepEqual(updated.steps[`${where}-rerun`], ["update"]);
        assert.equal(stored(updated, "rerun").outputs.stdout, "run two");
      });
      it("leaves the outputs before out of the environment when told to", () => {
        assert.equal(stored(updated, "no-previous").outputs.stdout, "[]");
      });
      it("replaces on a changed trigger: creates the new one, then deletes the old one", () => {
        assert.deepEqual(updated.steps[`${where}-trigger`], [
          "create-replacement",
          "replace",
          "delete-replaced",
        ]);
        const own = notes()
          .split("\n")
          .filter((line) => line.startsWith(`${where}-trigger`));
        const ends = [
          `${where}-trigger created 1`,
          `${where}-trigger created 2`,
          `${where}-trigger deleted 1`,
        ];
        assert.deepEqual(own.slice(0, 3), ends);
      });
      it("deletes what is no longer in the program, with the outputs in the environment", () => {
        assert.deepEqual(updated.steps[`${where}-all`], ["delete"]);
        assert.match(notes(), new RegExp(`^${where}-all deleted: err$`, "m"));
      });
      it("deletes at destroy", () => assert.match(notes(), new RegExp(`^${where}-no-create deleted$`, "m")));
    });
  }

  it("runs an interpreter of choice, and takes one newline off the end", () => {
    assert.equal(created.state["local-interpreter"]?.outputs.stdout, "first|x y\n");
  });
  it("keeps secrets secret in inputs and outputs", () => {
    const local = created.state["local-secret"];
    assert.equal(local?.inputs.create, "(secret)");
    assert.equal(local?.inputs.stdin, "(secret)");
    assert.equal(local?.outputs.stdin, "(secret)");
    assert.equal(created.state["remote-all"]?.inputs.connection, "(secret)");
    assert.equal(created.state["remote-all"]?.outputs.connection, "(secret)");
    const remote = created.state["remote-secret"];
    assert.deepEqual(
      [remote?.outputs.stdin, remote?.outputs.stdout, remote?.outputs.stderr],
      Array(3).fill("(secret)"),
    );
  });
  it("does not make an output secret because an input is", () => {
    assert.equal(created.state["local-secret"]?.outputs.stdout, "hidden also");
  });
  it("runs a function at once", () => assert.equal(created.outputs.run, "ran 1\nnow"));
  it("changes nothing when nothing changed", () => {
    const { "lifecycle-stack": _, ...steps } = again.steps;
    for (const [name, done] of Object.entries(steps)) assert.deepEqual(done, ["same"], name);
    assert.deepEqual(again.state, created.state);
  });
  it("previews the change without doing it", () => {
    assert.deepEqual(preview.state, created.state);
    assert.deepEqual(preview.steps["local-rerun"], ["update"]);
    assert.deepEqual(preview.steps["remote-all"], ["delete"]);
    assert.match(preview.text, /~ create: "echo run one" => "echo run two"/);
    assert.match(preview.text, /\[1\]: \{\s+~ b: \[\s+~ \[0\]: 1 => 2/);
  });
  it("previews a manifest line by line", () => assert.match(preview.text, /- y=2\n\s+\+ y=3\n/));
  it("replaces when the first trigger appears", () => {
    assert.deepEqual(updated.steps["trigger-first"], ["create-replacement", "replace", "delete-replaced"]);
    assert.equal(updated.state["trigger-first"]?.outputs.stdout, "once");
  });
  it("deletes first where the program says so", () => {
    assert.deepEqual(updated.steps["trigger-delete-first"], [
      "delete-replaced",
      "replace",
      "create-replacement",
    ]);
    assert.match(notes(), /trigger-delete-first deleted\n(?:.*\n)*trigger-delete-first created 2/);
  });
  it("runs create again when only delete changed", () => {
    assert.deepEqual(updated.steps["only-delete-changes"], ["update"]);
    assert.equal(notes().match(/^only-delete-changes run$/gm)?.length, 2);
    assert.match(notes(), /^only-delete-changes deleted$/m);
  });
  it("ignores what it is told to ignore", () => assert.deepEqual(updated.steps.ignores, ["same"]));
  it("collects files as assets", () => {
    const assets = created.state.assets?.outputs.assets as Record<string, { hash: string; path: string }>;
    assert.deepEqual(Object.keys(assets).sort(), ["a/b/three.log", "a/b/two.txt"]);
    assert.equal(assets["a/b/two.txt"]?.path, "$T/files/assets/a/b/two.txt");
    assert.match(assets["a/b/two.txt"]?.hash ?? "", /^[0-9a-f]{64}$/);
  });
  it("leaves nothing behind", () => {
    assert.deepEqual(destroyed.state, {});
    assert.match(notes(), /^remote-trigger deleted 2$/m);
  });

  const other = process.env.COMMAND_PLUGIN_OTHER;
  if (other) {
    it("hands its state over to another plugin, and takes it back", async () => {
      const handover = await world.stack("handover");
      const made = await handover.up(program(world, false), { title: "create" });
      const taken = await handover.up(program(world, false), { title: "taken over", pluginFolder: other });
      assert.deepEqual(taken.state, made.state);
      const changed = await handover.up(program(world, true), {
        title: "change by the other",
        pluginFolder: other,
      });
      assert.deepEqual(changed.state, updated.state);
      const back = await handover.up(program(world, true), { title: "taken back" });
      assert.deepEqual(back.state, updated.state);
      await handover.destroy({ title: "destroy" });
    });
  }
}
