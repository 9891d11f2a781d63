/** Clusters that are watched, as somebody might write them who means no good, or has a mail address with a brace. */
import fc from "fast-check";
import type { ClusterConfig, MonitoringConfig, ReceiverConfig } from "../../config/schema";
import { type RawOverrides, rawCluster } from "../unit/config-fixture";
import { monitor } from "../unit/monitoring-fixture";
import { accepted, letters, optional } from "./arbitraries";

/** A configuration with monitoring. */
export type WatchedConfig = ClusterConfig & { readonly monitoring: MonitoringConfig };

/** What the door makes of it, where it lets it in and something watches. */
export function watched(raw: RawOverrides): WatchedConfig | undefined {
  const config = accepted(raw);
  return config?.monitoring ? { ...config, monitoring: config.monitoring } : undefined;
}

/** A receiver as in a stack file, and its secret where it has one. */
export interface RawReceiver {
  readonly receiver: Pick<ReceiverConfig, "name" | "kind"> & Readonly<Record<string, unknown>>;
  readonly secret?: string | undefined;
}

/** A stack file of {@link rawCluster} in which these are told of everything. */
export function told(receivers: readonly RawReceiver[], keys: RawOverrides = {}): RawOverrides {
  const secrets = receivers.flatMap(({ receiver: { name }, secret }) =>
    secret === undefined ? [] : [[name, secret] as const],
  );
  return {
    ...rawCluster(),
    monitoring: { ...monitor(), ...keys, receivers: receivers.map(({ receiver }) => receiver) },
    ...(secrets.length > 0 ? { receiverSecrets: Object.fromEntries(secrets) } : {}),
  };
}

/** What YAML, Go's templates, mails, URLs, units and shells take for more than a letter. */
const SIGNS = [
  ..."._-+~/=?&%$@:;,#!*|'\"`\\(){}[]<>^ ",
  ...[
    "{{",
    "}}",
    "%%",
    "%n",
    "%20",
    "$$",
    "..",
    "\n",
    "\t",
    "\u2028",
    "\ufeff",
    "\uffff",
    "\ud800",
    "é",
    "语",
    "🙂",
  ],
];
const mixed = (maxLength: number) =>
  fc.string({
    unit: fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(..."abcXYZ019") },
      { weight: 1, arbitrary: fc.constantFrom(...SIGNS) },
    ),
    minLength: 1,
    maxLength,
  });

/** Texts that YAML has other meanings for, in one of its versions. */
const notTexts = ["yes", "on", "null", "2024-01-01", "0b11", "0x1f", "1e3", "017", "12-30", "n"] as const;

/** Names of machines and receivers. */
export const names = fc.oneof(
  fc.constantFrom(...notTexts),
  letters("abcxyz0123456789", 4),
  letters("abcxyz0123456789-", 8).filter((name) => /^[a-z0-9].*[a-z0-9]$/.test(name)),
);

/** Mostly one of the first kind: what has several parts would be let in too seldom. */
const mostly = <T>(usual: readonly T[], other: readonly T[]) =>
  fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...usual) },
    { weight: 1, arbitrary: fc.constantFrom(...other) },
  );

const url = fc
  .tuple(
    mostly(["http://", "https://", "https://us:pw%40x@"], ["http:///", "https://user@", "https://a[b@"]),
    mostly(["example.org", "192.168.1.50:8000", "mail_1"], ["[::1]:80", "a%41.org", "例.org"]),
    mostly(["/", "/?"], ["", "/#"]),
    fc.oneof(fc.constant(""), mixed(8)),
  )
  .map((parts) => parts.join(""));

const mailAddress = fc
  .tuple(mixed(6), mostly(["example.org", "localhost", "A.example"], ["a..b", "-"]))
  .map((parts) => parts.join("@"));

/** What somebody who means no good may write for a receiver: the door lets some of them in. */
const anyReceiver: fc.Arbitrary<RawReceiver> = names.chain((name) =>
  fc.oneof(
    url.map((text) => ({ receiver: { name, kind: "webhook" as const, url: text } })),
    fc
      .tuple(fc.constantFrom("webhook", "slack", "dingtalk", "wecom"), url)
      .map(([kind, secret]) => ({ receiver: { name, kind }, secret })),
    fc
      .record({
        to: mailAddress,
        from: mailAddress,
        server: mostly(["mail:25", "192.168.1.9:587"], ["-:25", "a..b:25", "mail:99999", "mail:0"]),
        user: optional(mixed(8)),
        password: mixed(8),
      })
      .map(({ password, user, ...rest }) => ({
        receiver: { name, kind: "email" as const, ...rest, ...(user === undefined ? {} : { user }) },
        secret: user === undefined ? undefined : password,
      })),
  ),
);

/** Receivers that the door lets in. */
export const receivers = fc.uniqueArray(
  anyReceiver.filter((each) => watched(told([each])) !== undefined),
  { maxLength: 4, selector: ({ receiver: { name } }) => name },
);

const port = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 65_535 }) },
  { weight: 1, arbitrary: fc.constantFrom(80, 443, 3000, 7860, 7862, 8443, 9090, 9100) },
);
/** Disk that is enough for so long, whatever the interval. */
const store = fc.oneof(
  fc.record({ retention: fc.integer({ min: 1, max: 60 }), disk: fc.integer({ min: 10, max: 100_000 }) }),
  fc.constant({ retention: 3650, disk: 100_000 }),
);
const network = fc
  .tuple(fc.constantFrom("10.0.0.1", "10.255.0.9", "192.168.1.7", "1.2.3.4"), fc.integer({ min: 1, max: 32 }))
  .map(([address, length]) => `${address}/${length}`);

/** Stack files of watched clusters, all of which the door lets in. */
export const watchedStacks: fc.Arbitrary<RawOverrides> = fc
  .record({
    machines: fc.uniqueArray(names, { minLength: 7, maxLength: 7 }),
    receivers,
    password: optional(letters("abcXYZ019._+/=-", 72).filter(({ length }) => length >= 12)),
    monitoring: fc.record({
      adminNetworks: fc.array(network, { maxLength: 4 }),
      interval: fc.integer({ min: 5, max: 120 }),
      metrics: store,
      logs: store,
      ports: fc.record({ prometheus: port, alertmanager: port, nodeExporter: port, collector: port }),
    }),
    https: optional(fc.record({ serverName: fc.constantFrom("speech.example.org", "xn--a"), port })),
    engine: fc.constantFrom("cpu", "cosyvoice"),
    logs: fc.boolean(),
    grafana: fc.boolean(),
    queueLength: fc.integer({ min: 1, max: 1000 }),
    sentence: mixed(30),
  })
  .map(({ machines, receivers, password, monitoring, logs, grafana, https, sentence, ...service }) => {
    const [base, free] = [rawCluster(), [...machines]];
    const named = (machine: unknown) => ({ ...(machine as object), name: free.pop() });
    const { interval, ...keys } = monitoring;
    const alone = told(receivers, {
      ...keys,
      metrics: { ...keys.metrics, interval },
      logs: { ...keys.logs, enabled: logs },
      grafana: { enabled: grafana && password !== undefined },
    });
    return {
      ...alone,
      monitoring: named(alone.monitoring),
      directors: base.directors.map(named),
      realServers: base.realServers.map(named),
      storage: named(base.storage),
      service,
      verification: { sentence },
      ...(password === undefined ? {} : { monitoringPassword: password }),
      ...(https === undefined
        ? {}
        : { https: { ...https, enabled: true }, tlsCertificate: true, tlsKey: true }),
    };
  })
  .filter((raw) => watched(raw) !== undefined);
