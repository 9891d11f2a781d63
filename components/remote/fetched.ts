import type { ClusterConfig, MonitoringConfig } from "../../config/schema";
import type { FetchedProgram } from "../../config/sections/programs";
import { paths } from "../../render/paths";
import type { LayerContent } from "./layer";
import { rootFile } from "./manifest";

/**
 * A program that is in no package, as a part of the layer with the unit that runs it: fetched once, known by its checksum, and
 * gone with the layer. Another version restarts the unit.
 */
export function fetched(
  name: FetchedProgram,
  { monitoring }: ClusterConfig & { readonly monitoring: MonitoringConfig },
  unit: string,
) {
  const { url, sha256 } = monitoring.programs[name];
  const directory = `${paths.fetched}/${name}`;
  return {
    directories: {
      [paths.fetched]: { mode: "0755", owner: "root:root" },
      [directory]: { mode: "0755", owner: "root:root", purge: true },
    },
    files: {
      [`/etc/cosyvoice-lvs/programs/${name}`]: rootFile(`${sha256}\n`, { notify: [`restart:${unit}`] }),
    },
    steps: [
      {
        name: `fetch ${name}`,
        run: `${paths.fetchProgram} ${directory} '${url}' ${sha256}`,
        unless: `[ "$(readlink ${directory}/current)" = ${sha256.slice(0, 16)} ]`,
        timeout: 1800,
      },
    ],
  } satisfies LayerContent;
}
