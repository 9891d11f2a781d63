import { stringify } from "yaml";

/**
 * YAML for a program of another language. Those read YAML 1.1 or something between: what that has a meaning for, such as a machine
 * that is called `2024-01-01` or `on`, is in quotes. Written without anchors, which are for programs and not for people.
 */
export function renderYaml(value: unknown): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false, compat: "yaml-1.1" });
}
