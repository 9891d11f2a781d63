import assert from "node:assert/strict";
import { commandsOf, parsePage, quotedFigures, resembles, sectionOf } from "../docs/markdown";
import { needOf, wayOf } from "../docs/ways";

const page = parsePage(
  "docs/x.md",
  `# A page, of *words*

See [the other one](other.md#part) and \`scripts/lab status\`; not \`[a](b)\`.

## Part

<!-- needs: two switches -->
\`\`\`console
$ arping VIP
\`\`\`

1. In a list:
   \`\`\`console
   $ scripts/lab up      # the lab
   $ curl -d '{"a": "# no comment"}' \\
       http://127.0.0.1:7860/
   {"id": "..."}
   \`\`\`

## Part
`,
);

describe("scripts/test docs", () => {
  it("reads links, anchors and words in code, and not what only looks like them", () => {
    assert.deepEqual(page.links, [{ target: "other.md#part", line: 3 }]);
    assert.deepEqual([...page.anchors], ["a-page-of-words", "part", "part-1"]);
    assert.deepEqual(
      page.codes.map(({ text }) => text),
      ["scripts/lab status", "[a](b)"],
    );
  });

  it("reads commands with their lines, without comments, and what is shown of their output", () => {
    const [marked, plain] = page.blocks;
    assert.ok(marked && plain);
    assert.equal(marked.needs, "two switches");
    assert.equal(plain.needs, undefined);
    assert.deepEqual(commandsOf(plain), [
      { text: "scripts/lab up", line: 14, output: [] },
      {
        text: `curl -d '{"a": "# no comment"}' http://127.0.0.1:7860/`,
        line: 15,
        output: ['{"id": "..."}'],
      },
    ]);
  });

  it("compares output loosely: numbers, hashes and what a page leaves out may differ, the rest and its order not", () => {
    const printed = "rs-2 is drained.\n3 of 3 serve  well\nrelease 0a0a0a0a0a0a0a0a\n";
    assert.equal(resembles(printed, ["rs-1 is ...", "...", "release beefbeefbeefbeef"]), undefined);
    assert.equal(resembles(printed, ["2 of 9 serve well"]), undefined);
    assert.equal(resembles(printed, ["release beefbeefbeefbeef", "rs-2 is drained."]), "rs-2 is drained.");
    assert.equal(resembles(printed, ["rs-2 is drained"]), "rs-2 is drained");
  });

  it("finds the figures that a page quotes, and the section that they must be in", () => {
    const text = "[7 ms](b.md#x), 8\n| of 9 | 10 ms, 11.5 s | [source](b.md#x) |\n[12](c.md#x)";
    assert.deepEqual(
      quotedFigures(text, /b\.md#/).map(({ figure, line }) => `${line}: ${figure}`),
      ["1: 7", "2: 10", "2: 11.5"],
    );
    assert.equal(sectionOf("# A\n## X\n1\n### Y\n2\n## Z\n3", "x"), "## X\n1\n### Y\n2");
    assert.equal(sectionOf("# A\n## X", "z"), undefined);
  });

  it("knows no command that nobody has said how to run", () => {
    assert.equal(wayOf("rm -rf /"), undefined);
    assert.equal(wayOf("scripts/cluster explode"), undefined);
    assert.equal(wayOf("scripts/cluster status --json")?.in, "lab");
    assert.equal(wayOf("scripts/dev diff rs-1 --lab")?.in, "lab");
    assert.equal(wayOf("scripts/dev diff rs-1")?.in, "copy");
    assert.match(needOf("docs/x.md", "ssh NODE uptime") ?? "", /what an alert names/);
    assert.equal(needOf("docs/x.md", "ssh rs-1 uptime"), undefined);
  });
});
