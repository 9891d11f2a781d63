import { type ClusterConfig, DOOR_HEALTH_PORT, type MachineRole, REDIRECT_PORT } from "../config/schema";
import { never } from "./text";
import { TURNS_PORT } from "./turns";

/** The TCP ports at which a machine listens for others, besides SSH. */
export function listeningPorts(config: ClusterConfig, role: MachineRole): number[] {
  const { monitoring } = config;
  const watched = monitoring
    ? [monitoring.ports.nodeExporter, ...(monitoring.logs.enabled ? [monitoring.ports.collector] : [])]
    : [];
  return role === "client" ? [] : [...portsOfRole(config, role), ...watched];
}

function portsOfRole({ port, https, monitoring }: ClusterConfig, role: MachineRole): number[] {
  switch (role) {
    case "director":
      return [TURNS_PORT];
    case "realServer":
      return [
        port,
        ...(https ? [https.port, DOOR_HEALTH_PORT, ...(https.redirect ? [REDIRECT_PORT] : [])] : []),
      ];
    case "storage":
      return [2049];
    case "monitor":
      return monitoring
        ? [
            monitoring.ports.prometheus,
            monitoring.ports.alertmanager,
            ...(monitoring.grafana.enabled ? [monitoring.ports.grafana] : []),
            ...(monitoring.logs.enabled ? [monitoring.ports.loki] : []),
          ]
        : [];
    case "client":
      return [];
    default:
      return never(role);
  }
}
