import assert from "node:assert/strict";
import { type Counts, count } from "../../scripts/test-runner/count";

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
