import { hostFile } from "../../components/remote/hostFiles";
import { asRoot, type OpenSsh, type RunOptions } from "../../components/remote/openssh";
import { shellQuote } from "../../render/text";
import type { InventoryMachine } from "./inventory";

/** A shell command, whatever is in it, as a machine's login user must type it to have root's rights. */
export function asRootShell(machine: Pick<InventoryMachine, "user">, command: string): string {
  return asRoot(machine, `sh -c ${shellQuote(command)}`);
}

/** Runs a shell command with root's rights. @returns its output @throws an Error with its last words when it fails. */
export async function runAsRoot(
  machine: InventoryMachine,
  ssh: OpenSsh,
  command: string,
  input?: string,
): Promise<string> {
  const { exitCode, stdout, stderr } = await ssh.run(machine.name, asRootShell(machine, command), {
    timeout: 30,
    ...(input === undefined ? {} : { input }),
  });
  if (exitCode !== 0) {
    throw new Error(`${machine.name}: "${command}" failed: ${stderr.trim().split("\n").at(-1)}`);
  }
  return stdout;
}

/**
 * Runs a Python program of host/ on a machine, with root's rights. It is sent along rather than installed, so that it always
 * is of this version.
 *
 * @param args need no quoting
 * @returns its output
 * @throws UnreachableError when the machine cannot be logged in to, an Error when the program fails.
 */
export async function runProgram(
  machine: InventoryMachine,
  ssh: OpenSsh,
  file: string,
  args: readonly (string | number)[] = [],
  options: Omit<RunOptions, "input"> = {},
): Promise<string> {
  const command = asRoot(machine, ["python3 -", ...args].join(" "));
  const { exitCode, stdout, stderr } = await ssh.run(machine.name, command, {
    ...options,
    input: hostFile(file),
  });
  if (exitCode !== 0) throw new Error(`${machine.name}: ${file} failed: ${stderr.trim().split("\n").at(-1)}`);
  return stdout;
}

/**
 * The same for a program that reads its standard input: how it is called, and what must come first there.
 *
 * @param args need no quoting
 */
export function programWithInput(
  machine: Pick<InventoryMachine, "user">,
  file: string,
  args: readonly (string | number)[],
): { readonly command: string; readonly text: string } {
  const text = hostFile(file);
  return { command: asRoot(machine, [`python3 -c '${startOf(text, file)}'`, ...args].join(" ")), text };
}

/**
 * What Python is to be told by -c to run a program that comes on its standard input, before what that reads there itself. In
 * single quotes a shell leaves it as it is.
 */
export function startOf(text: string, name: string): string {
  // Read to its last byte and no further; what follows is the program's own.
  return `import sys; exec(compile(sys.stdin.buffer.read(${Buffer.byteLength(text)}), "${name}", "exec"))`;
}

/** The machine of that name. @throws with the names that there are. */
export function machineIn(machines: readonly InventoryMachine[], name: string): InventoryMachine {
  const found = machines.find((machine) => machine.name === name);
  if (found) return found;
  throw new Error(
    `There is no machine "${name}". There are: ${machines.map((machine) => machine.name).join(", ")}.`,
  );
}
