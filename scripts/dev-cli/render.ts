import * as pulumi from "@pulumi/pulumi";
import type { Manifest } from "../../components/remote/manifest";
import { stackName as labStack } from "../../lab/stack";
import { settled, startMocks } from "../../test/components/mocks";
import { deployedLayers, hostOf } from "../cluster-cli/layers";
import { settingsOf } from "./settings";

/** What a deployment would do to a machine, in the order in which it would. */
export interface Rendered {
  readonly machine: string;
  readonly address: string;
  /** The text that installs the applier and the programs of the machine's role. */
  readonly programs: string;
  /** What is copied there as it is: from a file of this computer to one in the login user's home directory. */
  readonly copies: readonly { readonly source: string; readonly target: string }[];
  readonly layers: readonly RenderedLayer[];
}

export interface RenderedLayer {
  readonly resource: string;
  readonly manifest: Manifest;
  /** The manifest as it travels. */
  readonly text: string;
}

/**
 * Runs the program itself, index.ts, on a stack file, with Pulumi's mocks in the place of Pulumi: so what is shown is what
 * would be deployed, by whatever way it comes about. Once a process: the program is a module.
 *
 * @throws with every mistake of the file.
 */
export async function render(stack: string, file: string): Promise<Rendered[]> {
  const { values, secrets } = await settingsOf(file, stack === labStack ? ["peerKey"] : []);
  if (values["cosyvoice-lvs:platform"] === "aws")
    throw new Error(
      `${file} is for aws, where addresses are known once machines are made. scripts/test aws runs that platform under mocks.`,
    );
  // As in a preview, no machine is asked for.
  const registered = await startMocks(stack, undefined, {}, true);
  pulumi.runtime.setAllConfig(values, secrets);
  await import("../../index");
  await settled();

  const resources = registered.map(({ type, name, inputs }) => ({ urn: name, type, inputs }));
  const layers = deployedLayers(resources).map(({ resource, address, manifest }) => ({
    resource,
    address,
    manifest: JSON.parse(manifest) as Manifest,
    text: manifest,
  }));
  const machines = new Map(layers.map(({ address, manifest }) => [address, nameOf(manifest)]));
  return [...machines].map(([address, machine]) => {
    const own = registered.filter(({ inputs }) => hostOf(inputs.connection) === address);
    return {
      machine,
      address,
      programs: String(
        own.find(({ inputs }) => /\bsh -s install$/.test(String(inputs.create)))?.inputs.stdin,
      ),
      copies: own
        .filter(({ type }) => type === "command:remote:CopyToRemote")
        .map(({ inputs }) => ({
          source: (inputs.source as { readonly path: string }).path,
          target: String(inputs.remotePath),
        })),
      layers: layers
        .filter((layer) => layer.address === address)
        .map(({ resource, manifest, text }) => ({ resource, manifest, text })),
    };
  });
}

function nameOf({ owner }: Manifest): string {
  return owner.slice(owner.indexOf("/") + 1);
}

/** The machine of that name. @throws with the names that there are. */
export function renderedMachine(rendered: readonly Rendered[], name: string): Rendered {
  const found = rendered.find(({ machine }) => machine === name);
  if (found) return found;
  const known = rendered.map(({ machine }) => machine).join(", ");
  throw new Error(`There is no machine "${name}" with layers in this stack. There are: ${known}.`);
}
