import { posix } from "node:path";
import { type ClusterConfig, DOOR_HEALTH_PORT, type HttpsConfig, REDIRECT_PORT } from "../config/schema";
import { paths } from "./paths";
import { sandbox } from "./sandbox";
import { type Block, block, byName, type Line, renderBlocks, renderSections } from "./text";

/** User that nginx runs as, and the group that may read its secrets. Debian's and Ubuntu's for web servers. */
export const DOOR_USER = "www-data";

/**
 * Seconds that a kept connection may be idle, and live in all. A node that is drained or leaves must get rid of its clients
 * without cutting anybody off: within a minute each has been told with an answer to connect anew.
 */
const KEPT = { idle: 15, life: 45 };

/** Seconds that an answer may be silent: an event stream of the page, or a text before it in the queue. */
const SILENT = 3600;

/** Where nginx counts its connections and requests, at the pollers' port. */
export const DOOR_STATUS = "/status";

/** How many times as many requests as in a second may come at once. */
const BURST = 10;

/** Mozilla's "intermediate" profile (Server Side TLS 5.7), without the ciphers that need DH parameters of one's own. */
const ciphers = [
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305",
];

/**
 * nginx.conf of one real server: HTTPS for clients, the redirect from port 80, and a word for the directors' pollers.
 *
 * Written for nginx 1.22 and later.
 *
 * @throws Error when HTTPS is off, or the cluster has no real server of that name.
 */
export function renderFrontDoorConfig(config: ClusterConfig, realServerName: string): string {
  const https = httpsOf(config);
  const server = byName(config.realServers, realServerName);
  return renderBlocks([
    "# Written by cosyvoice-lvs; changes made here are lost with the next deployment.",
    "",
    "worker_processes auto;",
    // Of single requests nginx tells more than anybody should read: the query, the client, a key that was given for a name. What is
    // worth knowing of each is in the log of requests.
    "error_log stderr crit;",
    // After a reload the old workers finish what runs. Whoever leaves a page open for longer has its event stream opened anew.
    "worker_shutdown_timeout 1h;",
    "",
    block("events", "worker_connections 8192;"),
    "",
    block(
      "http",
      ...requestLog(),
      "",
      "server_tokens off;",
      "default_type application/octet-stream;",
      "",
      // Slow clients: a header and every part of a body must come in time.
      "client_header_timeout 15s;",
      "client_body_timeout 30s;",
      "send_timeout 60s;",
      "reset_timedout_connection on;",
      `keepalive_timeout ${KEPT.idle}s;`,
      `keepalive_time ${KEPT.life}s;`,
      `client_max_body_size ${https.uploadLimit}m;`,
      ...["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
        (kind) => `${kind}_temp_path ${paths.frontDoorState}/${kind};`,
      ),
      "",
      ...limitZones(https),
      upstream(config, server.name),
      "",
      ...access(config),
      block(
        "server",
        `listen ${DOOR_HEALTH_PORT};`,
        "access_log off;",
        // For the directors' pollers: that it answers is all it says.
        block("location /", "return 200;"),
        // For this machine's own readings.
        block(`location = ${DOOR_STATUS}`, "allow 127.0.0.1;", "deny all;", "stub_status;"),
      ),
      ...(https.redirect ? ["", redirect(https)] : []),
      "",
      httpsServer(config, https),
    ),
  ]);
}

function httpsOf({ https }: ClusterConfig): HttpsConfig {
  if (https === undefined) throw new Error("there is no front door to configure: https.enabled is false");
  return https;
}

/**
 * A line for each request, as JSON in the journal, under the id by which the service's own lines about it are found. With names as
 * those lines have them (app/cosyvoice_app/logs.py). What it must not tell: the query, where keys and sessions are, and of the
 * client more than its network. A journal that is slow or away loses lines, and holds nobody up.
 */
