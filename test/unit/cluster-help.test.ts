import assert from "node:assert/strict";
import { clusterProgram } from "../../scripts/cluster-cli/program";

describe("scripts/cluster COMMAND --help", () => {
  for (const command of clusterProgram().commands) {
    it(`${command.name()} says what it does, its exit codes and how it is called`, () => {
      let text = "";
      command.configureOutput({ writeOut: (part) => (text += part) });
      command.outputHelp();
      assert.ok(command.description().length > 20);
      assert.match(text, /\nExit status: .*0? .*2 it failed\.\n/);
      const examples = text.split("\nExamples:\n")[1]?.trim().split("\n") ?? [];
      assert.ok(examples.length > 0);
      for (const example of examples) {
        assert.match(example.trim(), new RegExp(`^scripts/cluster ${command.name()}\\b`));
      }
    });
  }
});
