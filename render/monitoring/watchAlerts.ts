import { type Alert, unexplained, type Watched } from "./alert";

/** What can go wrong with the way of logs. */
const logAlerts: readonly Alert[] = [
  {
    name: "LogsNotShipped",
    expr: 'up{job="collector"} == 0 or otelcol_exporter_queue_size / otelcol_exporter_queue_capacity > 0.9',
    for: "10m",
    severity: "warning",
    summary: "The logs of {{ $labels.node }} do not reach Loki.",
  },
  {
    name: "LogsRefused",
    // The first time it counts, the series was not there before: of that no increase is known.
    expr: [
      "sum by (reason) (increase(loki_discarded_samples_total[15m])) > 0",
      "sum by (reason) (loki_discarded_samples_total unless loki_discarded_samples_total offset 15m) > 0",
    ].join(" or "),
    for: "0s",
    severity: "warning",
    summary: "Loki refused {{ $value | printf `%.0f` }} log lines: {{ $labels.reason }}.",
  },
];

/** What AWS allows a machine by its instance type, as the driver of its network calls it. */
const allowances = ["bw_in", "bw_out", "pps", "conntrack", "linklocal"];

/** What clients see, what is wrong with machines, and with the watching itself. */
export function watchAlerts({ monitoring }: Watched): Alert[] {
  return [
    {
      name: "VipProbeFailed",
      expr: 'probe_success{job=~"vip-.*"} == 0',
      for: "1m",
      severity: "critical",
      summary: "The VIP does not answer the monitoring machine ({{ $labels.job }}).",
    },
    {
      name: "CertificateEnds",
      // Whoever renews it does so earlier: nobody has, then.
      expr: "probe_ssl_earliest_cert_expiry - time() < 14 * 86400",
      for: "10m",
      severity: "warning",
      summary: "The HTTPS certificate expires in {{ $value | humanizeDuration }}.",
    },
    {
      name: "SentenceFailed",
      // The next sentence comes a minute after the last.
      expr: unexplained(
        "tts_probe_success == 0 or time() - tts_probe_timestamp_seconds > 300 or absent(tts_probe_success)",
        ["NoVipHolder", "PoolEmpty", "VipProbeFailed", "OutputsAway"],
        "3m",
      ),
      for: "2m",
      severity: "critical",
      summary: "The sentence that is asked for through the VIP every minute did not come.",
    },
    {
      name: "MachineDown",
      expr: 'up{job="node",role!="storage"} == 0',
      for: "1m",
      severity: "warning",
      summary: "{{ $labels.node }} ({{ $labels.role }}) does not answer.",
    },
    {
      name: "StorageDown",
      // Of the others there are two or more, of this one there is one.
      expr: 'up{job="node",role="storage"} == 0',
      for: "1m",
      severity: "critical",
      summary: "{{ $labels.node }} does not answer: without the share, every request for speech fails.",
    },
    {
      name: "DiskFilling",
      expr: "node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.1",
      for: "5m",
      severity: "warning",
      summary:
        "{{ $labels.mountpoint }} on {{ $labels.node }} has {{ $value | humanizePercentage }} of its space left.",
    },
    {
      name: "ClockOff",
      expr: "abs(node_time_seconds - timestamp(node_time_seconds)) > 2",
      for: "5m",
      severity: "warning",
      summary:
        "The clock of {{ $labels.node }} differs by {{ $value | humanizeDuration }} from the monitoring machine's.",
    },
    {
      name: "NetworkAllowanceExceeded",
      // What the driver of AWS's network counts; other machines have no such series. A burst now and then is held back for a moment.
      expr: `${allowances.map((name) => `increase(node_ethtool_${name}_allowance_exceeded[10m])`).join(" + ")} > 100`,
      for: "0s",
      severity: "warning",
      summary:
        "AWS has held back {{ $value | humanize }} packets of {{ $labels.node }}: they exceed a limit of its instance type.",
    },
    {
      name: "ReadingsStale",
      expr: [
        "time() - node_textfile_mtime_seconds > 300",
        "node_textfile_scrape_error == 1",
        '(up{job="node",role="director"} == 1 unless on (node) keepalived_up)',
        // Where one real server tells of its nginx, all have one.
        '((up{job="node",role="realServer"} == 1 unless on (node) nginx_up) and on () (count(nginx_up) > 0))',
      ].join(" or "),
      for: "1m",
      severity: "warning",
      summary: "Metrics that {{ $labels.node }} writes about itself are stale or missing.",
    },
    {
      name: "AlertsNotDelivered",
      expr: "increase(alertmanager_notifications_failed_total[10m]) > 0",
      for: "0s",
      severity: "warning",
      summary: "Alertmanager could not deliver alerts to a receiver ({{ $labels.integration }}).",
    },
    {
      name: "MonitoringPartDown",
      expr: 'up{job=~"prometheus|alertmanager|prober|loki|grafana"} == 0',
      for: "2m",
      severity: "warning",
      summary: "{{ $labels.job }} on the monitoring machine does not answer.",
    },
    ...(monitoring.logs.enabled ? logAlerts : []),
    {
      name: "Watchdog",
      expr: "vector(1)",
      for: "0s",
      severity: "watchdog",
      summary:
        "Nothing is wrong. This alert always fires: if it stops coming, no other alert reaches anybody.",
    },
  ];
}