function requestLog(): Line[] {
  const line = Object.entries({
    log: '"door"',
    request_id: '"$request_name"',
    client: '"$client_network"',
    method: '"$request_method"',
    path: '"$asked_path"',
    // "000" where there was none, which is no number of JSON's.
    status: '"$status"',
    bytes_in: "$request_length",
    bytes_out: "$bytes_sent",
    seconds: "$request_time",
    protocol: '"$server_protocol"',
    // Who of the upstream were asked, one after the other, and how long each took.
    asked: '"$upstream_addr"',
    asked_s: '"$upstream_response_time"',
  }).map(([key, value]) => `"${key}":${value}`);
  return [
    // A name that the client gives is kept, as the service does; one that could be anything but a name is not.
    block(
      "map $http_x_request_id $request_name",
      "default $request_id;",
      '"~^[A-Za-z0-9._-]{1,64}$" $http_x_request_id;',
    ),
    // As far as it is of printable ASCII: what is not would make the line no text.
    block("map $request_uri $asked_path", "default '';", '"~^(?<printable>[!->@-~]{1,200})" $printable;'),
    block(
      "map $remote_addr $client_network",
      "default '';",
      '"~^(?<network>[0-9]+[.][0-9]+[.][0-9]+)[.]" $network.0/24;',
    ),
    // Of a flood that the limits refuse, a part that tells of it and does not fill the journal.
    block("split_clients $request_id $sample", "1% 1;", "* 0;"),
    block("map $status $logged", "default 1;", "429 $sample;"),
    `log_format requests escape=json '{${line.join(",")}}';`,
    `access_log syslog:server=unix:${JOURNAL},nohostname,tag=${REQUEST_LOG},severity=info requests if=$logged;`,
  ];
}

/** Where the journal takes what programs log by syslog. */
const JOURNAL = "/dev/log";

/** By what the journal calls the lines of requests (SYSLOG_IDENTIFIER): nginx's errors are `nginx`. */
const REQUEST_LOG = "requests";

function limitZones({ requestsPerSecond, connections }: HttpsConfig): Line[] {
  if (requestsPerSecond === 0 && connections === 0) return [];
  return [
    // The client's own address: with DR and TUN nobody has put another one in its place.
    ...(requestsPerSecond > 0
      ? [
          `limit_req_zone $binary_remote_addr zone=requests:10m rate=${requestsPerSecond}r/s;`,
          "limit_req_status 429;",
          "limit_req_log_level warn;",
        ]
      : []),
    ...(connections > 0
      ? [
          "limit_conn_zone $binary_remote_addr zone=connections:10m;",
          "limit_conn_status 429;",
          "limit_conn_log_level warn;",
        ]
      : []),
    "",
  ];
}

/**
 * The speech service of this node. While that is down, for a change of it in its turn, a client with a kept connection to this
 * nginx is not to notice: the others stand in. New connections go elsewhere anyway.
 */
function upstream({ port, realServers }: ClusterConfig, self: string): Block {
  return block(
    "upstream speech",
    `server 127.0.0.1:${port} max_fails=0;`,
    ...realServers
      .filter(({ name }) => name !== self)
      .map(({ address }) => `server ${address}:${port} backup;`),
  );
}

/** Whether somebody who asks must have a key or a login. */
function guarded({ secretsSet }: ClusterConfig): boolean {
  return secretsSet.apiKeys || secretsSet.httpUsers;
}

function access(config: ClusterConfig): Line[] {
  if (!guarded(config)) return [];
  return [
    // Without one of the keys, the name of the realm in which to log in.
    block("map $http_authorization $realm", "default CosyVoice;", `include ${paths.frontDoorApiKeys};`),
    // A login is for this door; a key is also by what the service knows its owner.
    block("map $http_authorization $passed_on", "default '';", "~^[Bb]earer $http_authorization;"),
    "",
  ];
}

function redirect(https: HttpsConfig): Block {
  const port = https.port === 443 ? "" : `:${https.port}`;
  return block(
    "server",
    `listen ${REDIRECT_PORT};`,
    // 308: a POST stays a POST.
    `return 308 https://${https.serverName}${port}$request_uri;`,
  );
}

