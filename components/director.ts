import * as pulumi from "@pulumi/pulumi";
import type { ClusterConfig } from "../config/schema";
import { renderAllowancesConfig, renderAllowancesUnit } from "../render/allowances";
import { renderGuardConfig, renderGuardUnit } from "../render/guard";
import { POLLER, renderHealthConfig, renderHealthUnit } from "../render/health";
import {
  PAUSED,
  renderKeepalivedAuth,
  renderKeepalivedConfig,
  renderKeepalivedDropIn,
  renderNoStandby,
} from "../render/keepalived";
import { kernelModules } from "../render/modules";
import { renderPacketRules, renderPacketRulesUnit } from "../render/packetRules";
import { paths } from "../render/paths";
import { placed } from "../render/runtime";
import { directorSysctls } from "../render/sysctls";
import { KEEPER, renderDirectorTurn, renderTurnsConfig, renderTurnsUnit } from "../render/turns";
import { renderVipMoverConfig, renderVipMoverUnit } from "../render/vipMover";
import { servicePorts } from "../render/virtualServices";
import { firewallStep } from "./firewall";
import type { Machine } from "./platform/machine";
import { daemon } from "./remote/daemon";
import { applier, type LayerContent, layer, watching } from "./remote/layer";
import { rootFile } from "./remote/manifest";

export interface DirectorArgs {
  readonly machine: Machine;
  readonly config: ClusterConfig;
  /** The VRRPv2 password. Needed when `vrrp.authentication` is `PASS`, else ignored. */
  readonly vrrpPassword?: pulumi.Input<string> | undefined;
}

/**
 * A director: IPVS in the kernel, keepalived over it, and beside it three programs of ours: the poller that tells
 * keepalived who is ready, the guard that frees the VIP from a keepalived that hangs, and the keeper of the turns in which
 * machines are changed.
 *
 * Nothing here says which of the two is changed first: only at run time is it known who stands by, and the keeper lets that
 * one go first.
 */
export class Director extends pulumi.ComponentResource {
  readonly machine: Machine;
  /** The machine's last layer. */
  readonly configured: pulumi.Resource;
  /** What its layers hold, for whoever must act when any of it changes. */
  readonly content: pulumi.Output<string>;

  constructor(name: string, args: DirectorArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:Director", name, {}, opts);
    const { machine, config } = args;
    this.machine = machine;
    const parent = { parent: this };

    const needed = ["health-poller", "vrrp-guard", "turns", ...watching(config)] as const;
    const cloud = [
      ...(config.aws ? (["vip-mover"] as const) : []),
      ...(config.aws?.alarms ? (["allowances"] as const) : []),
    ];
    const programs = applier(`${name}-applier`, machine, [...needed, ...cloud], parent);
    const before: pulumi.Resource[] = [programs];
    if (config.vrrp.authentication === "PASS") {
      if (args.vrrpPassword === undefined) {
        throw new pulumi.RunError("vrrp.authentication is PASS, but vrrpPassword is not set.");
      }
      const auth = pulumi
        .secret(args.vrrpPassword)
        .apply((password) => authContent(password, config, machine.name));
      before.push(
        layer(`${name}-auth`, machine, "director-auth", auth, { ...parent, dependsOn: [programs] }),
      );
    }
    const director = layer(`${name}-director`, machine, "director", directorContent(config, machine.name), {
      ...parent,
      dependsOn: before,
    });

    this.machine = machine;
    this.configured = director;
    this.content = director.stdin.apply((text) => text ?? "");
    this.registerOutputs({ machine: machine.name, address: machine.address });
  }
}

function directorTurn(config: ClusterConfig, machineName: string) {
  return { name: "take a turn", run: renderDirectorTurn(config, machineName, "the directors' settings") };
}

/**
 * The password's own layer, so that it neither hides nor appears in the diff of keepalived's configuration.
 *
 * keepalived knows one password at a time. The standby, which gets the new one first, hears the other director no more until that has
 * it, too: it would take the VIP for one that nobody has. So it stands down meanwhile, and the keeper of the turns (host/turns.py)
 * lets it take part again.
 */
function authContent(password: string, config: ClusterConfig, machineName: string): LayerContent {
  return {
    secret: true,
    around: directorTurn(config, machineName),
    steps: [
      {
        name: "leave the VIP to the other director until it has the password, too",
        unless: renderNoStandby(config),
        run: placed(PAUSED, paths.standDown),
      },
    ],
    directories: { "/etc/keepalived": { mode: "0755", owner: "root:root" } },
    files: {
      [paths.keepalivedAuth]: rootFile(renderKeepalivedAuth(password), {
        mode: "0600",
        notify: ["reload:keepalived.service"],
      }),
    },
  };
}

