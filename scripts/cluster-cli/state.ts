import { lastLine, runPulumi } from "./pulumi";

/** Inputs or outputs in the state. A secret as a whole is a map with the `plaintext` when shown. */
type Properties = Readonly<Record<string, unknown>>;

export interface StateResource {
  readonly urn: string;
  readonly type?: string;
  readonly parent?: string;
  readonly inputs?: Properties;
  readonly outputs?: Properties;
  readonly dependencies?: readonly string[];
  readonly propertyDependencies?: Readonly<Record<string, readonly string[] | null>>;
}

/** What a `pulumi` had begun and not finished when it was killed. */
export interface PendingOperation {
  readonly resource: StateResource;
  /** creating, updating, deleting, reading or importing */
  readonly type: string;
}

/** A stack's state as `pulumi stack export` shows it. */
export interface State {
  readonly deployment: {
    /** By whom and when it was written. */
    readonly manifest?: { readonly time?: string };
    readonly resources?: readonly StateResource[];
    readonly pending_operations?: readonly PendingOperation[];
  };
}

/** A `pulumi` command on a stack's state. @throws with pulumi's last words when it fails. */
async function stateCommand(stack: string, args: string[], input?: string): Promise<string> {
  const result = await runPulumi(stack, args, input);
  if (result.exitCode !== 0) throw new Error(`pulumi ${args.join(" ")}: ${lastLine(result)}`);
  return result.stdout;
}

/** @param showSecrets also their texts. Only for looking: what goes back is the state as it was kept, encrypted. */
export async function exportState(stack: string, showSecrets = false): Promise<State> {
  const args = ["stack", "export", ...(showSecrets ? ["--show-secrets"] : [])];
  return JSON.parse(await stateCommand(stack, args)) as State;
}

/** The same as the text that {@link importStateText} takes, its secrets encrypted. */
export async function exportStateText(stack: string): Promise<string> {
  return stateCommand(stack, ["stack", "export"]);
}

/** Replaces a stack's state. Pulumi drops the pending operations then. */
export async function importState(stack: string, state: State): Promise<void> {
  await importStateText(stack, JSON.stringify(state));
}

/** The same, of a text that {@link exportStateText} gave. */
export async function importStateText(stack: string, state: string): Promise<void> {
  await stateCommand(stack, ["stack", "import"], state);
}
