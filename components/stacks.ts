/** What V8 calls with the frames of a stack when its text is asked for. */
type Prepare = NonNullable<typeof Error.prepareStackTrace>;

/**
 * Spares the texts of stacks that nobody reads.
 *
 * For every promise the SDK keeps the text of the stack at its birth, some twenty for each resource, each with its places looked up
 * in source maps: of a preview of 1,000 real servers that was nearly half the time. All other stacks are as they were. Whoever looks
 * for a promise that never ends (PULUMI_DEBUG_PROMISE_LEAKS) gets them, too.
 *
 * @returns what makes it as it was.
 */
export function forgetPromiseStacks(): () => void {
  const before = Error.prepareStackTrace;
  if (process.env.PULUMI_DEBUG_PROMISE_LEAKS) return () => {};
  const usual: Prepare =
    before ?? ((error, frames) => [String(error), ...frames.map((frame) => `    at ${frame}`)].join("\n"));
  Error.prepareStackTrace = (error, frames) =>
    frames[0]?.getFunctionName() === "debuggablePromise" ? "" : usual(error, frames);
  return () => {
    // V8 maps places to sources itself where the property is not there.
    if (before === undefined) Reflect.deleteProperty(Error, "prepareStackTrace");
    else Error.prepareStackTrace = before;
  };
}
