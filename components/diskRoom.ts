/** What a program may take of a machine's disk. */
export interface Store {
  /** As in "there are 10 GB for measurements". */
  readonly what: string;
  readonly path: string;
  /** A directory that is there already, on the file system where `path` will be. */
  readonly on: string;
  readonly gigabytes: number;
  /** The configuration's key that says so. */
  readonly key: string;
}

/**
 * What must be true before a store is set up: it fits into what is free, with what it takes already, and beside what others on the same
 * file system may come to.
 */
export function roomFor(store: Store, others: readonly Store[]) {
  const device = ({ on }: Store) => `$(stat -c %d ${on})`;
  const bytes = ({ gigabytes }: Store) => gigabytes * 1e9;
  const beside = others.map(
    (other) =>
      `if [ "${device(other)}" = "${device(store)}" ]; then wanted=$((wanted + ${bytes(other)})); paths="$paths ${other.path}"; fi`,
  );
  const also = others.map(({ what, gigabytes }) => `, and ${gigabytes} for ${what}`).join("");
  return {
    name: `there are ${store.gigabytes} GB for ${store.what}${also}`,
    run: [
      `wanted=${bytes(store)} paths=${store.path}`,
      ...beside,
      // What they take already is theirs.
      "taken=$(du -scB1 $paths 2>/dev/null | tail -n1 | cut -f1)",
      `free=$(df -B1 --output=avail ${store.on} | tail -n1)`,
      "[ $((free + taken)) -ge $wanted ]",
    ].join("; "),
    fix: `set ${[store, ...others].map(({ key }) => key).join(" and ")} to what this machine has, or give it more`,
  };
}
