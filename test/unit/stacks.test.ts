import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { forgetPromiseStacks } from "../../components/stacks";

describe("stacks", () => {
  const before = Error.prepareStackTrace;
  afterEach(() => {
    if (before === undefined) Reflect.deleteProperty(Error, "prepareStackTrace");
    else Error.prepareStackTrace = before;
  });

  // Of that name in the SDK: what it keeps for each promise.
  function debuggablePromise(): string | undefined {
    return new Error().stack;
  }
  function somewhereElse(): string | undefined {
    return new Error("made up").stack;
  }

  it("are not written down for promises, and for errors as ever", () => {
    forgetPromiseStacks();
    assert.equal(debuggablePromise(), "");
    assert.match(somewhereElse() ?? "", /^Error: made up\n {4}at somewhereElse /);
  });

  it("are written as whoever came before writes them", () => {
    Error.prepareStackTrace = (error) => `as usual: ${error.message}`;
    forgetPromiseStacks();
    assert.equal(somewhereElse(), "as usual: made up");
    assert.equal(debuggablePromise(), "");
  });

  it("are all there for those who look for a promise that never ends", () => {
    process.env.PULUMI_DEBUG_PROMISE_LEAKS = "1";
    try {
      forgetPromiseStacks();
      assert.match(debuggablePromise() ?? "", /debuggablePromise/);
    } finally {
      delete process.env.PULUMI_DEBUG_PROMISE_LEAKS;
    }
  });

  it("of the SDK are still asked for by that name", async () => {
    const sdk = createRequire(import.meta.url)("@pulumi/pulumi/runtime/debuggable") as {
      debuggablePromise: (promise: Promise<void>, context: string) => Promise<void>;
    };
    forgetPromiseStacks();
    const promise = Promise.resolve() as Promise<void> & { _debugStackTrace?: string };
    await sdk.debuggablePromise(promise, "made up");
    assert.equal(promise._debugStackTrace, "");
  });
});
