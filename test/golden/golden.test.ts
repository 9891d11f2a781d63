import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { goldenCases, goldenFolder } from "./cases";

// Not told apart from a forgotten file by a test that only reads what it expects.
function keptFiles(): string[] {
  return readdirSync(goldenFolder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(
      (entry) => `${entry.parentPath.slice(goldenFolder.pathname.length).replace(/\/?$/, "/")}${entry.name}`,
    )
    .sort();
}

describe("golden texts", () => {
  before(() => {
    if (process.env.UPDATE_GOLDEN !== "1") return;
    rmSync(goldenFolder, { recursive: true, force: true });
    for (const { name, texts } of goldenCases) {
      mkdirSync(new URL(`${name}/`, goldenFolder), { recursive: true });
      for (const [file, text] of Object.entries(texts))
        writeFileSync(new URL(`${name}/${file}`, goldenFolder), text);
    }
  });

  for (const { name, texts } of goldenCases) {
    for (const [file, text] of Object.entries(texts)) {
      it(`${name}/${file}`, () => {
        const kept = readFileSync(new URL(`${name}/${file}`, goldenFolder), "utf8");
        assert.equal(text, kept, "it changed: look at the difference, then run UPDATE_GOLDEN=1 npm test");
      });

      it(`${name}/${file} ends with one newline and has no blanks at line ends`, () => {
        assert.match(text, /[^\n]\n$/);
        assert.doesNotMatch(text, /[ \t]\n/);
      });
    }
  }

  it("has no file that nothing renders", () => {
    const rendered = goldenCases.flatMap(({ name, texts }) =>
      Object.keys(texts).map((file) => `${name}/${file}`),
    );
    assert.deepEqual(keptFiles(), rendered.sort());
  });

  it("keeps the password out of keepalived.conf", () => {
    for (const { name, texts } of goldenCases) {
      for (const [file, text] of Object.entries(texts)) {
        if (file !== "cosyvoice-lvs-auth.conf") assert.doesNotMatch(text, /made-up1/, `${name}/${file}`);
      }
    }
  });

  it("lists the real servers in the same order on both directors", () => {
    for (const { name, texts } of goldenCases) {
      const [first, second] = ["keepalived-director-1.conf", "keepalived-director-2.conf"].map((file) =>
        texts[file]?.match(/real_server .*/g),
      );
      if (second !== undefined) assert.deepEqual(first, second, name);
    }
  });
});
