import { logs } from "./logs";
import { lines, numbers, type Page } from "./panels";

/** Time that so many in a hundred took at most, of a histogram. */
function quantile(q: number, histogram: string): string {
  return `histogram_quantile(${q}, sum by (le) (rate(${histogram}_bucket[5m])))`;
}

const BACKEND = "sum by (server) (%s * on (node, remote_address) group_left (server) lvs_real_server_info)";

/** Something of a director's table, by the names of the real servers. */
function byServer(metric: string): string {
  return BACKEND.replace("%s", `sum by (node, remote_address) (${metric})`);
}

/** Every page, in the order in which somebody looks for a cause. */
export const pages: readonly Page[] = [
  {
    uid: "overview",
    title: "Overview",
    source: "prometheus",
    panels: [
      numbers("Who holds the VIP", "none", ["lvs_vip_held == 1", "{{node}}"]),
      numbers("Real servers in the pool", "none", [
        "max(count by (node) (count by (node, remote_address) (node_ipvs_backend_weight > 0)))",
        "in the pool",
      ]),
      numbers("The sentence through the VIP", "s", ["tts_probe_duration_seconds", "duration"]),
      numbers("Firing alerts", "none", [
        'count(ALERTS{alertstate="firing",severity!="watchdog"}) or vector(0)',
        "alerts",
      ]),
      lines("Requests, by outcome", "reqps", [
        "sum by (outcome) (rate(tts_requests_total[5m]))",
        "{{outcome}}",
      ]),
      lines("Waiting requests", "none", ["tts_queue_size", "{{node}}"]),
      lines(
        "Synthesis time",
        "s",
        [quantile(0.5, "tts_synthesis_seconds"), "median"],
        [quantile(0.95, "tts_synthesis_seconds"), "95th percentile"],
      ),
      lines("Probes of the VIP", "s", ["probe_duration_seconds", "{{job}}"]),
    ],
  },
  {
    uid: "load-balancer",
    title: "Load balancer",
    source: "prometheus",
    panels: [
      lines("VRRP state (1 backup, 2 master, 3 fault)", "none", ["keepalived_vrrp_state", "{{node}}"]),
      lines("Takeovers of the VIP per hour", "none", ["increase(lvs_vip_taken_total[1h])", "{{node}}"]),
      lines("Weights", "none", ["node_ipvs_backend_weight", "{{node}} {{remote_address}}"]),
      lines("Active connections", "none", [byServer("node_ipvs_backend_connections_active"), "{{server}}"]),
      lines("Inactive connections", "none", [
        byServer("node_ipvs_backend_connections_inactive"),
        "{{server}}",
      ]),
      lines("New connections", "cps", ["rate(node_ipvs_connections_total[5m])", "{{node}}"]),
      lines("Requests to nginx", "reqps", ["rate(nginx_http_requests_total[5m])", "{{node}}"]),
      lines("Open connections to nginx", "none", ["nginx_connections_active", "{{node}}"]),
      lines(
        "VRRP adverts",
        "pps",
        ["rate(keepalived_advertisements_sent_total[5m])", "{{node}} sent"],
        ["rate(keepalived_advertisements_received_total[5m])", "{{node}} received"],
      ),
      lines("Restarts of units per hour", "none", [
        "increase(lvs_unit_restarts_total[1h])",
        "{{node}} {{unit}}",
      ]),
    ],
  },
  {
    uid: "gpus",
    title: "GPUs",
    source: "prometheus",
    panels: [
      lines("Utilization", "percentunit", ["nvidia_smi_utilization_gpu_ratio", "{{node}} {{uuid}}"]),
      lines("Memory", "percentunit", [
        "nvidia_smi_memory_used_bytes / nvidia_smi_memory_total_bytes",
        "{{node}} {{uuid}}",
      ]),
      lines("Temperature", "celsius", ["nvidia_smi_temperature_gpu", "{{node}} {{uuid}}"]),
      lines("Power", "watt", ["nvidia_smi_power_draw_watts", "{{node}} {{uuid}}"]),
      lines("Errors (XID) per day", "none", [
        "increase(nvidia_smi_xid_errors_total[1d])",
        "{{node}} {{uuid}} XID {{xid}}",
      ]),
      lines("Waiting requests", "none", ["tts_queue_size", "{{node}}"]),
    ],
  },
  {
    uid: "speech",
    title: "Speech",
    source: "prometheus",
    panels: [
      lines("Seconds of synthesis per second of audio", "none", [
        "sum by (node) (rate(tts_synthesis_seconds_sum[5m])) / sum by (node) (rate(tts_audio_seconds_total[5m]))",
        "{{node}}",
      ]),
      lines("Audio made per second", "s", ["sum by (node) (rate(tts_audio_seconds_total[5m]))", "{{node}}"]),
      lines(
        "Time in the queue",
        "s",
        [quantile(0.5, "tts_wait_seconds"), "median"],
        [quantile(0.95, "tts_wait_seconds"), "95th percentile"],
      ),
      lines("Requests answered from the cache", "percentunit", [
        "sum(rate(tts_cache_hits_total[5m])) / sum(rate(tts_requests_total[5m]))",
        "of all requests",
      ]),
      lines("Running syntheses", "none", ["tts_running", "{{node}}"]),
      lines("Jobs handed over to other nodes", "ops", [
        "sum by (node, outcome) (rate(tts_handed_over_total[5m]))",
        "{{node}} {{outcome}}",
      ]),
      lines("Session requests forwarded to other nodes", "reqps", [
        "sum by (node, kind) (rate(tts_forwarded_total[5m]))",
        "{{node}} {{kind}}",
      ]),
      lines("Memory of the service", "bytes", ['process_resident_memory_bytes{job="speech"}', "{{node}}"]),
    ],
  },
  {
    uid: "capacity",
    title: "Capacity",
    source: "prometheus",
    panels: [
      lines("Load, as a share of all nodes' capacity", "percentunit", [
        'sum(rate(tts_synthesis_seconds_sum[30m])) / count(up{job="speech"} == 1)',
        "of all nodes",
      ]),
      lines("CPU utilization", "percentunit", [
        '1 - avg by (node) (rate(node_cpu_seconds_total{mode="idle"}[5m]))',
        "{{node}}",
      ]),
      lines("Available memory", "bytes", ["node_memory_MemAvailable_bytes", "{{node}}"]),
      lines("Free disk space", "percentunit", [
        "node_filesystem_avail_bytes / node_filesystem_size_bytes",
        "{{node}} {{mountpoint}}",
      ]),
      lines("Days until a disk is full, at the present rate", "d", [
        "(node_filesystem_avail_bytes / (0 - deriv(node_filesystem_avail_bytes[6h]) > 0)) / 86400",
        "{{node}} {{mountpoint}}",
      ]),
      lines(
        "Network",
        "Bps",
        ["sum by (node) (rate(node_network_transmit_bytes_total[5m]))", "{{node}} sent"],
        ["sum by (node) (rate(node_network_receive_bytes_total[5m]))", "{{node}} received"],
      ),
      lines("Time series in Prometheus", "none", ["prometheus_tsdb_head_series", "series"]),
      lines("Disk space of metrics", "bytes", ["prometheus_tsdb_storage_blocks_bytes", "metrics"]),
    ],
  },
  logs,
];
