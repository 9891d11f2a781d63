/** How a program ends that is not let come to its end by itself. */

/** 128 and the number of SIGPIPE: what a shell says of a program that wrote to nobody. */
const NOBODY_READS = 141;

/** Ends this program without a word when nobody reads any more what it prints, as after `| head`. */
export function endWithReader(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(NOBODY_READS);
  });
}

/**
 * Leaves an interrupt to the child of this work, which the terminal gives it too: pulumi then ends in its own time, and takes a second
 * one, or this program's end, for an order to drop everything.
 */
export async function leavingInterrupts<T>(work: () => Promise<T>): Promise<T> {
  const signals = ["SIGINT", "SIGHUP"] as const;
  const ignore = () => undefined;
  for (const signal of signals) process.on(signal, ignore);
  try {
    return await work();
  } finally {
    for (const signal of signals) process.off(signal, ignore);
  }
}
