/** The last part of a URN: the resource's own name. */
export function nameOf(urn: string): string {
  return urn.split("::").at(-1) ?? urn;
}
