import { nameOf } from "../lib/urn";
import { hostOf } from "./layers";
import { exportState, importState, type State, type StateResource } from "./state";

/**
 * Takes a machine that is gone for good out of the stack's state, so that no later deployment tries to clean it up.
 * The machine itself is not contacted.
 *
 * @param address the machine's address in the state.
 * @returns the names of the resources that were taken out; empty when the state knows no such machine.
 */
export async function forget(stack: string, address: string): Promise<string[]> {
  // Secrets are shown to find the machine's resources; what goes back is the state as it was kept, encrypted.
  const shown = await exportState(stack, true);
  const gone = resourcesOf(shown.deployment.resources ?? [], address);
  const state = await exportState(stack);
  if (gone.length > 0) await importState(stack, without(state, new Set(gone)));
  return gone.map(nameOf);
}

/** The machine's own resources, and the components that hold nothing else, in the order of the state. */
export function resourcesOf(resources: readonly StateResource[], address: string): string[] {
  const gone = new Set(
    resources.filter(({ inputs }) => hostOf(inputs?.connection) === address).map(({ urn }) => urn),
  );
  for (const { urn } of [...resources].reverse()) {
    const children = resources.filter(({ parent }) => parent === urn);
    if (children.length > 0 && children.every((child) => gone.has(child.urn))) gone.add(urn);
  }
  return resources.filter(({ urn }) => gone.has(urn)).map(({ urn }) => urn);
}

/** The state without some resources, and without what others say of them. */
function without(state: State, gone: ReadonlySet<string>): State {
  const stay = (urn: string) => !gone.has(urn);
  const resources = (state.deployment.resources ?? [])
    .filter(({ urn }) => stay(urn))
    .map((resource) => ({
      ...resource,
      ...(resource.dependencies ? { dependencies: resource.dependencies.filter(stay) } : {}),
      ...(resource.propertyDependencies
        ? {
            propertyDependencies: Object.fromEntries(
              Object.entries(resource.propertyDependencies).map(([key, urns]) => [
                key,
                (urns ?? []).filter(stay),
              ]),
            ),
          }
        : {}),
    }));
  return { ...state, deployment: { ...state.deployment, resources } };
}
