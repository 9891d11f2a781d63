import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig, MachineConfig } from "../config/schema";
import { hasFirewall, renderAdminsCheck, renderFirewall, renderFirewallUnit } from "../render/firewall";
import { paths } from "../render/paths";
import type { Machine } from "./platform/machine";
import { type LayerContent, layer } from "./remote/layer";
import { rootFile } from "./remote/manifest";

const UNIT = "cosyvoice-firewall.service";

/** A machine, and the last of the layers that must be there before its packet filter. */
export interface FirewallMachine {
  readonly machine: Machine;
  readonly after: pulumi.Resource;
}

export interface FirewallArgs {
  readonly config: ClusterConfig;
  /** Those that get one. */
  readonly machines: readonly FirewallMachine[];
}

/**
 * The packet filters: one layer a machine, loaded in one go. Connections that are open stay open, so no turn is taken, and
 * whoever is connected by SSH just now must be let in again, or the old rules come back.
 */
export class Firewall extends pulumi.ComponentResource {
  readonly closed: readonly pulumi.Resource[];
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: FirewallArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:Firewall", name, {}, opts);
    const { config } = args;
    if (config.firewall.enabled && config.firewall.admins.some((network) => network.endsWith("/0"))) {
      pulumi.log.warn(
        "firewall.admins accepts SSH from everywhere. List the networks that you deploy and administer from.",
        this,
      );
    }
    const layers = args.machines.map(({ machine, after }) =>
      layer(`${name}-${machine.name}`, machine, "firewall", firewallContent(config, machine), {
        parent: this,
        dependsOn: [after],
      }),
    );
    this.closed = layers;
    this.content = pulumi.all(layers.map(({ stdin }) => stdin)).apply((texts) => texts.join(""));
    this.registerOutputs({});
  }
}

/**
 * For the layers of machines that serve: a packet filter that the configuration no longer has lets everybody in at once. Its own
 * layer is deleted after everything else, the proof that clients are served among it, which what is closed would keep from passing.
 * And one that stands still after such a deployment broke off is loaded again.
 */
export function firewallStep(config: ClusterConfig, role: MachineConfig["role"]) {
  return hasFirewall(config, role)
    ? {
        name: "close the packet filter that is there",
        unless: `! test -e ${paths.firewallUnit} || systemctl -q is-active ${UNIT}`,
        run: `systemctl start ${UNIT}`,
      }
    : {
        name: "open an earlier packet filter",
        unless: `! systemctl -q is-active ${UNIT}`,
        run: `systemctl stop ${UNIT}`,
      };
}

function firewallContent(config: ClusterConfig, { name, endpoint }: Machine): LayerContent {
  return {
    packages: ["nftables"],
    files: {
      [paths.firewall]: rootFile(renderFirewall(config, name), {
        check: "nft -c -f {}",
        notify: [`reload:${UNIT}`],
      }),
      [paths.firewallUnit]: rootFile(renderFirewallUnit()),
    },
    units: { [UNIT]: { enabled: true, started: true } },
    checks: config.firewall.enabled
      ? [
          {
            name: "who is connected by SSH may connect again",
            run: renderAdminsCheck(endpoint.port),
            within: 2,
          },
        ]
      : [],
  };
}
