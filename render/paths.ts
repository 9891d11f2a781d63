/** Where things are on the machines. Renderers, layers and docs take paths from here, so that they agree. */
export const paths = {
  keepalivedConfig: "/etc/keepalived/keepalived.conf",
  keepalivedAuth: "/etc/keepalived/cosyvoice-lvs-auth.conf",
  keepalivedDropIn: "/etc/systemd/system/keepalived.service.d/cosyvoice-lvs.conf",
  healthConfig: "/etc/cosyvoice-lvs/health.json",
  healthUnit: "/etc/systemd/system/cosyvoice-health.service",
  healthPoller: "/usr/local/lib/cosyvoice-lvs/health-poller",
  /** Root's; in it a directory for each program that keeps something there. */
  runtime: "/run/cosyvoice-lvs",
  /** One file per real server, named after it; written by the poller, followed by keepalived. */
  trackDirectory: "/run/cosyvoice-lvs/track",
  vrrpGuard: "/usr/local/lib/cosyvoice-lvs/vrrp-guard",
  vrrpGuardConfig: "/etc/cosyvoice-lvs/vrrp-guard.json",
  vrrpGuardUnit: "/etc/systemd/system/cosyvoice-vrrp-guard.service",
  turns: "/usr/local/lib/cosyvoice-lvs/turns",
  turnsConfig: "/etc/cosyvoice-lvs/turns.json",
  turnsUnit: "/etc/systemd/system/cosyvoice-turns.service",
  /** What the keeper of the turns must remember over a restart. */
  turnsDirectory: "/run/cosyvoice-lvs/turns",
  /** Anything but 0 in it, and keepalived gives the VIP away and takes it no more. */
  standDown: "/run/cosyvoice-lvs/turns/stand-down",
  /** The applier's companion, beside it on every director and real server. */
  turn: "/usr/local/lib/cosyvoice-lvs/turn",
  packetRules: "/etc/cosyvoice-lvs/rules.nft",
  packetRulesUnit: "/etc/systemd/system/cosyvoice-rules.service",
  firewall: "/etc/cosyvoice-lvs/firewall.nft",
  firewallUnit: "/etc/systemd/system/cosyvoice-firewall.service",
  /** nginx's configuration, and beside it the files with secrets. */
  frontDoor: "/etc/cosyvoice-lvs/front-door",
  frontDoorConfig: "/etc/cosyvoice-lvs/front-door/nginx.conf",
  frontDoorCertificate: "/etc/cosyvoice-lvs/front-door/certificate.pem",
  frontDoorKey: "/etc/cosyvoice-lvs/front-door/key.pem",
  frontDoorApiKeys: "/etc/cosyvoice-lvs/front-door/api-keys.conf",
  frontDoorUsers: "/etc/cosyvoice-lvs/front-door/users",
  /** On the machine that watches: by what it is let in, beside the certificate that it must be shown. */
  frontDoorAskingKey: "/etc/cosyvoice-lvs/front-door/asking-key",
  /** Where nginx keeps what clients upload, until it is whole: in memory. */
  frontDoorState: "/var/lib/cosyvoice-front-door",
  frontDoorUnit: "/etc/systemd/system/cosyvoice-front-door.service",
  vipOnLo: "/usr/local/lib/cosyvoice-lvs/vip-on-lo",
  vipUnit: "/etc/systemd/system/cosyvoice-vip.service",
  /** Where the service is said to live, for people and for run.sh. */
  service: "/root/CosyVoice",
  outputs: "/root/CosyVoice/outputs",
  runScript: "/root/CosyVoice/run.sh",
  serviceEnvironment: "/etc/cosyvoice/cosyvoice.env",
  /** The other real servers. Read again when it changes. */
  peers: "/etc/cosyvoice/peers.json",
  /** The directors' addresses, for the service. Read again when it changes. */
  directors: "/etc/cosyvoice/directors",
  peerKey: "/etc/cosyvoice/peers.key",
  /** The service user's home: uploads, caches. */
  serviceState: "/var/lib/cosyvoice",
  serviceUnit: "/etc/systemd/system/cosyvoice.service",
  /** Source, Python environment and weights of the engine cosyvoice. */
  engine: "/opt/cosyvoice/engine",
  engineProgram: "/usr/local/lib/cosyvoice-lvs/engine",
  weightsProgram: "/usr/local/lib/cosyvoice-lvs/weights",
  /** The hashes that the weights must have. */
  modelChecksums: "/etc/cosyvoice/model.sha256",
  outputsMount: "/etc/systemd/system/root-CosyVoice-outputs.mount",
  outputsKeeper: "/etc/systemd/system/cosyvoice-outputs.service",
  vipMover: "/usr/local/lib/cosyvoice-lvs/vip-mover",
  vipMoverConfig: "/etc/cosyvoice-lvs/vip-mover.json",
  vipMoverUnit: "/etc/systemd/system/cosyvoice-vip-mover.service",
  /** Where keepalived tells the mover that this director has become the master. */
  vipMoverDirectory: "/run/cosyvoice-lvs/vip-mover",
  allowances: "/usr/local/lib/cosyvoice-lvs/allowances",
  allowancesConfig: "/etc/cosyvoice-lvs/allowances.json",
  allowancesUnit: "/etc/systemd/system/cosyvoice-allowances.service",
  installEfsUtils: "/usr/local/lib/cosyvoice-lvs/install-efs-utils",
  keepMounted: "/usr/local/lib/cosyvoice-lvs/keep-mounted",
  exports: "/etc/exports.d/cosyvoice-lvs.exports",
  nfsServerConfig: "/etc/nfs.conf.d/cosyvoice-lvs.conf",
  /**
   * What node_exporter reads of other programs' making. It is gone with a power-cut: a director that comes back must not tell of
   * the VIP that it had.
   */
  metrics: "/run/cosyvoice-metrics",
  metricsAtBoot: "/etc/tmpfiles.d/cosyvoice-metrics.conf",
  exporter: "/usr/local/lib/cosyvoice-lvs/exporter",
  nodeExporterDropIn: "/etc/systemd/system/prometheus-node-exporter.service.d/cosyvoice-lvs.conf",
  watchRules: "/etc/cosyvoice-lvs/watch.nft",
  watchRulesUnit: "/etc/systemd/system/cosyvoice-watch-rules.service",
  directorMetricsConfig: "/etc/cosyvoice-lvs/exporter.json",
  directorMetricsUnit: "/etc/systemd/system/cosyvoice-director-metrics.service",
  gpuMetricsUnit: "/etc/systemd/system/cosyvoice-gpu-metrics.service",
  doorMetricsUnit: "/etc/systemd/system/cosyvoice-door-metrics.service",
  sentenceConfig: "/etc/cosyvoice-lvs/sentence.json",
  sentenceUnit: "/etc/systemd/system/cosyvoice-sentence.service",
  prometheusConfig: "/etc/cosyvoice-lvs/prometheus.yml",
  /** By a pattern, so that the one can be checked before the other is there. */
  alertRulesPattern: "/etc/cosyvoice-lvs/alerts/*.yml",
  alertRules: "/etc/cosyvoice-lvs/alerts/cosyvoice.yml",
  prometheusDropIn: "/etc/systemd/system/prometheus.service.d/cosyvoice-lvs.conf",
  alertmanagerConfig: "/etc/cosyvoice-lvs/alertmanager.yml",
  alertmanagerDropIn: "/etc/systemd/system/prometheus-alertmanager.service.d/cosyvoice-lvs.conf",
  proberConfig: "/etc/cosyvoice-lvs/prober.yml",
  proberDropIn: "/etc/systemd/system/prometheus-blackbox-exporter.service.d/cosyvoice-lvs.conf",
  alertRelay: "/usr/local/lib/cosyvoice-lvs/alert-relay",
  alertRelayUnit: "/etc/systemd/system/cosyvoice-alert-relay.service",
  /** The password of what watches: for those who ask, for those who are asked, and for root's curl. */
  watchPassword: "/etc/cosyvoice-lvs/watch/password",
  watchWebConfig: "/etc/cosyvoice-lvs/watch/web.yml",
  watchCurl: "/etc/cosyvoice-lvs/watch/curl",
  /** What is in no package: a directory for each program, in it one for each version, and `current`. */
  fetched: "/opt/cosyvoice-watch",
  fetchProgram: "/usr/local/lib/cosyvoice-lvs/fetch-program",
  collectorConfig: "/etc/cosyvoice-lvs/collector.yml",
  collectorUnit: "/etc/systemd/system/cosyvoice-logs.service",
  lokiConfig: "/etc/cosyvoice-lvs/loki.yml",
  lokiUnit: "/etc/systemd/system/cosyvoice-loki.service",
  grafanaConfig: "/etc/cosyvoice-lvs/grafana/grafana.ini",
  grafanaSources: "/etc/cosyvoice-lvs/grafana/provisioning/datasources/cosyvoice.yml",
  grafanaDashboards: "/etc/cosyvoice-lvs/grafana/provisioning/dashboards/cosyvoice.yml",
  /** The dashboards themselves, one file each. */
  grafanaPages: "/etc/cosyvoice-lvs/grafana/dashboards",
  grafanaUnit: "/etc/systemd/system/cosyvoice-grafana.service",
  /** One file for each receiver that has a secret. */
  receiverSecrets: "/etc/cosyvoice-lvs/receivers",
} as const;