/**
 * keepalived takes a missing track file for "serve". A real server that is new in the configuration must not get
 * connections before the poller, which is told at the same moment, has asked it.
 */
function startsAsDead({ realServers, https }: ClusterConfig) {
  const each = `cd ${paths.trackDirectory} && for name in ${realServers.map(({ name }) => name).join(" ")}; do`;
  const door = https === undefined ? "" : ` [ -e $name.door ] || { ${placed(1, "$name.door")}; };`;
  return {
    name: "start new real servers as dead",
    unless: `${each} [ -e $name.down ]${https === undefined ? "" : " && [ -e $name.door ]"} || exit 1; done`,
    run: `mkdir -p ${paths.trackDirectory} && ${each} [ -e $name.down ] || { ${placed(-1000000, "$name")} && ${placed(1, "$name.down")}; };${door} done`,
  };
}

function directorContent(config: ClusterConfig, machineName: string): LayerContent {
  const polled = config.loadBalancer.check.kind === "poller";
  const health = polled
    ? daemon("health-poller", [paths.healthUnit, renderHealthUnit()], {
        reload: [paths.healthConfig, renderHealthConfig(config, machineName)],
      })
    : undefined;
  const guard = daemon("vrrp-guard", [paths.vrrpGuardUnit, renderGuardUnit()], {
    restart: [paths.vrrpGuardConfig, renderGuardConfig(config, machineName)],
  });
  // keepalived's notify asks for it, so it is there before keepalived is.
  const mover = config.aws
    ? daemon("vip-mover", [paths.vipMoverUnit, renderVipMoverUnit()], {
        restart: [paths.vipMoverConfig, renderVipMoverConfig(config, machineName, pulumi.getStack())],
      })
    : undefined;
  const allowances = config.aws?.alarms
    ? daemon("allowances", [paths.allowancesUnit, renderAllowancesUnit()], {
        restart: [paths.allowancesConfig, renderAllowancesConfig(config, machineName)],
      })
    : undefined;
  const turns = daemon("turns", [paths.turnsUnit, renderTurnsUnit(config)], {
    reload: [paths.turnsConfig, renderTurnsConfig(config, machineName)],
  });
  return {
    packages: ["keepalived", "ipvsadm", "nftables", ...(mover ? ["python3-boto3"] : [])],
    users: [...(polled ? [POLLER] : []), KEEPER].map((name) => ({ name, home: "/nonexistent" })),
    modules: kernelModules(config, "director"),
    sysctls: directorSysctls(config),
    files: {
      ...health?.files,
      [paths.packetRules]: rootFile(renderPacketRules(config), {
        check: "nft -c -f {}",
        notify: ["reload:cosyvoice-rules.service"],
      }),
      [paths.packetRulesUnit]: rootFile(renderPacketRulesUnit()),
      ...guard.files,
      ...mover?.files,
      ...allowances?.files,
      ...turns.files,
      [paths.keepalivedDropIn]: rootFile(renderKeepalivedDropIn(config), {
        notify: ["restart:keepalived.service"],
      }),
      [paths.keepalivedConfig]: rootFile(renderKeepalivedConfig(config, machineName), {
        mode: "0640",
        // 6: only remarks about script security (keepalived(8), --config-test).
        check: "keepalived -t -f {}",
        checkOk: [0, 6],
        notify: ["reload:keepalived.service"],
      }),
    },
    around: directorTurn(config, machineName),
    steps: [
      {
        name: "take part in VRRP",
        unless: `! test -e ${paths.standDown} || grep -qx ${PAUSED} ${paths.standDown}`,
        run: `rm ${paths.standDown}`,
      },
      ...(polled ? [startsAsDead(config)] : []),
      firewallStep(config, "director"),
    ],
    units: {
      ...health?.units,
      "cosyvoice-rules.service": { enabled: true, started: true },
      ...mover?.units,
      "keepalived.service": { enabled: true, started: true },
      ...guard.units,
      ...allowances?.units,
      ...turns.units,
    },
    checks: [
      { name: "keepalived runs", run: "systemctl is-active --quiet keepalived.service", within: 20 },
      ...servicePorts(config).map((port) => ({
        name: "the kernel has the virtual service",
        run: `ipvsadm -Ln -t ${config.vip}:${port}`,
        within: 20,
      })),
    ],
  };
}
