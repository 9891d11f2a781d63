import { remote } from "@pulumi/command";
import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../../config/schema";
import { digest } from "../digest";
import type { Machine } from "../platform/machine";
import { connectionTo } from "./connection";
import { hostFile } from "./hostFiles";
import { type Manifest, type ManifestFile, rootFile } from "./manifest";
import { asRoot } from "./openssh";

/** Where the programs of this project live on a machine. */
export const PROGRAMS = "/usr/local/lib/cosyvoice-lvs";

const APPLIER = `${PROGRAMS}/apply`;

/** The programs that go to machines as they are, and their files in host/. */
const programFiles = {
  apply: "apply.py",
  turn: "turn.py",
  "health-poller": "health-poller.py",
  "vrrp-guard": "vrrp-guard.py",
  turns: "turns.py",
  "vip-on-lo": "vip-on-lo",
  "keep-mounted": "keep-mounted",
  "vip-mover": "vip-mover.py",
  allowances: "allowances.py",
  "install-efs-utils": "install-efs-utils",
  "build-env": "build-env",
  release: "release.py",
  engine: "engine.py",
  weights: "weights.py",
  verify: "verify.py",
  exporter: "exporter.py",
  "alert-relay": "alert-relay.py",
  "fetch-program": "fetch-program.py",
} as const;

/** A program that {@link applier} can put on a machine. */
export type Program = keyof typeof programFiles;

/** What the machines of a cluster that is watched need besides. */
export function watching({ monitoring }: Pick<ClusterConfig, "monitoring">): readonly Program[] {
  return monitoring === undefined
    ? []
    : ["exporter", ...(monitoring.logs.enabled ? (["fetch-program"] as const) : [])];
}

/** Installers by the names of their programs: a text of some 150 kB for each role, and not for each of 300 machines. */
const installers = new Map<string, string>();

/** The text that puts programs on a machine. */
export function installer(programs: readonly Program[]): string {
  const names: Program[] = ["apply", "turn", ...programs];
  const key = names.join(" ");
  const text = installers.get(key) ?? installerOf(names);
  installers.set(key, text);
  return text;
}

function installerOf(names: readonly Program[]): string {
  const functions = names.map((name) => {
    const end = `END_OF_${name}`;
    const text = hostFile(programFiles[name]);
    return `print_${name.replaceAll("-", "_")}() {\n    cat <<'${end}'\n${text}${end}\n}`;
  });
  const all = `PROGRAMS='${names.join(" ")}'\n\n${functions.join("\n\n")}`;
  return hostFile("bootstrap.sh").replace("@PROGRAMS@", () => all);
}

/**
 * A file that changes when a program does, for the layer with the unit that runs it: programs come by {@link applier}, so
 * that the diff of a layer is not buried below their texts.
 */
export function stamp(program: Program, unit: string): Record<string, ManifestFile> {
  const text = `${digest(hostFile(programFiles[program]))}\n`;
  return { [`/etc/cosyvoice-lvs/programs/${program}`]: rootFile(text, { notify: [`restart:${unit}`] }) };
}

/**
 * What every remote command of this project shares.
 *
 * - No `triggers`: they replace, and a replacement runs the old `delete` after the new `create`, which would wipe
 *   what was just written. `deleteBeforeReplace` covers the replacement that somebody asks for by hand.
 * - `addPreviousOutputInEnv: false`: sshd refuses to set unknown variables, and each refusal is a warning.
 */
function common(machine: Machine) {
  return { connection: connectionTo(machine), addPreviousOutputInEnv: false } as const;
}

/**
 * A command of root's for `create`. On a machine that can be replaced the text says which one it is meant for, in a comment of the
 * shell: a new machine of the old name and address is otherwise no change, and would stay bare.
 */
function createCommand(machine: Machine, command: string): pulumi.Input<string> {
  const { endpoint, incarnation } = machine;
  const text = asRoot(endpoint, command);
  if (incarnation === undefined) return text;
  const known = commands.get(machine) ?? new Map<string, pulumi.Output<string>>();
  commands.set(machine, known);
  const marked = known.get(text) ?? pulumi.interpolate`${text} # ${incarnation}`;
  known.set(text, marked);
  return marked;
}

/** As {@link connectionTo} keeps connections: all layers of a machine have the same one. */
const commands = new WeakMap<Machine, Map<string, pulumi.Output<string>>>();

/**
 * Installs the applier on a machine, the program that {@link layer} calls, and the programs of the machine's role. It is a
 * command of its own so that a layer's error shows the step that failed rather than the text of a script.
 */
export function applier(
  name: string,
  machine: Machine,
  programs: readonly Program[],
  opts: pulumi.CustomResourceOptions,
): remote.Command {
  return new remote.Command(
    name,
    {
      ...common(machine),
      create: createCommand(machine, "sh -s install"),
      delete: asRoot(machine.endpoint, "sh -s remove"),
      stdin: installer(programs),
    },
    { ...opts, deleteBeforeReplace: true },
  );
}

/**
 * Copies a file of this computer to a machine, into the login user's home directory. What it is taken for there must
 * be checked there.
 *
 * @param target file name
 */
export function copy(
  name: string,
  machine: Machine,
  source: string,
  target: string,
  opts: pulumi.CustomResourceOptions,
): remote.CopyToRemote {
  const { connection } = common(machine);
  return new remote.CopyToRemote(
    name,
    {
      connection,
      source: new pulumi.asset.FileAsset(source),
      remotePath: target,
      // It has no `delete`, so a replacement is a copy and nothing else.
      ...(machine.incarnation === undefined ? {} : { triggers: [machine.incarnation] }),
    },
    opts,
  );
}

/** What a caller says of a layer; its name and owner are added here. */
export type LayerContent = Omit<Manifest, "layer" | "owner">;

/**
 * One layer of a machine's configuration, applied by one remote command: one SSH session, and a preview whose diff
 * is the line of the file that will change. Deleting it takes away what the layer brought.
 *
 * @param layerName DNS label, the key of the layer's record on the machine.
 * @param content plain data, or an output when it holds a secret; mark that one `secret: true`.
 */
export function layer(
  name: string,
  machine: Machine,
  layerName: string,
  content: pulumi.Input<LayerContent>,
  opts: pulumi.CustomResourceOptions,
): remote.Command {
  const owner = `${pulumi.getStack()}/${machine.name}`;
  const serialise = (given: LayerContent): string => {
    const manifest: Manifest = { layer: layerName, owner, ...given };
    return `${JSON.stringify(manifest, undefined, 1)}\n`;
  };
  return new remote.Command(
    name,
    {
      ...common(machine),
      create: createCommand(machine, `${APPLIER} apply`),
      delete: asRoot(machine.endpoint, `${APPLIER} remove ${layerName} --owner ${owner}`),
      stdin: isPlain(content) ? serialise(content) : pulumi.output(content).apply(serialise),
    },
    { ...opts, deleteBeforeReplace: true },
  );
}

/**
 * Until resources have been made or changed. For what is to be waited for and not depended on: a dependency would tie a
 * machine's removal to that of all the others, of which one may be off, and grow with the square. Call it once for all who
 * wait, or this does too.
 */
export async function made(resources: readonly pulumi.Resource[]): Promise<void> {
  await Promise.all(resources.map(({ urn }) => new Promise((done) => urn.apply(done))));
}

function isPlain(content: pulumi.Input<LayerContent>): content is LayerContent {
  return !pulumi.Output.isInstance(content) && !(content instanceof Promise);
}
