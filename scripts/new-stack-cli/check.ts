import { parse } from "yaml";
import { type Problem, parseConfig, rawFromStack } from "../../config/load";
import type { ClusterConfig, SecretKey } from "../../config/schema";

/** Secrets that a stack will have: `true`, or the text where it is known already. */
export type FutureSecrets = Readonly<Partial<Record<SecretKey, string | true>>>;

/** Reads a stack file's text as a deployment will. @returns what it comes to, or every mistake. */
export function checkStackFile(
  text: string,
  secrets: FutureSecrets = {},
): { config: ClusterConfig } | { problems: readonly Problem[] } {
  const { config } = parse(text) as { config: Readonly<Record<string, unknown>> };
  // Pulumi hands over every value as text.
  const texts = Object.entries(config).map(([key, value]) => [
    key,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
  const result = parseConfig({ ...rawFromStack(Object.fromEntries(texts)), ...secrets });
  return result.ok ? { config: result.config } : { problems: result.problems };
}
