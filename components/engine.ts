/** gRPC's code for a peer that is not there. */
const UNAVAILABLE = 14;

/**
 * Ends this program when Pulumi's engine has been killed.
 *
 * The SDK reports every error to the engine, so also the one that the engine is gone: without this, each killed deployment
 * leaves a process behind that does this for ever and keeps a processor busy (seen with `@pulumi/pulumi` 3.248).
 */
export function endWithEngine(): void {
  const look = (error: unknown) => {
    if ((error as { code?: unknown } | undefined)?.code === UNAVAILABLE) process.exit(1);
  };
  process.prependListener("uncaughtException", look);
  process.prependListener("unhandledRejection", look);
}
