/** What an operation may do besides its work: tell the engine, and learn that it should stop. */
export interface Context {
  /** Shows a line while the operation runs; gone from the display afterwards. */
  status(message: string): void;
  /** Adds to the diagnostics of the resource, which stay. */
  report(severity: "debug" | "warning" | "error", message: string): void;
  /** Aborted by a cancellation or by the operation's own time limit; the reason is an Error. */
  readonly signal: AbortSignal;
}

/** Waits, unless the operation is stopped first. */
export function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}
