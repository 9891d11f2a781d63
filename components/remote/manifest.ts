/**
 * What a layer brings to a machine. `host/apply.py` is the program that reads it; the reference of the format is
 * the text at its top.
 */
export interface Manifest {
  /** Name of the layer, a DNS label; the key of its record on the machine. */
  readonly layer: string;
  /** `<stack>/<machine>`. Another stack's machine is refused; another name in the same stack is a rename. */
  readonly owner: string;
  /** Contents are never printed, and the machine's record keeps only paths. @default false */
  readonly secret?: boolean;
  /** Debian packages that must be installed. */
  readonly packages?: readonly string[];
  /** Kernel modules, loaded now and at boot. */
  readonly modules?: readonly string[];
  /** Kernel parameters, set now and at boot; what was there before comes back on removal. */
  readonly sysctls?: Readonly<Record<string, string>>;
  /** System users, each with its group, that own files or run units; `uid` where the number matters to others. */
  readonly users?: readonly { readonly name: string; readonly uid?: number; readonly home: string }[];
  readonly directories?: Readonly<Record<string, ManifestDirectory>>;
  readonly files?: Readonly<Record<string, ManifestFile>>;
  /** Symbolic links: path to target, or to a target with units to notify. */
  readonly links?: Readonly<Record<string, string | ManifestLink>>;
  /** systemd units, in the order in which they are started; they stop in the reverse order. */
  readonly units?: Readonly<Record<string, ManifestUnit>>;
  /** Programs run after the files are in place. `unless` exiting 0 skips one; `timeout` in seconds, 1800 by default. */
  readonly steps?: readonly {
    readonly name: string;
    readonly run: string;
    readonly unless?: string;
    readonly timeout?: number;
  }[];
  /** What must be true before anything is changed. */
  readonly preflight?: readonly { readonly name: string; readonly run: string; readonly fix: string }[];
  /**
   * A program that stands around a change that restarts, reloads or stops a unit: nothing live is touched before it
   * prints `go`, and it is told how the change ended.
   */
  readonly around?: { readonly name: string; readonly run: string; readonly within?: number };
  /** What must become true within so many seconds, or the layer has failed and is rolled back. */
  readonly checks?: readonly { readonly name: string; readonly run: string; readonly within: number }[];
  /** Commands run on removal, after the units have stopped. */
  readonly onRemove?: readonly string[];
}

export interface ManifestUnit {
  readonly enabled: boolean;
  readonly started: boolean;
  /** Seconds it may take to become active; 0 does not wait. */
  readonly within?: number;
}

export interface ManifestDirectory {
  readonly mode: string;
  /** `user:group`. */
  readonly owner: string;
  /** Goes with everything in it when the layer goes. @default false: only when it is empty */
  readonly purge?: boolean;
}

export interface ManifestLink {
  readonly target: string;
  /** As for a file. */
  readonly notify?: readonly string[];
  /** As for a file. */
  readonly keep?: boolean;
}

export interface ManifestFile {
  /** Octal, as text: "0640". */
  readonly mode: string;
  /** `user:group`. */
  readonly owner: string;
  readonly content: string;
  /** Shell command that must accept the new file before it replaces the old; `{}` is its staged path. */
  readonly check?: string;
  /** Exit codes of `check` that mean yes. @default [0] */
  readonly checkOk?: readonly number[];
  /** `reload:UNIT`, `restart:UNIT` or `run:COMMAND`, once, when the file has changed. */
  readonly notify?: readonly string[];
  /** Stays on the machine when a later manifest no longer has it; goes when the layer does. @default false */
  readonly keep?: boolean;
}

/** A file owned by root that anybody may read. */
export function rootFile(content: string, extra: Partial<ManifestFile> = {}): ManifestFile {
  return { mode: "0644", owner: "root:root", content, ...extra };
}

/** A program owned by root. */
export function rootProgram(content: string, extra: Partial<ManifestFile> = {}): ManifestFile {
  return rootFile(content, { mode: "0755", ...extra });
}
