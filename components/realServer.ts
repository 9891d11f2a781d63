import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { kernelModules } from "../render/modules";
import { paths } from "../render/paths";
import { realServerSysctls } from "../render/sysctls";
import { renderRealServerTurn } from "../render/turns";
import { renderVipUnit } from "../render/vip";
import { firewallStep } from "./firewall";
import { metadataRules } from "./metadataRules";
import type { Machine } from "./platform/machine";
import { applier, type LayerContent, layer, type Program, stamp, watching } from "./remote/layer";
import { rootFile } from "./remote/manifest";
import { type Engine, engineCheck, enginePackages } from "./speechEngine";

export interface RealServerArgs {
  readonly machine: Machine;
  readonly config: ClusterConfig;
  /** What will be installed for the engine cosyvoice. */
  readonly engine?: Engine | undefined;
}

/**
 * A machine made ready to stand behind the directors: its packages, and for DR and TUN the VIP on a device of its
 * own with ARP suppressed first, so that it takes the VIP's packets and never claims the address on the wire.
 */
export class RealServer extends pulumi.ComponentResource {
  readonly machine: Machine;
  /** The machine's last layer of its own; the share and the service come after it. */
  readonly configured: pulumi.Resource;
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: RealServerArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:RealServer", name, {}, opts);
    this.machine = args.machine;
    const needed: Program[] = ["vip-on-lo", "keep-mounted", "build-env", "release", ...watching(args.config)];
    if (args.engine) needed.push("engine", "weights");
    if (args.config.aws) needed.push("install-efs-utils");
    const programs = applier(`${name}-applier`, args.machine, needed, { parent: this });
    const realServer = layer(`${name}-real-server`, args.machine, "real-server", realServerContent(args), {
      parent: this,
      dependsOn: [programs],
    });
    this.configured = realServer;
    this.content = realServer.stdin.apply((text) => text ?? "");
    this.registerOutputs({ machine: args.machine.name, address: args.machine.address });
  }
}

function realServerContent({ config, engine, machine }: RealServerArgs): LayerContent {
  const packages = [
    "curl",
    "nfs-common",
    "python3-venv",
    ...(engine ? enginePackages(config) : ["espeak-ng"]),
    // The share's mount.efs is built of git's, binutils packs it, stunnel is its TLS.
    ...(config.aws ? ["nftables", "binutils", "git", "stunnel4"] : []),
  ];
  const common: LayerContent = {
    preflight: [
      {
        name: "Python is 3.11 or newer",
        run: "! [ -x /usr/bin/python3 ] || /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'",
        fix: "Debian 12 and Ubuntu 24.04 have it; the speech service's packages need it",
      },
      ...(engine ? [engineCheck(config, engine)] : []),
    ],
    packages,
    modules: kernelModules(config, "realServer"),
    sysctls: realServerSysctls(config),
    steps: [firewallStep(config, "realServer")],
    ...(config.aws ? metadataRules() : {}),
  };
  // With NAT the real server never sees the VIP.
  if (config.loadBalancer.forwarding === "NAT") return common;
  return {
    ...common,
    files: {
      ...common.files,
      ...stamp("vip-on-lo", "cosyvoice-vip.service"),
      [paths.vipUnit]: rootFile(renderVipUnit(config), {
        notify: ["restart:cosyvoice-vip.service"],
      }),
    },
    around: { name: "take a turn", run: renderRealServerTurn(config, machine.name, "the VIP's settings") },
    units: { ...common.units, "cosyvoice-vip.service": { enabled: true, started: true } },
  };
}
