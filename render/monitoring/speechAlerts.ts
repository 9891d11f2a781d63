import { type Alert, unexplained, type Watched } from "./alert";

/** How requests for speech end when the cluster and not the caller is to blame (app/cosyvoice_app/errors.py). */
const FAULTS =
  "internal_error|engine_failed|time_limit|outputs_unavailable|outputs_full|not_ready|queue_full";

/** XIDs that a reset or a new board ends, and not the program that ran: NVIDIA's catalogue of XID errors. */
const FATAL_XIDS = "48|62|64|74|79|95|119|120";

/** What can go wrong with the speech service, its share and its GPUs. */
export function speechAlerts(config: Watched): Alert[] {
  const gpu = config.service.engine === "cosyvoice";
  return [
    {
      name: "SpeechServiceDown",
      expr: 'up{job="speech"} == 0',
      for: "90s",
      severity: "warning",
      summary: "The speech service on {{ $labels.node }} does not answer.",
    },
    {
      name: "SpeechServiceRestarts",
      expr: 'changes(process_start_time_seconds{job="speech"}[15m]) > 2',
      for: "0s",
      severity: "warning",
      summary: "The speech service on {{ $labels.node }} keeps restarting.",
    },
    {
      name: "FrontDoorDown",
      expr: "nginx_up == 0",
      for: "1m",
      severity: "warning",
      summary: "nginx on {{ $labels.node }} does not answer: that real server gets no HTTPS clients.",
    },
    {
      name: "SpeechErrors",
      expr: unexplained(
        `sum(rate(tts_requests_total{outcome=~"${FAULTS}"}[5m])) / sum(rate(tts_requests_total[5m])) > 0.05`,
        ["OutputsAway"],
        "6m",
      ),
      for: "2m",
      severity: "critical",
      summary:
        "{{ $value | humanizePercentage }} of all requests for speech fail through a fault of the cluster.",
    },
    {
      name: "QueueLong",
      expr: `tts_queue_size >= ${Math.ceil(config.service.queueLength * 0.8)}`,
      for: "2m",
      severity: "warning",
      summary: "{{ $value }} requests wait on {{ $labels.node }}, whose queue holds {QUEUE}.",
    },
    {
      name: "OutputsAway",
      expr: "tts_outputs_up == 0",
      for: "1m",
      severity: "critical",
      summary: "{{ $labels.node }} cannot use the share: its requests fail.",
    },
    {
      name: "GpuFault",
      expr: `time() - nvidia_smi_xid_last_timestamp_seconds{xid=~"${FATAL_XIDS}"} < 3600`,
      for: "0s",
      severity: "critical",
      summary:
        "A GPU of {{ $labels.node }} has reported XID {{ $labels.xid }}: it needs a reset or a reboot.",
    },
    {
      name: "GpuUnreadable",
      // Where there must be a GPU, also that nothing at all is told of one.
      expr: [
        "nvidia_smi_command_exit_code != 0",
        ...(gpu ? ['(up{job="node",role="realServer"} == 1 unless on (node) nvidia_smi_gpu_info)'] : []),
      ].join(" or "),
      for: "2m",
      severity: "warning",
      summary: "The GPU of {{ $labels.node }} cannot be read: nvidia-smi fails, hangs or finds none.",
    },
    {
      name: "GpuHot",
      expr: "nvidia_smi_temperature_gpu > 85",
      for: "10m",
      severity: "warning",
      summary: "A GPU of {{ $labels.node }} is at {{ $value }} degrees Celsius.",
    },
    {
      name: "GpuMemoryFull",
      expr: "nvidia_smi_memory_used_bytes / nvidia_smi_memory_total_bytes > 0.95",
      for: "10m",
      severity: "warning",
      summary: "{{ $value | humanizePercentage }} of a GPU's memory on {{ $labels.node }} is in use.",
    },
    {
      name: "GpuIdleWhileQueued",
      expr: "max by (node) (nvidia_smi_utilization_gpu_ratio) < 0.05 and on (node) tts_queue_size > 0",
      for: "2m",
      severity: "warning",
      summary: "Requests wait on {{ $labels.node }} while its GPU is idle.",
    },
  ].map(
    (alert) =>
      ({ ...alert, summary: alert.summary.replace("{QUEUE}", String(config.service.queueLength)) }) as Alert,
  );
}
