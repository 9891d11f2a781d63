import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { forgetPromiseStacks } from "../../components/stacks";

describe("stacks", () => {
  let undo: () => void;
  afterEach(() => undo());

  // Of that name in the SDK: what it keeps for each promise.
  function debuggablePromise(): string | undefined {
    return new Error().stack;
  }
  function somewhereElse(): string | undefined {
    return new Error("made up").stack;
  }

  it("are not written down for promises, and for errors as ever", () => {
    undo = forgetPromiseStacks();
    assert.equal(debuggablePromise(), "");
    assert.match(somewhereElse() ?? "", /^Error: made up\n {4}at somewhereElse /);
  });

  it("are written as whoever came before writes them", () => {
    Error.prepareStackTrace = (error) => `as usual: ${error.message}`;
    const again = forgetPromiseStacks();
    undo = () => Reflect.deleteProperty(Error, "prepareStackTrace");
    assert.equal(somewhereElse(), "as usual: made up");
    assert.equal(debuggablePromise(), "");
    again();
    assert.equal(debuggablePromise(), "as usual: ");
  });

  it("are all there for those who look for a promise that never ends", () => {
    process.env.PULUMI_DEBUG_PROMISE_LEAKS = "1";
    try {
      undo = forgetPromiseStacks();
      assert.match(debuggablePromise() ?? "", /debuggablePromise/);
    } finally {
      delete process.env.PULUMI_DEBUG_PROMISE_LEAKS;
    }
  });

  it("of the SDK are still asked for by that name", async () => {
    const sdk = createRequire(import.meta.url)("@pulumi/pulumi/runtime/debuggable") as {
      debuggablePromise: (promise: Promise<void>, context: string) => Promise<void>;
    };
    undo = forgetPromiseStacks();
    const promise = Promise.resolve() as Promise<void> & { _debugStackTrace?: string };
    await sdk.debuggablePromise(promise, "made up");
    assert.equal(promise._debugStackTrace, "");
  });
});
