import { renderMetadataRules, renderPacketRulesUnit } from "../render/packetRules";
import { paths } from "../render/paths";
import type { LayerContent } from "./remote/layer";
import { rootFile } from "./remote/manifest";

/** On aws, for a machine that is no director: its credentials and its user data are root's business. */
export function metadataRules(): Required<Pick<LayerContent, "files" | "units">> {
  return {
    files: {
      [paths.packetRules]: rootFile(renderMetadataRules(), {
        check: "nft -c -f {}",
        notify: ["reload:cosyvoice-rules.service"],
      }),
      [paths.packetRulesUnit]: rootFile(renderPacketRulesUnit()),
    },
    units: { "cosyvoice-rules.service": { enabled: true, started: true } },
  };
}
