import assert from "node:assert/strict";
import { type Counts, count } from "../../scripts/test-runner/count";
import { failures } from "../../scripts/test-runner/failures";
import { chooseSteps, steps } from "../../scripts/test-runner/steps";

describe("scripts/test counts", () => {
  const cases: [string, "one" | "mocha" | "pytest", string, number, Counts][] = [
    ["a program that succeeds", "one", "", 0, { passed: 1, failed: 0 }],
    ["a program that fails", "one", "5 passing", 2, { passed: 0, failed: 1 }],
    ["mocha", "mocha", "  12 passing (3s)\n  2 failing\n", 2, { passed: 12, failed: 2 }],
    ["mocha in colour", "mocha", "\u001b[32m  12 passing\u001b[0m (3s)\n", 0, { passed: 12, failed: 0 }],
    ["pytest", "pytest", "===== 1 failed, 30 passed, 1 error in 5.00s =====", 1, { passed: 30, failed: 2 }],
    ["a runner that breaks after all tests", "pytest", "30 passed in 5s", 3, { passed: 30, failed: 1 }],
    ["a runner that never got going", "mocha", "SyntaxError", 1, { passed: 0, failed: 1 }],
  ];
  for (const [what, kind, output, exitCode, expected] of cases) {
    it(what, () => assert.deepEqual(count(kind, output, exitCode), expected));
  }
});

describe("scripts/test ends with what failed", () => {
  const ofMocha = (...tests: readonly string[]) => [
    "  made up",
    "    1) fails",
    "",
    "  3 passing (1s)",
    `  ${tests.length} failing`,
    "",
    ...tests.flatMap((test, index) => [`  ${index + 1}) ${test}`, ""]),
  ];

  it("of mocha: titles, and the first lines of the errors without where they were thrown", () => {
    const [first, second] = [
      "made up\n       of two: parts\n         fails:\n\n      AssertionError [ERR_ASSERTION]: 1: one\n\n1 !== 2\n\n      + expected - actual\n\n      -1\n      +2\n      \n      at Context.<anonymous> (a.test.ts:1:1)",
      'made up\n       "before all" hook for "passes":\n     Error: no time\n      at b (b.ts:1:1)',
    ];
    const output = ofMocha(first ?? "", second ?? "").join("\n");
    assert.deepEqual(failures("mocha", `\u001b[31m${output}\u001b[0m\n`), [
      "1) made up > of two: parts > fails",
      "      AssertionError [ERR_ASSERTION]: 1: one",
      "1 !== 2",
      "      + expected - actual",
      "      -1",
      "      +2",
      '2) made up > "before all" hook for "passes"',
      "     Error: no time",
    ]);
  });

  it("of mocha: not more than somebody reads", () => {
    const test = `made up\n       fails:\n     Error: ${"long ".repeat(99)}\n${"     line\n".repeat(99)}`;
    const said = failures("mocha", ofMocha(...Array.from({ length: 30 }, () => test)).join("\n"));
    assert.equal(said.length, 8 * 7 + 1);
    assert.equal(said.at(-1), "and 22 more");
    assert.equal(Math.max(...said.map(({ length }) => length)), 200);
  });

  it("of pytest: its short summary", () => {
    const output = [
      "E       AssertionError: FAILED is what it says",
      "=========================== short test summary info ============================",
      "FAILED tests/test_made_up.py::test_one[a - b] - AssertionError: 1",
      "ERROR tests/test_made_up.py::test_two - OSError",
      "1 failed, 30 passed, 1 error in 5.00s",
    ];
    assert.deepEqual(failures("pytest", output.join("\n")), output.slice(2, 4));
  });

  it("of all else, and of what never got to a test: what it said last", () => {
    const output = Array.from({ length: 20 }, (_, index) => `line ${index}\n\n`).join("");
    const last = Array.from({ length: 8 }, (_, index) => `line ${12 + index}`);
    for (const kind of ["one", "mocha", "pytest"] as const) assert.deepEqual(failures(kind, output), last);
    assert.deepEqual(failures("one", ""), []);
  });
});

