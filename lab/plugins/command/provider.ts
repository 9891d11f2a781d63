import { randomBytes } from "node:crypto";
import type { Context } from "./context";
import type { CopyInputs } from "./copy";
import { type Change, diff } from "./diff";
import { type LocalInputs, type Previous, runLocally } from "./local";
import type { RemoteInputs } from "./remote";
import { COMPUTED, check, type Failure, RESOURCES, type ResourceType, RUN_INPUTS } from "./schema";
import { equal, isSecret, isUnknown, type PropertyMap, reveal, unwrap, type Value } from "./values";

/** What changed, as the engine wants to hear it. */
export interface Difference {
  readonly changes: Map<string, { readonly change: Change; readonly replaces: boolean }>;
}

/** A resource that exists from now on. */
export interface Created {
  readonly id: string;
  readonly outputs: PropertyMap;
}

interface CommandInputs extends LocalInputs, RemoteInputs {
  readonly create?: string;
  readonly update?: string;
  readonly delete?: string;
}

/** The code that does the work is loaded when the first command needs it: most runs of `pulumi` change nothing. */
const remote = () => import("./remote");
const copy = () => import("./copy");

function plain<T>(map: PropertyMap): T {
  return reveal(map) as unknown as T;
}

function resourceType(token: string): ResourceType {
  const type = RESOURCES[token];
  if (!type)
    throw new Error(`unknown resource type ${token}; known are ${Object.keys(RESOURCES).join(", ")}`);
  return type;
}

const isCommand = (token: string): boolean => token.endsWith(":Command");

function identifier(prefix: string): string {
  return prefix + randomBytes(4).toString("hex");
}

async function run(
  token: string,
  command: string | undefined,
  inputs: CommandInputs,
  previous: Previous,
  context: Context,
): Promise<PropertyMap> {
  if (command === undefined) return { stdout: previous.stdout ?? "", stderr: previous.stderr ?? "" };
  if (token === "command:local:Command") return runLocally(command, inputs, previous, context);
  return (await remote()).runRemotely(command, inputs, previous, context);
}

/** Checks the inputs of a resource. */
export function checkInputs(
  token: string,
  inputs: PropertyMap,
): { inputs: PropertyMap; failures: Failure[] } {
  return check(resourceType(token).inputs, inputs);
}

/** Compares the inputs of the last deployment with the ones of this. */
export function compare(
  token: string,
  before: PropertyMap,
  state: PropertyMap,
  after: PropertyMap,
  ignored: string[],
): Difference {
  const { inputs, updatable } = resourceType(token);
  const now = Object.fromEntries(
    Object.entries(after).filter(([name]) => name !== "version" && !name.startsWith("__")),
  );
  for (const name of ignored) if (state[name] !== undefined) now[name] = state[name];
  const changes = new Map<string, { change: Change; replaces: boolean }>();
  for (const [path, change] of diff(before, now)) {
    // Only a property as a whole replaces: for a single trigger, the SDK's own replaceOnChanges does.
    changes.set(path, { change, replaces: !updatable || inputs.fields[path]?.replaces === true });
  }
  return { changes };
}

/** The inputs among the properties of a state, for engines that do not send them apart. */
export function inputsOf(token: string, state: PropertyMap): PropertyMap {
  const { fields } = resourceType(token).inputs;
  return Object.fromEntries(Object.entries(state).filter(([name]) => name in fields));
}

/** Makes a resource, or says in a preview what it will look like. */
export async function create(
  token: string,
  name: string,
  inputs: PropertyMap,
  preview: boolean,
  context: Context,
): Promise<Created> {
  resourceType(token);
  if (isCommand(token)) {
    if (preview) return { id: identifier(name), outputs: { ...inputs, stdout: COMPUTED, stderr: COMPUTED } };
    const values = plain<CommandInputs>(inputs);
    const outputs = await run(token, values.create, values, {}, context);
    return { id: identifier(name), outputs: { ...inputs, ...outputs } };
  }
  if (preview) return { id: "", outputs: inputs };
  if (token === "command:remote:CopyToRemote")
    await (await copy()).copyToRemote(plain<CopyInputs>(inputs), context);
  else await (await copy()).copyFile(plain(inputs), context);
  return { id: identifier(""), outputs: inputs };
}

function hashOf(source: Value | undefined): Value {
  const value = unwrap(source ?? null);
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value.hash ?? null) : null;
}

/** Changes a resource in place, or says in a preview which outputs that may change. */
export async function update(
  token: string,
  state: PropertyMap,
  inputs: PropertyMap,
  ignored: string[],
  preview: boolean,
  context: Context,
): Promise<PropertyMap> {
  const type = resourceType(token);
  if (!type.updatable) throw new Error(`Update is not implemented for resource ${token}`);
  const now = { ...inputs };
  for (const name of ignored) if (state[name] !== undefined) now[name] = state[name];
  if (!isCommand(token)) {
    const moved =
      hashOf(now.source) !== hashOf(state.source) ||
      !equal(reveal(now.remotePath ?? ""), reveal(state.remotePath ?? ""));
    if (moved && !preview) await (await copy()).copyToRemote(plain<CopyInputs>(now), context);
    return now;
  }
  const results = Object.keys(state).filter((name) => !(name in type.inputs.fields));
  const kept = Object.fromEntries(results.map((name) => [name, unwrap(state[name] ?? null)]));
  if (preview) {
    const changed = Object.keys(type.inputs.fields).some((name) => {
      const value = now[name];
      if (value !== undefined && isUnknown(isSecret(value) ? unwrap(value) : value)) return true;
      return state[name] !== undefined && !equal(value, state[name]);
    });
    return { ...now, ...(changed ? Object.fromEntries(results.map((name) => [name, COMPUTED])) : kept) };
  }
  const values = plain<CommandInputs>(now);
  const outputs = await run(token, values.update ?? values.create, values, plain<Previous>(kept), context);
  return { ...now, ...kept, ...outputs };
}

/** Undoes a resource. A copied file stays where it is. */
export async function remove(token: string, state: PropertyMap, context: Context): Promise<void> {
  resourceType(token);
  if (!isCommand(token)) return;
  const values = plain<CommandInputs & Previous>(state);
  if (values.delete !== undefined) await run(token, values.delete, values, values, context);
}

/** Runs the function `command:local:run`, which has no state. */
export async function invoke(
  token: string,
  args: PropertyMap,
  context: Context,
): Promise<{ result?: PropertyMap; failures: Failure[] }> {
  if (token !== "command:local:run") throw new Error(`unknown function ${token}; known is command:local:run`);
  const { failures } = check(RUN_INPUTS, args);
  if (failures.length > 0) return { failures };
  const values = plain<LocalInputs & { command: string }>(args);
  const outputs = await runLocally(values.command, values, {}, context);
  return { result: { ...args, ...outputs }, failures: [] };
}
