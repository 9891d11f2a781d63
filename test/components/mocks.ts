import * as pulumi from "@pulumi/pulumi";
import { forgetPromiseStacks } from "../../components/stacks";

/** One resource that the program asked for. */
export interface Registered {
  readonly type: string;
  readonly name: string;
  /** Plain values, secrets among them. */
  readonly inputs: Record<string, unknown>;
  /** Which of the inputs are secret, as a whole or in part. */
  readonly secrets: readonly string[];
}

/** The engine's mark on a secret (`@pulumi/pulumi/runtime/rpc`, specialSecretSig). */
const SECRET = "1b47061264138c4ac30d75fd1eb44270";

/**
 * Starts Pulumi's mocks afresh.
 *
 * @param slow resources that take a while, and appear in the list when they are made.
 * @param outputs what resources of a type have beside their inputs, by type.
 * @param preview whether the program is told that it is run for a preview.
 * @returns the list in which every resource appears as it is registered.
 */
export async function startMocks(
  stack = "test",
  slow?: RegExp,
  outputs: Readonly<Record<string, Record<string, unknown>>> = {},
  preview = false,
): Promise<Registered[]> {
  forgetStacks();
  const registered: Registered[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource: async ({ type, name, inputs }) => {
        if (slow?.test(name)) await new Promise((done) => setTimeout(done, 100));
        const secrets = Object.keys(inputs).filter((key) =>
          JSON.stringify(inputs[key] ?? null).includes(SECRET),
        );
        registered.push({ type, name, inputs: revealed(inputs) as Record<string, unknown>, secrets });
        return { id: `${name}-id`, state: { ...inputs, stdout: "", stderr: "", ...outputs[type] } };
      },
      call: ({ inputs }) => inputs,
    },
    "cosyvoice-lvs",
    stack,
    preview,
  );
  return registered;
}

/** A value without the marks on its secrets. */
function revealed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(revealed);
  if (typeof value !== "object" || value === null) return value;
  if (Object.values(value).includes(SECRET) && "value" in value) return revealed(value.value);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revealed(inner)]));
}

let remember = () => {};

/** As the program itself does, until {@link settled}: what fails after that is to be found by its place in the sources. */
export function forgetStacks(): void {
  remember();
  remember = forgetPromiseStacks();
}

/** Waits until everything the program asked for has been registered. */
export async function settled(): Promise<void> {
  await pulumi.runtime.disconnect();
  remember();
  remember = () => {};
}
