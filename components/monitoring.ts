import { posix } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { type ClusterConfig, type MonitoringConfig, watchedMachines } from "../config/schema";
import { hasFirewall } from "../render/firewall";
import { curlAccess, hasPassword, renderCurlConfig, renderWebConfig } from "../render/monitoring/access";
import { relayed, renderAlertmanagerConfig, withSecret } from "../render/monitoring/alertmanager";
import { renderAlertRules } from "../render/monitoring/alerts";
import {
  READINGS,
  renderAlertRelayUnit,
  renderDirectorMetricsConfig,
  renderDirectorMetricsUnit,
  renderDoorMetricsUnit,
  renderGpuMetricsUnit,
  renderMetricsAtBoot,
  renderSentenceConfig,
  renderSentenceUnit,
  renderWatchRules,
  renderWatchRulesUnit,
  WATCHER,
} from "../render/monitoring/exporters";
import { logSources } from "../render/monitoring/logs";
import {
  renderAlertmanagerDropIn,
  renderNodeExporterDropIn,
  renderProberConfig,
  renderProberDropIn,
  renderPrometheusConfig,
  renderPrometheusDropIn,
} from "../render/monitoring/prometheus";
import { paths } from "../render/paths";
import { roomFor } from "./diskRoom";
import { Firewall } from "./firewall";
import { grafanaContent } from "./grafana";
import { collectorContent, lokiContent, storeOfLogs, storeOfMetrics } from "./logs";
import { metadataRules } from "./metadataRules";
import { passwordHash } from "./passwordHash";
import type { Machine } from "./platform/machine";
import { daemon } from "./remote/daemon";
import { applier, type LayerContent, layer } from "./remote/layer";
import { type ManifestFile, rootFile } from "./remote/manifest";

/** A configuration with monitoring. */
type Watched = ClusterConfig & { readonly monitoring: MonitoringConfig };

/** A machine that is watched, and what must be on it first. */
export interface WatchedMachine {
  readonly machine: Machine;
  readonly after: readonly pulumi.Resource[];
}

export interface MonitoringArgs {
  readonly config: Watched;
  /** The machine that watches. */
  readonly monitor: Machine;
  /** All others that are watched: their own layers come first, so that watching never stands in the way of serving. */
  readonly machines: readonly WatchedMachine[];
  /** What must not be read by others about receivers, by their names. */
  readonly receiverSecrets?: pulumi.Input<Readonly<Record<string, string>>> | undefined;
  /** What HTTPS is known by, and what it asks for. Needed where it is on. */
  readonly door?:
    | { readonly certificate: pulumi.Input<string>; readonly apiKeys?: pulumi.Input<string> | undefined }
    | undefined;
  /** By which people are let in. */
  readonly password?: pulumi.Input<string> | undefined;
}

/**
 * What watches the cluster: exporters on every machine, and on one of its own Prometheus, Alertmanager and a prober that asks
 * the VIP as a client does. Nothing that serves waits for any of it or depends on it, and it takes no turns: when it is down,
 * nobody is served worse.
 */