describe("scripts/test runs", () => {
  const names = (...args: string[]) => {
    const chosen = chooseSteps(args);
    return typeof chosen === "string" ? chosen : chosen.map(({ name }) => name);
  };
  const environment = (...args: string[]) => {
    const chosen = chooseSteps(args);
    return typeof chosen === "string" ? {} : (chosen[0]?.environment ?? {});
  };

  it("everything but the whole matrix of faults, when nothing is named", () => {
    assert.deepEqual(names(), names("all"));
    assert.equal(names("all").length, steps.length);
    assert.ok(!names("all").includes("faults"));
    assert.deepEqual([...names("unit"), ...names("lab")], names("all"));
  });

  it("what concerns aws alone, which belongs to the others too", () => {
    assert.equal(names("aws").length, 2);
    assert.ok([...names("aws")].every((name) => names("unit").includes(name)));
  });

  it("faults by name, in a lab of its own or in the one that runs", () => {
    assert.deepEqual(names("faults"), ["faults"]);
    assert.equal(environment("faults").COSYVOICE_LVS_FAULTS, "all");
    assert.equal(environment("faults", "drain", "release").COSYVOICE_LVS_FAULTS, "drain,release");
    assert.equal(environment("faults").COSYVOICE_LVS_STATE, undefined);
    assert.ok(environment("faults", "--state", "existing", "drain").COSYVOICE_LVS_STATE);
  });

  it("monitoring by name, in the lab only when one is named", () => {
    assert.deepEqual(names("monitoring"), [
      "monitoring: texts, alerts, runbooks",
      "monitoring: readings, relay, fetched programs",
      "monitoring, without machines",
    ]);
    assert.deepEqual(names("monitoring", "--state", "existing").slice(3), [
      "monitoring, in the lab",
      "dashboards, in the lab",
      "each alert by its fault, in the lab",
      "logs, in the lab",
    ]);
    assert.deepEqual(names("monitoring", "--logs"), ["logs, without machines"]);
    assert.match(String(names("monitoring", "--state")), /"--state" is not known to monitoring/);
  });

  it("security on this computer, in a lab, or both", () => {
    const [native, lab] = [names("security", "native"), names("security", "lab")];
    assert.deepEqual(lab, ["security, in the lab"]);
    assert.deepEqual(names("security"), [...native, ...lab]);
    assert.ok([...names("security")].every((name) => !names("all").includes(name)));
    assert.match(String(names("security", "elsewhere")), /"elsewhere" is not known to security/);
  });

  it("the documentation by name, with a cluster only when a lab is named", () => {
    assert.deepEqual(names("docs"), ["documentation"]);
    assert.deepEqual(names("docs", "--state", "existing"), ["documentation", "documentation, in the lab"]);
    assert.match(String(names("docs", "README.md")), /"README.md" is not known to docs/);
  });

  it("scripts/cluster by name, in the lab only when one is named", () => {
    const alone = ["scripts/cluster, without machines", "what scripts/cluster sends to machines"];
    assert.deepEqual(names("cli"), alone);
    assert.deepEqual(names("cli", "--state", "existing"), [...alone, "scripts/cluster, in the lab"]);
    assert.match(String(names("cli", "--state")), /"--state" is not known to cli/);
  });

  it("the engine's installation by itself", () => {
    assert.deepEqual(names("engine"), ["the engine's installation, in the lab"]);
    assert.ok(!names("all").includes("the engine's installation, in the lab"));
  });

  it("previews by themselves", () => {
    assert.deepEqual(names("previews"), ["previews and the policy pack, by pulumi"]);
  });

  it("nothing when it is told what it does not know", () => {
    assert.match(
      String(names("nonsense")),
      /"nonsense" is not one of: all, unit, lab, aws, previews, engine, security \[native \| lab\], cli \[--state existing\], faults/,
    );
    assert.match(String(names("unit", "lab")), /"unit lab" is not one of/);
    assert.match(String(names("faults", "--fast")), /"--fast" is not known/);
    assert.match(String(names("faults", "--state", "other")), /"--state" is not known/);
  });
});
