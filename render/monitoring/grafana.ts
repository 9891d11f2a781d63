import { posix } from "node:path";
import { pages } from "../dashboards/pages";
import { renderDashboard } from "../dashboards/panels";
import { paths } from "../paths";
import { sandbox } from "../sandbox";
import { renderSections } from "../text";
import { renderYaml } from "../yaml";
import { ADMIN } from "./access";
import type { Watched } from "./alert";

const STATE = "cosyvoice-grafana";

/** Where the unit sees the password: Grafana's own user may not read root's file. */
const PASSWORD = "/run/credentials/cosyvoice-grafana.service/password";

/** grafana.ini. The password of the first start is that of the secret; nobody else can make an account. */
export function renderGrafanaConfig({ monitoring }: Watched): string {
  const { adminNetworks, ports } = monitoring;
  return renderSections([
    [
      "paths",
      [
        `data = /var/lib/${STATE}`,
        `logs = /var/lib/${STATE}/log`,
        `plugins = /var/lib/${STATE}/plugins`,
        `provisioning = ${posix.dirname(posix.dirname(paths.grafanaSources))}`,
      ],
    ],
    [
      "server",
      [`http_addr = ${adminNetworks.length > 0 ? "0.0.0.0" : "127.0.0.1"}`, `http_port = ${ports.grafana}`],
    ],
    [
      "security",
      [`admin_user = ${ADMIN}`, `admin_password = $__file{${PASSWORD}}`, "disable_gravatar = true"],
    ],
    ["users", ["allow_sign_up = false", "default_theme = system"]],
    ["auth.anonymous", ["enabled = false"]],
    [
      "analytics",
      ["reporting_enabled = false", "check_for_updates = false", "check_for_plugin_updates = false"],
    ],
    // The machine may reach no internet, and nothing here needs one.
    ["plugins", ["preinstall_disabled = true", "plugin_admin_enabled = false"]],
    ["log", ["mode = console", "level = warn"]],
    ["dashboards", [`default_home_dashboard_path = ${paths.grafanaPages}/overview.json`]],
  ]);
}

/** Whom Grafana asks, on its own machine. */
export function renderGrafanaSources({ monitoring }: Watched): string {
  const { logs, ports } = monitoring;
  const source = (name: string, type: string, port: number, more: Record<string, unknown> = {}) => ({
    name,
    uid: type,
    type,
    access: "proxy",
    url: `http://127.0.0.1:${port}`,
    editable: false,
    ...more,
  });
  // Prometheus asks for the password that Grafana cannot be without.
  const login = {
    basicAuth: true,
    basicAuthUser: ADMIN,
    secureJsonData: { basicAuthPassword: `$__file{${PASSWORD}}` },
  };
  return renderYaml({
    apiVersion: 1,
    // What is taken out of this file goes.
    prune: true,
    datasources: [
      source("Prometheus", "prometheus", ports.prometheus, { isDefault: true, ...login }),
      ...(logs.enabled ? [source("Loki", "loki", ports.loki)] : []),
    ],
  });
}

/** Where Grafana finds the dashboards. */
export function renderGrafanaDashboards(): string {
  return renderYaml({
    apiVersion: 1,
    providers: [
      {
        name: "cosyvoice-lvs",
        folder: "CosyVoice",
        type: "file",
        // A change made in the browser would be lost with the next deployment.
        allowUiUpdates: false,
        options: { path: paths.grafanaPages },
      },
    ],
  });
}

/** The dashboards of a cluster, by the names of their files. */
export function grafanaPages({ monitoring }: Watched): readonly (readonly [file: string, json: string])[] {
  return pages
    .filter(({ source }) => source === "prometheus" || monitoring.logs.enabled)
    .map((page) => [`${page.uid}.json`, renderDashboard(page)]);
}

/** Grafana's unit. */
export function renderGrafanaUnit(): string {
  const home = `${paths.fetched}/grafana/current`;
  return renderSections([
    ["Unit", ["Description=Pictures of the cluster", "StartLimitIntervalSec=0"]],
    [
      "Service",
      [
        `ExecStart=${home}/bin/grafana server --homepath=${home} --config=${paths.grafanaConfig}`,
        "Restart=always",
        "RestartSec=10",
        "OOMScoreAdjust=800",
        "Nice=5",
        "DynamicUser=yes",
        `LoadCredential=password:${paths.watchPassword}`,
        `StateDirectory=${STATE}`,
        "MemoryMax=2G",
        ...sandbox(["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