export class Monitoring extends pulumi.ComponentResource {
  constructor(name: string, args: MonitoringArgs, opts?: pulumi.ComponentResourceOptions) {
    super("cosyvoice-lvs:index:Monitoring", name, {}, opts);
    const { config, monitor } = args;
    const parent = { parent: this };

    if (config.monitoring.receivers.length === 0) {
      pulumi.log.warn(
        "monitoring.receivers is empty: nobody receives alerts. They are seen in Alertmanager only.",
        this,
      );
    }
    if (config.monitoring.adminNetworks.length > 0 && !hasPassword(config)) {
      pulumi.log.warn(
        "monitoringPassword is not set: Prometheus and Alertmanager ask nobody in monitoring.adminNetworks for a password. Run: openssl rand -hex 16 | pulumi config set --secret monitoringPassword",
        this,
      );
    }
    const programs = applier(
      `${name}-applier`,
      monitor,
      ["exporter", "verify", "alert-relay", "fetch-program"],
      parent,
    );
    // They take longest, and wait for nobody.
    const packages = layer(
      `${name}-packages`,
      monitor,
      "watcher-packages",
      { packages: PACKAGES },
      { ...parent, dependsOn: [programs] },
    );
    const secrets = this.secretsOf(`${name}-secrets`, args, packages);
    const watcher = layer(`${name}-watcher`, monitor, "watcher", watcherContent(config), {
      ...parent,
      dependsOn: [packages, ...(secrets ? [secrets] : [])],
    });
    // With the rules of who may see what: they are there before anything else listens.
    const watched = new Map<string, pulumi.Resource>();
    for (const { machine, after } of [...args.machines, { machine: monitor, after: [packages] }]) {
      const readings = layer(
        `${name}-${machine.name}`,
        machine,
        "watched",
        watchedContent(config, machine.name),
        {
          ...parent,
          dependsOn: [...after],
        },
      );
      watched.set(machine.name, readings);
    }
    const own = watched.get(monitor.name);
    // Of its own, and not with those of what serves: the proof that clients are served waits for them.
    if (own !== undefined && hasFirewall(config, monitor.role)) {
      new Firewall(`${name}-firewall`, { config, machines: [{ machine: monitor, after: own }] }, parent);
    }
    this.logs(name, args, watched);
    if (config.monitoring.grafana.enabled) {
      const guarded = [watcher, own].filter((resource) => resource !== undefined);
      layer(`${name}-grafana`, monitor, "grafana", grafanaContent(config), {
        ...parent,
        dependsOn: guarded,
      });
    }
    this.registerOutputs({ machine: monitor.name, address: monitor.address });
  }

  /** Loki, and a collector on every machine that is watched. */
  private logs(
    name: string,
    { config, monitor, machines }: MonitoringArgs,
    watched: ReadonlyMap<string, pulumi.Resource>,
  ): void {
    const on = (machine: Machine, suffix: string, layerName: string, content: LayerContent) => {
      const guard = watched.get(machine.name);
      layer(`${name}-${suffix}`, machine, layerName, content, {
        parent: this,
        dependsOn: guard === undefined ? [] : [guard],
      });
    };
    const sources = logSources(config);
    if (sources.length === 0) return;
    on(monitor, "loki", "loki", lokiContent(config));
    for (const machine of [...machines.map((each) => each.machine), monitor]) {
      const source = sources.find((each) => each.name === machine.name);
      if (source === undefined) throw new Error(`${machine.name} is not watched`);
      on(machine, `${machine.name}-logs`, "logs", collectorContent(config, source));
    }
  }

  /** The secrets' own layer, so that they neither hide nor appear in the diff of the rest. */
  private secretsOf(
    name: string,
    { config, monitor, receiverSecrets, password, door }: MonitoringArgs,
    packages: pulumi.Resource,
  ): pulumi.Resource | undefined {
    const receivers = withSecret(config);
    if (receivers.length === 0 && !hasPassword(config) && door === undefined) return undefined;
    if (receivers.length > 0 && receiverSecrets === undefined)
      throw new pulumi.RunError("receiverSecrets was found set, but its value is missing.");
    if (hasPassword(config) && password === undefined)
      throw new pulumi.RunError("monitoringPassword was found set, but its value is missing.");
    const names = receivers.map((receiver) => receiver.name);
    const place = `${pulumi.getStack()}/${monitor.name}`;
    const content = pulumi
      .secret(pulumi.all([receiverSecrets ?? {}, password, door?.certificate, door?.apiKeys]))
      .apply(([receivers, text, certificate, apiKeys]) =>
        secretsContent(names, { receivers, password: text, certificate, apiKeys }, place),
      );
    return layer(name, monitor, "watcher-secrets", content, { parent: this, dependsOn: [packages] });
  }
}