function httpsServer(config: ClusterConfig, https: HttpsConfig): Block {
  return block(
    "server",
    `listen ${https.port} ssl http2;`,
    `server_name ${https.serverName};`,
    "",
    `ssl_certificate ${paths.frontDoorCertificate};`,
    `ssl_certificate_key ${paths.frontDoorKey};`,
    "ssl_protocols TLSv1.2 TLSv1.3;",
    `ssl_ciphers ${ciphers.join(":")};`,
    "ssl_prefer_server_ciphers off;",
    "ssl_session_timeout 1d;",
    "ssl_session_cache shared:tls:10m;",
    "ssl_session_tickets off;",
    "",
    // In every answer, also of nginx's own: by it whoever complains is found in the logs.
    "add_header X-Request-Id $request_name always;",
    ...(https.hsts > 0 ? [`add_header Strict-Transport-Security "max-age=${https.hsts}" always;`] : []),
    ...(https.requestsPerSecond > 0
      ? [`limit_req zone=requests burst=${https.requestsPerSecond * BURST} nodelay;`]
      : []),
    ...(https.connections > 0 ? [`limit_conn connections ${https.connections};`] : []),
    ...(guarded(config) ? ["auth_basic $realm;", `auth_basic_user_file ${paths.frontDoorUsers};`] : []),
    "",
    // What the nodes, the directors and the monitoring ask each other is nobody else's.
    block("location ~ ^/(metrics|readyz|peer)(/|$)", "return 404;"),
    "",
    block(
      "location /",
      "proxy_pass http://speech;",
      "proxy_http_version 1.1;",
      'proxy_set_header Connection "";',
      "proxy_set_header Host $http_host;",
      // Set and not added to: what a client says of itself here does not count.
      "proxy_set_header X-Forwarded-For $remote_addr;",
      "proxy_set_header X-Forwarded-Proto https;",
      "proxy_set_header X-Forwarded-Host $http_host;",
      `proxy_set_header X-Forwarded-Port ${https.port};`,
      "proxy_set_header X-Leaving '';",
      "proxy_set_header X-Request-Id $request_name;",
      "proxy_hide_header X-Request-Id;",
      ...(guarded(config) ? ["proxy_set_header Authorization $passed_on;"] : []),
      // Sound and events go on as they come. What a client sends is read whole first: a slow one holds no place of the service.
      "proxy_buffering off;",
      "proxy_connect_timeout 2s;",
      `proxy_read_timeout ${SILENT}s;`,
      `proxy_send_timeout ${SILENT}s;`,
      // Only what has not been sent to the service yet is sent to another one: a POST is never made twice.
      "proxy_next_upstream error timeout;",
    ),
  );
}

/** The keys that open the door, as a part of nginx's map: each switches the login off. For root and nginx alone. */
export function renderApiKeys(apiKeys: string): string {
  return apiKeys
    .split(",")
    .map((key) => `"~^[Bb]earer ${key.replaceAll(".", "\\.")}$" off;\n`)
    .join("");
}

/** The password file: a line `NAME:HASH` for everybody who may log in. */
export function renderHttpUsers(httpUsers: string | undefined): string {
  const lines = httpUsers?.trimEnd() ?? "";
  // An empty file lets nobody in by login.
  return lines === "" ? "# nobody\n" : `${lines}\n`;
}

const nginx = "/usr/sbin/nginx";

/** What of nginx.conf is different for every process: it cannot stand in the file, which is also read to be checked. */
const instance = (pid: string) => `"daemon off; pid ${pid};"`;

/** The command that must accept a configuration before it replaces the one in force; `{}` is its path. */
export const FRONT_DOOR_CHECK = [
  // As nginx runs: what root may read proves nothing, and what root makes nginx could not use.
  `setpriv --reuid=${DOOR_USER} --regid=${DOOR_USER} --init-groups`,
  "--inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service --",
  `${nginx} -e stderr -t -q -g ${instance(`${paths.frontDoorState}/check.pid`)} -c {}`,
].join(" ");

/** The unit of nginx as the front door. The distribution's own nginx.service stays off. */
export function renderFrontDoorUnit(): string {
  const name = posix.basename(paths.frontDoorUnit, ".service");
  const command = `${nginx} -e stderr -c ${paths.frontDoorConfig}`;
  const own = `-g ${instance(`/run/${name}/pid`)}`;
  return renderSections([
    [
      "Unit",
      [
        "Description=HTTPS for the speech service",
        `After=network.target ${posix.basename(paths.vipUnit)}`,
        "StartLimitIntervalSec=0",
      ],
    ],
    [
      "Service",
      [
        "Type=exec",
        `User=${DOOR_USER}`,
        `Group=${DOOR_USER}`,
        `ExecStart=${command} ${own}`,
        // A certificate that does not fit its key must not be found out by a reload that half happens.
        `ExecReload=${command} ${own} -t -q`,
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillSignal=SIGQUIT",
        "KillMode=mixed",
        "TimeoutStopSec=30",
        "Restart=always",
        "RestartSec=1",
        "OOMScoreAdjust=-500",
        "LimitNOFILE=65536",
        // Lines of requests, at most: a flood is not to push out of the journal what others said.
        "LogRateLimitIntervalSec=30s",
        "LogRateLimitBurst=3000",
        `RuntimeDirectory=${name}`,
        // What clients have begun to upload is in memory, and in so much of it: a few who never come to an end would fill a disk.
        `TemporaryFileSystem=${paths.frontDoorState}:size=5%,mode=1777`,
        "UMask=0077",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "ProcSubset=pid",
        "MemoryDenyWriteExecute=yes",
        ...sandbox(["AF_INET", "AF_UNIX"], ["CAP_NET_BIND_SERVICE"]),
      ],
    ],
    ["Install", ["WantedBy=multi-user.target"]],
  ]);
}
