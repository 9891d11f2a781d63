import { posix } from "node:path";
import { LOKI_INNER_PORT } from "../../config/ports";
import { type MachineConfig, watchedMachines } from "../../config/schema";
import { paths } from "../paths";
import { sandbox } from "../sandbox";
import { renderSections } from "../text";
import { renderYaml } from "../yaml";
import type { Watched } from "./alert";

/** A collector's own state: how far it has read, and what Loki has not taken yet. */
const STATE = "cosyvoice-logs";

/** Whose files on the share a real server reads: its own, or every line would come once from each of them. */
const FILES = { jobs: "jobs", access: "gradio.access" } as const;

/**
 * What the collector of a machine does: the whole journal, and on a real server the service's own logs, to Loki.
 *
 * Labels are `node` and `unit`, of which there are few. A request's id is none: it goes beside the line.
 */
export function renderCollectorConfig({ monitoring }: Watched, machine: MachineConfig): string {
  const { name, role, address } = machine;
  const files =
    role === "realServer"
      ? Object.entries(FILES).map(
          ([unit, file]) => [`file_log/${unit}`, serviceLog(name, unit, file)] as const,
        )
      : [];
  const receivers = { journald: journal(name), ...Object.fromEntries(files) };
  const collector = {
    extensions: { file_storage: { directory: `/var/lib/${STATE}`, timeout: "10s" } },
    receivers,
    exporters: {
      otlp_http: {
        endpoint: `http://${monitoring.address}:${monitoring.ports.loki}/otlp`,
        compression: "gzip",
        // For as long as it takes: what waits is on the disk, and bounded.
        retry_on_failure: { max_interval: "30s", max_elapsed_time: "0s" },
        sending_queue: {
          storage: "file_storage",
          sizer: "bytes",
          queue_size: QUEUE,
          num_consumers: 1,
          // When it is full nothing more is read: the journal and the files keep it.
          block_on_overflow: true,
          batch: { flush_timeout: "5s", min_size: 100_000, max_size: 1_000_000 },
        },
      },
    },
    service: {
      extensions: ["file_storage"],
      pipelines: { logs: { receivers: Object.keys(receivers), exporters: ["otlp_http"] } },
      telemetry: {
        logs: { level: "warn" },
        metrics: {
          level: "basic",
          readers: [
            { pull: { exporter: { prometheus: { host: address, port: monitoring.ports.collector } } } },
          ],
        },
      },
    },
  };
  return renderYaml(collector);
}

/** Bytes that wait on a machine while Loki is away. */
const QUEUE = 20_000_000;

function journal(node: string) {
  return {
    // What was said before is not to come all at once; afterwards it goes on where it was.
    start_at: "end",
    // Of every boot. By itself journalctl follows the one that the kernel names, and in a container (the lab's machines are) the
    // collector's sandbox has a /proc of its own, with the kernel's boot and not the container's: there it would follow nothing.
    merge: true,
    storage: "file_storage",
    retry_on_failure: { enabled: true },
    resource: { node },
    operators: [
      {
        type: "add",
        field: "resource.unit",
        // Of the unit that it is about, which is another one when systemd speaks.
        value: 'EXPR(body._TRANSPORT == "kernel" ? "kernel" : (body.UNIT ?? body._SYSTEMD_UNIT ?? "none"))',
      },
      // A unit for each session or run would be a label for each.
      ...["session", "run", "user"].map((kind) => ({
        type: "add",
        if: `resource.unit matches "^${kind}-?[@0-9a-z]*[-@0-9.]"`,
        field: "resource.unit",
        value: kind,
      })),
      {
        type: "add",
        field: "resource.unit",
        value: 'EXPR(trimSuffix(resource.unit, ".service"))',
      },
      // By its name and not by its number: that is what Loki knows it by.
      {
        type: "severity_parser",
        parse_from: "body.PRIORITY",
        mapping: SEVERITIES,
        overwrite_text: true,
      },
      { type: "move", from: "body.MESSAGE", to: "body" },
      ...requestsOfDoor,
    ],
  };
}

/** nginx's lines of requests, which are JSON: the id goes beside the line, as it does for the service's own. */
const requestsOfDoor = [
  {
    type: "json_parser",
    if: `resource.unit == "${posix.basename(paths.frontDoorUnit, ".service")}" and type(body) == "string" and body startsWith "{"`,
    parse_to: "attributes.line",
  },
  {
    type: "move",
    if: "attributes.line?.request_id != nil",
    from: "attributes.line.request_id",
    to: "attributes.request_id",
  },
  { type: "remove", if: "attributes.line != nil", field: "attributes.line" },
];

/** syslog's priorities. */
const SEVERITIES = { fatal: ["0", "1", "2"], error: "3", warn: "4", info: ["5", "6"], debug: "7" };

