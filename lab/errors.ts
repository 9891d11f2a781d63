/** A failure of the lab that its user can do something about. */
export class LabError extends Error {
  override readonly name = "LabError";

  /**
   * @param message what was wrong, with the value
   * @param fix what to do about it
   * @param log path of the log whose tail tells more. @default none
   */
  constructor(
    message: string,
    readonly fix: string,
    readonly log?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What is said on a terminal of anything thrown, by programs that only use the lab. */
export function said(error: unknown): unknown {
  if (error instanceof LabError) return `${error.message} ${error.fix}`;
  return error instanceof Error ? error.message : error;
}

/** The text of anything thrown; for a failed program the last lines of what it said. */
export function reason(error: unknown): string {
  if (typeof error === "object" && error !== null && "stderr" in error && typeof error.stderr === "string") {
    const said = error.stderr.trim().split("\n").slice(-5).join("\n");
    if (said !== "") return said;
  }
  return error instanceof Error ? error.message : String(error);
}