/** Of the monitoring machine. */
const PACKAGES = ["prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "curl"];

/** What the monitoring machine keeps to itself. */
interface Secrets {
  /** By the names of receivers. */
  readonly receivers: Readonly<Record<string, string>>;
  readonly password?: string | undefined;
  readonly certificate?: string | undefined;
  readonly apiKeys?: string | undefined;
}

/** For root and for the programs that ask with it. */
const FOR_GROUP = { mode: "0640", owner: `root:${WATCHER}` };

function secretsContent(names: readonly string[], secrets: Secrets, place: string): LayerContent {
  const { receivers, password, certificate, apiKeys } = secrets;
  const file = (name: string): readonly [string, ManifestFile] => [
    `${paths.receiverSecrets}/${name}`,
    rootFile(receivers[name] ?? "", {
      ...FOR_GROUP,
      notify: [`restart:${posix.basename(paths.alertRelayUnit)}`],
    }),
  ];
  const folder = { ...FOR_GROUP, mode: "0750" };
  return {
    secret: true,
    directories: {
      ...(names.length > 0 ? { [paths.receiverSecrets]: folder } : {}),
      ...(password === undefined ? {} : { [posix.dirname(paths.watchPassword)]: folder }),
      ...(certificate === undefined ? {} : { [paths.frontDoor]: { mode: "0755", owner: "root:root" } }),
    },
    files: {
      ...Object.fromEntries(names.map(file)),
      ...(password === undefined ? {} : passwordFiles(password, place)),
      // Whoever asks by HTTPS reads them anew each time.
      ...(certificate === undefined ? {} : { [paths.frontDoorCertificate]: rootFile(certificate) }),
      ...(apiKeys === undefined
        ? {}
        : { [paths.frontDoorAskingKey]: rootFile(`${apiKeys.split(",")[0]}`, FOR_GROUP) }),
    },
  };
}

/** Read again with every request, so that a change restarts nothing. */
function passwordFiles(password: string, place: string): Record<string, ManifestFile> {
  return {
    [paths.watchPassword]: rootFile(password, FOR_GROUP),
    [paths.watchWebConfig]: rootFile(renderWebConfig(passwordHash(password, place)), FOR_GROUP),
    [paths.watchCurl]: rootFile(renderCurlConfig(password), { mode: "0600" }),
  };
}

/** What is on a machine that is watched. */
function watchedContent(config: Watched, machineName: string): LayerContent {
  const machine = watchedMachines(config).find(({ name }) => name === machineName);
  if (machine === undefined) throw new Error(`${machineName} is not watched`);
  const own = ownReader(config, machine.role);
  const metadata = config.aws && machine.role === "monitor" ? metadataRules() : undefined;
  const rules = posix.basename(paths.watchRulesUnit);
  return {
    packages: ["prometheus-node-exporter", "nftables"],
    directories: { [paths.metrics]: { ...READINGS, purge: true } },
    files: {
      [paths.watchRules]: rootFile(renderWatchRules(config, machine), {
        check: "nft -c -f {}",
        notify: [`reload:${rules}`],
      }),
      [paths.watchRulesUnit]: rootFile(renderWatchRulesUnit()),
      [paths.metricsAtBoot]: rootFile(renderMetricsAtBoot()),
      [paths.nodeExporterDropIn]: rootFile(renderNodeExporterDropIn(config, machine), {
        notify: ["restart:prometheus-node-exporter.service"],
      }),
      ...metadata?.files,
      ...own?.files,
    },
    // The rules first: nothing of this is to be seen by everybody, also not for a moment.
    units: {
      ...metadata?.units,
      [rules]: { enabled: true, started: true },
      "prometheus-node-exporter.service": { enabled: true, started: true },
      ...own?.units,
    },
  };
}

function ownReader(
  config: Watched,
  role: Machine["role"],
): Pick<LayerContent, "files" | "units"> | undefined {
  switch (role) {
    case "director":
      return daemon("exporter", [paths.directorMetricsUnit, renderDirectorMetricsUnit()], {
        restart: [paths.directorMetricsConfig, renderDirectorMetricsConfig(config)],
      });
    case "realServer": {
      const gpu = daemon("exporter", [paths.gpuMetricsUnit, renderGpuMetricsUnit(config)]);
      if (config.https === undefined) return gpu;
      return together(gpu, daemon("exporter", [paths.doorMetricsUnit, renderDoorMetricsUnit(config)]));
    }
    default:
      return undefined;
  }
}

/** Two daemons of one program, whose change restarts both. */
function together(one: ReturnType<typeof daemon>, other: ReturnType<typeof daemon>) {
  const files: Record<string, ManifestFile> = { ...one.files };
  for (const [path, file] of Object.entries(other.files))
    files[path] = { ...file, notify: [...(files[path]?.notify ?? []), ...(file.notify ?? [])] };
  return { files, units: { ...one.units, ...other.units } };
}

/** What is on the machine that watches. */
function watcherContent(config: Watched): LayerContent {
  const { ports, receivers } = config.monitoring;
  const sentence = daemon("exporter", [paths.sentenceUnit, renderSentenceUnit()], {
    restart: [paths.sentenceConfig, renderSentenceConfig(config)],
  });
  const relay = receivers.some(relayed)
    ? daemon("alert-relay", [paths.alertRelayUnit, renderAlertRelayUnit()])
    : undefined;
  const packaged = (
    name: string,
    dropIn: readonly [string, string],
    texts: Record<string, ManifestFile>,
  ) => ({
    files: { ...texts, [dropIn[0]]: rootFile(dropIn[1], { notify: [`restart:${name}`] }) },
    units: { [name]: { enabled: true, started: true } },
  });
  const prometheus = packaged(
    "prometheus.service",
    [paths.prometheusDropIn, renderPrometheusDropIn(config)],
    {
      [paths.alertRules]: rootFile(renderAlertRules(config), {
        check: "promtool check rules {}",
        notify: ["reload:prometheus.service"],
      }),
      [paths.prometheusConfig]: rootFile(renderPrometheusConfig(config), {
        check: "promtool check config {}",
        notify: ["reload:prometheus.service"],
      }),
    },
  );
  const alertmanager = packaged(
    "prometheus-alertmanager.service",
    [paths.alertmanagerDropIn, renderAlertmanagerDropIn(config)],
    {
      [paths.alertmanagerConfig]: rootFile(renderAlertmanagerConfig(config), {
        check: "amtool check-config {}",
        notify: ["reload:prometheus-alertmanager.service"],
      }),
    },
  );
  const prober = packaged(
    "prometheus-blackbox-exporter.service",
    [paths.proberDropIn, renderProberDropIn()],
    {
      [paths.proberConfig]: rootFile(renderProberConfig(config), {
        check: "prometheus-blackbox-exporter --config.check --config.file={}",
        notify: ["reload:prometheus-blackbox-exporter.service"],
      }),
    },
  );
  return {
    preflight: [roomFor(storeOfMetrics(config), config.monitoring.logs.enabled ? [storeOfLogs(config)] : [])],
    packages: PACKAGES,
    directories: { [paths.metrics]: { ...READINGS, purge: true } },
    files: {
      ...prometheus.files,
      ...alertmanager.files,
      ...prober.files,
      ...sentence.files,
      ...relay?.files,
    },
    units: {
      ...relay?.units,
      ...alertmanager.units,
      ...prober.units,
      ...sentence.units,
      ...prometheus.units,
    },
    checks: [
      {
        name: "Prometheus is ready",
        run: `curl -sf${curlAccess(config)} --max-time 5 http://127.0.0.1:${ports.prometheus}/-/ready`,
        within: 120,
      },
      {
        name: "Alertmanager is ready",
        run: `curl -sf${curlAccess(config)} --max-time 5 http://127.0.0.1:${ports.alertmanager}/-/ready`,
        within: 60,
      },
    ],
  };
}
