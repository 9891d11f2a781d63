import { type Alert, rateWindow, type Watched } from "./alert";

/** A real server's weight in a director's table. One address may be there for several ports. */
const WEIGHT = "max by (node, remote_address) (node_ipvs_backend_weight)";

/** Not of a director whose keepalived does not run: it has no table, or an old one, and its own alert says so. */
const TABLES = "unless on (node) (keepalived_up == 0)";

/** A row of such a table: 1 when it gets new connections. */
const SENT_TO = `(node_ipvs_backend_weight ${TABLES}) > bool 0`;

/** Series of real servers, with the label `node` for the machine that they are about and not the one that tells. */
function aboutServer(expr: string): string {
  return `label_replace(count by (server) (${expr}), "node", "$1", "server", "(.+)")`;
}

/** What can go wrong with the pair and its table. */
export function directorAlerts(config: Watched): Alert[] {
  return [
    {
      name: "NoVipHolder",
      expr: "sum(lvs_vip_held) == 0 or absent(lvs_vip_held)",
      for: "30s",
      severity: "critical",
      summary: "No director holds the VIP {VIP}: clients reach nobody.",
    },
    {
      name: "SplitBrain",
      expr: "sum(lvs_vip_held) > 1",
      for: "30s",
      severity: "critical",
      summary: "Both directors hold the VIP {VIP}: they do not hear each other's adverts.",
    },
    {
      name: "PoolEmpty",
      // Only the holder's table counts. The sorry server, which may stand in, is none of ours.
      expr: `count(lvs_vip_held == 1 unless on (node) (lvs_real_server_info and on (node, remote_address) (${WEIGHT} > 0))) > 0`,
      for: "30s",
      severity: "critical",
      summary: "The director that holds the VIP has no real server to send connections to: nobody is served.",
    },
    {
      name: "PoolDegraded",
      expr: aboutServer(`lvs_real_server_info ${TABLES} unless on (node, remote_address) ${WEIGHT}`),
      for: "2m",
      severity: "warning",
      summary: "{{ $labels.node }} is out of the pool: it fails its health checks.",
    },
    {
      name: "RealServerQuiesced",
      expr: aboutServer(`lvs_real_server_info and on (node, remote_address) (${WEIGHT} == 0)`),
      for: "15m",
      severity: "warning",
      summary: "{{ $labels.node }} has had weight 0 for 15 minutes: it gets no new connections.",
    },
    {
      name: "DirectorsDisagree",
      expr: [
        `max by (remote_address) (${SENT_TO}) != min by (remote_address) (${SENT_TO})`,
        `count by (remote_address) (count by (node, remote_address) (${SENT_TO})) != on () group_left () count(lvs_expected_real_servers ${TABLES})`,
      ].join(" or "),
      for: "2m",
      severity: "warning",
      summary: "Only one of the two directors sends to the real server {{ $labels.remote_address }}.",
    },
    {
      name: "KeepalivedDown",
      expr: "keepalived_up == 0",
      for: "1m",
      severity: "warning",
      summary: "keepalived on {{ $labels.node }} is not running, or hangs.",
    },
    {
      name: "BackupHearsNoAdverts",
      expr: `rate(keepalived_advertisements_received_total[${rateWindow(config)}]) == 0 and keepalived_vrrp_state == 1`,
      for: "1m",
      severity: "warning",
      summary: "{{ $labels.node }} stands by and hears no adverts from the other director.",
    },
    {
      name: "VrrpFault",
      // Longer than a deployment may have a director stand down.
      expr: "keepalived_vrrp_state == 3",
      for: "3m",
      severity: "warning",
      summary:
        "keepalived on {{ $labels.node }} is in state FAULT: if the other director fails, nobody takes the VIP.",
    },
    {
      name: "VrrpFlapping",
      // increase() reckons a little more than it saw: twice is 2.05.
      expr: "sum(increase(lvs_vip_taken_total[15m])) > 2.5",
      for: "0s",
      severity: "warning",
      summary: "The VIP has moved {{ $value | printf `%.0f` }} times in 15 minutes.",
    },
    {
      name: "UnitDown",
      // keepalived has an alert of its own, which knows also one that runs and does nothing.
      expr: 'lvs_unit_active{unit!="keepalived.service"} == 0',
      for: "1m",
      severity: "warning",
      summary: "{{ $labels.unit }} is not running on {{ $labels.node }}.",
    },
    {
      name: "UnitRestarts",
      expr: "increase(lvs_unit_restarts_total[15m]) > 2.5",
      for: "0s",
      severity: "warning",
      summary: "{{ $labels.unit }} on {{ $labels.node }} keeps restarting.",
    },
  ].map((alert) => ({ ...alert, summary: alert.summary.replace("{VIP}", config.vip) }) as Alert);
}