/** One of the service's own logs: a JSON object a line. */
function serviceLog(node: string, unit: string, file: string) {
  return {
    include: [`${paths.outputs}/${file}.${node}.log`],
    start_at: "end",
    storage: "file_storage",
    // Over NFS every look is a question.
    poll_interval: "5s",
    retry_on_failure: { enabled: true },
    resource: { node, unit },
    operators: [
      { type: "json_parser", parse_to: "attributes.line" },
      {
        type: "time_parser",
        parse_from: "attributes.line.time",
        layout_type: "gotime",
        layout: "2006-01-02T15:04:05.999Z07:00",
      },
      {
        type: "move",
        if: "attributes.line.request_id != nil",
        from: "attributes.line.request_id",
        to: "attributes.request_id",
      },
      { type: "remove", field: "attributes.line" },
    ],
  };
}

/** What of a unit is only to be cheap, and to go first when memory is short. */
const LAST = ["Restart=always", "RestartSec=10", "OOMScoreAdjust=800", "Nice=10", "DynamicUser=yes"];

/** The unit of a machine's collector. */
export function renderCollectorUnit(machine: MachineConfig): string {
  const program = `${paths.fetched}/collector/current/otelcol-contrib`;
  return renderSections([
    ["Unit", ["Description=Logs of this machine to where they are kept", "StartLimitIntervalSec=0"]],
    [
      "Service",
      [
        `ExecStartPre=${program} validate --config=${paths.collectorConfig}`,
        `ExecStart=${program} --config=${paths.collectorConfig}`,
        ...LAST,
        "SupplementaryGroups=systemd-journal",
        `StateDirectory=${STATE}`,
        // Of root's home only the service's directory is seen, where the share is.
        ...(machine.role === "realServer" ? [`BindReadOnlyPaths=${paths.service}`] : []),
        "Environment=GOMAXPROCS=1 GOMEMLIMIT=120MiB",
        "MemoryMax=250M",
        "CPUQuota=25%",
        ...sandbox(["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]).map((line) =>
          line === "ProtectHome=yes" ? "ProtectHome=tmpfs" : line,
        ),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** How much smaller lines are on the disk than they came. An estimate, not a measurement. */
const COMPRESSION = 4;

/** Loki's configuration: one process, everything in its own directory. */
export function renderLokiConfig({ monitoring }: Watched): string {
  const { logs, ports } = monitoring;
  const data = `/var/lib/${LOKI_STATE}`;
  // Loki knows no limit of size. So no more is taken in than fits for as long as it is kept.
  const rate = (logs.disk * 1000 * COMPRESSION) / (logs.retention * 86_400);
  const loki = {
    auth_enabled: false,
    analytics: { reporting_enabled: false },
    server: {
      http_listen_port: ports.loki,
      grpc_listen_address: "127.0.0.1",
      grpc_listen_port: LOKI_INNER_PORT,
      log_level: "warn",
    },
    common: {
      path_prefix: data,
      replication_factor: 1,
      instance_addr: "127.0.0.1",
      ring: { kvstore: { store: "inmemory" } },
      storage: { filesystem: { chunks_directory: `${data}/chunks`, rules_directory: `${data}/rules` } },
    },
    schema_config: {
      configs: [
        {
          from: "2024-01-01",
          store: "tsdb",
          object_store: "filesystem",
          schema: "v13",
          index: { prefix: "index_", period: "24h" },
        },
      ],
    },
    limits_config: {
      retention_period: `${logs.retention * 24}h`,
      reject_old_samples_max_age: `${Math.min(7, logs.retention) * 24}h`,
      ingestion_rate_mb: Number(rate.toPrecision(3)),
      // What an incident says in its first minutes.
      ingestion_burst_size_mb: 32,
      per_stream_rate_limit: "5MB",
      per_stream_rate_limit_burst: "20MB",
      max_line_size: "64KB",
      max_line_size_truncate: true,
      max_global_streams_per_user: 5000,
      // Which would be a third label.
      discover_service_name: [],
      otlp_config: {
        resource_attributes: {
          ignore_defaults: true,
          attributes_config: [{ action: "index_label", attributes: ["node", "unit"] }],
        },
      },
    },
    compactor: {
      working_directory: `${data}/compactor`,
      retention_enabled: true,
      delete_request_store: "filesystem",
    },
  };
  return renderYaml(loki);
}

const LOKI_STATE = "cosyvoice-loki";

/** Loki's unit. */
export function renderLokiUnit(): string {
  const program = `${paths.fetched}/loki/current/loki-linux-amd64`;
  return renderSections([
    ["Unit", ["Description=Logs of the cluster", "StartLimitIntervalSec=0"]],
    [
      "Service",
      [
        `ExecStartPre=${program} -config.file=${paths.lokiConfig} -verify-config`,
        `ExecStart=${program} -config.file=${paths.lokiConfig}`,
        ...LAST,
        `StateDirectory=${LOKI_STATE}`,
        "MemoryMax=2G",
        ...sandbox(["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}

/** The machines whose logs Loki takes. */
export function logSources(config: Watched): readonly MachineConfig[] {
  return config.monitoring.logs.enabled ? watchedMachines(config) : [];
}
