/** What the fuzzing of the texts is made of. */
import fc from "fast-check";
import { parseConfig } from "../../config/load";
import type { ClusterConfig } from "../../config/schema";
import type { RawOverrides } from "../unit/config-fixture";

/** What the door makes of a stack file, or nothing when it lets it not in. */
export function accepted(raw: RawOverrides): ClusterConfig | undefined {
  const result = parseConfig(raw);
  return result.ok && result.config.platform === "hosts" ? result.config : undefined;
}

export const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
export const letters = (allowed: string, maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...allowed), minLength: 1, maxLength });

/** Ends of lines, strings, blocks and commands, and what shells, systemd and nginx expand. */
export const hostile = fc
  .tuple(
    fc.constantFrom("", "a", "eth0", "/readyz", "10.0.0.1"),
    fc.constantFrom(
      "\n",
      '"',
      "'",
      "}",
      ";",
      "$(id)",
      "`id`",
      "$host",
      "%n",
      "\\",
      "#",
      "{",
      " accept",
      "\u2028",
      "\0",
    ),
    fc.constantFrom("", "x", "\nexec evil", ' } virtual_server 1.2.3.4 80 { "'),
  )
  .map((parts) => parts.join(""));

/** A stack file with a text put into one of its places. */
export function withText(
  raw: Record<string, unknown>,
  place: readonly string[],
  text: string,
): Record<string, unknown> {
  let at = raw;
  for (const step of place.slice(0, -1)) {
    at[step] ??= {};
    at = at[step] as Record<string, unknown>;
  }
  at[place.at(-1) ?? ""] = text;
  return raw;
}
