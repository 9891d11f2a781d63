// Who the units run as: root only where docs/security.md says why.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { paths } from "../../render/paths";
import { repository } from "../../scripts/lib/paths";
import { sectionOf } from "../docs/markdown";
import { goldenCases } from "./cases";
import { withPackaged } from "./readers";

/** A unit's name without its end, and its text; one that adds to the distribution's with what that has. */
function unitOf(file: string, text: string): readonly [string, string] {
  if (!file.endsWith(".d.conf")) return [basename(file, ".service"), text];
  const whole = withPackaged(file, text);
  return [basename(whole.unit, ".service"), whole.text];
}

const units = goldenCases.flatMap(({ texts }) =>
  Object.entries(texts)
    .filter(([file]) => /\.service(\.d\.conf)?$/.test(file))
    .map(([file, text]) => unitOf(file, text)),
);

/** As systemd reads it: the last word counts, and none is root. */
function isRoots(text: string): boolean {
  const user = [...text.matchAll(/^User=(.*)$/gm)].at(-1)?.[1] ?? "";
  return !/^DynamicUser=yes$/m.test(text) && ["", "root", "0"].includes(user.trim());
}

describe("what runs as root", () => {
  it("is in the documentation, each with its reason, and nothing else is", () => {
    const section = sectionOf(readFileSync(join(repository, "docs/security.md"), "utf8"), "who-they-run-as");
    const listed = [...(section ?? "").matchAll(/^\| (`[^|]+) \| [^|]{20,} \|$/gm)].flatMap(
      ([, names = ""]) => names.split(", ").map((name) => name.replaceAll("`", "")),
    );
    const roots = units.filter(([, text]) => isRoots(text)).map(([name]) => name);
    assert.deepEqual([...listed].sort(), [...new Set(roots)].sort());
  });

  it("is looked at in every unit that there is", () => {
    const known = new Set(units.map(([name]) => name));
    const placed = Object.values(paths).flatMap(
      (path) => /([^/]+)\.service(\.d\/.*)?$/.exec(path)?.[1] ?? [],
    );
    assert.deepEqual(
      placed.filter((name) => !known.has(name)),
      [],
    );
  });

  it("would be found", () => {
    for (const text of ["ExecStart=/bin/true\n", "User=nobody\nUser=root\n", "User=nobody\nUser=\n"])
      assert.ok(isRoots(text));
    for (const text of ["User=nobody\n", "User=root\nUser=nobody\n", "DynamicUser=yes\n"])
      assert.ok(!isRoots(text));
  });
});
