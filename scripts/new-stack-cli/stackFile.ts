import { stringify } from "yaml";
import type {
  Answers,
  AwsAnswers,
  HostsAnswers,
  HttpsAnswers,
  MachineAnswer,
  MonitoringAnswers,
} from "./answers";

/** What was found out about machines, by their names. */
export interface Found {
  /** Public host keys that were seen and confirmed. */
  readonly hostKeys: Readonly<Record<string, string>>;
  /** Interfaces that hold the machines' addresses. */
  readonly interfaces: Readonly<Record<string, string>>;
}

/** The name of the jump host in {@link Found}. */
export const JUMP_HOST = "jump host";

/** A commented `Pulumi.<stack>.yaml`. */
export function renderStackFile(stack: string, answers: Answers, found: Found): string {
  const { vip, port, engine, https, monitoring, hosts, aws } = answers;
  return [
    `# The stack \`${stack}\`, written by scripts/new-stack. Every key, with its default and the reason for it: docs/configuration.md`,
    "config:",
    entry("platform", answers.platform),
    "",
    hosts
      ? "  # The address that clients use. It must be free, on the directors' segment, and outside any DHCP range."
      : "  # The address that clients use. It must lie outside every range of the VPC: on AWS it moves by a route, not by ARP.",
    entry("vip", vip),
    entry("port", port),
    "",
    ...(hosts ? hostsLines(hosts, found) : []),
    ...(aws ? awsLines(aws) : []),
    entry("loadBalancer", { forwarding: "DR", scheduler: "mh" }, [
      "DR: replies go from the real server straight to the client. mh: both directors send a client to the same real server.",
    ]),
    "",
    entry("vrrp", { virtualRouterId: 51, advertInterval: 0.1 }, [
      "virtualRouterId must differ from that of any other VRRP group on the segment.",
    ]),
    "",
    entry(
      "service",
      { engine },
      engine === "cosyvoice"
        ? ["CosyVoice3 at a pinned commit, installed by the first deployment: docs/engine.md"]
        : ["cpu: espeak-ng, which needs no GPU. For cosyvoice see docs/engine.md."],
    ),
    "",
    ...(https ? httpsLines(https) : []),
    ...(monitoring ? monitoringLines(monitoring, hosts, found) : []),
    ...(hosts?.firewall ? firewallLines(hosts) : []),
  ].join("\n");
}

function hostsLines(
  { directors, realServers, storage, client, user, sshPort, key, jumpHost }: HostsAnswers,
  found: Found,
) {
  const machine = (answer: MachineAnswer) => machineEntry(answer, found);
  const shared = found.interfaces[directors[0]?.name ?? ""] ?? "eth0";
  const own = (name: string) =>
    optional("interface", found.interfaces[name] === shared ? undefined : found.interfaces[name]);
  // Who is not pinned is looked up where everybody's OpenSSH does.
  const pinned = [...directors, ...realServers].every(({ name }) => found.hostKeys[name] !== undefined);
  return [
    "  # The interface that holds the directors' addresses and, on one of them, the VIP.",
    entry("interface", shared),
    "",
    entry(
      "ssh",
      {
        user,
        ...(sshPort === 22 ? {} : { port: sshPort }),
        ...optional("privateKeyFile", key),
        ...(pinned ? {} : { knownHostsFile: "~/.ssh/known_hosts" }),
        ...(jumpHost === undefined
          ? {}
          : { jumpHost: { ...jumpHost, ...optional("hostKey", found.hostKeys[JUMP_HOST]) } }),
      },
      key === undefined
        ? [
            "The keys of your SSH agent are used. For a pipeline: pulumi config set --secret sshPrivateKey < FILE",
          ]
        : ["For a pipeline, which has no such file: pulumi config set --secret sshPrivateKey < FILE"],
    ),
    "",
    entry(
      "directors",
      directors.map((director) => ({ ...machine(director), ...own(director.name) })),
      [
        "The two directors. The first one gets the higher priority. A connection to a machine that shows another hostKey is refused.",
      ],
    ),
    "",
    entry("realServers", realServers.map(machine), [
      "The GPU machines. To add one, write it here and run pulumi up.",
    ]),
    "",
    entry("storage", "export" in storage ? storage : machine(storage), [
      "The share that every real server mounts at /root/CosyVoice/outputs.",
    ]),
    "",
    ...(client === undefined
      ? []
      : [
          entry("verification", { client: machine(client) }, [
            "The client asks for sentences at the end of a deployment. With sourceAddresses (a range that it holds) it reaches every real server.",
          ]),
          "",
        ]),
  ];
}

function awsLines({ region, zone, count, instanceType, clients, admins }: AwsAnswers): string[] {
  return [
    entry(
      "aws",
      {
        region,
        exposure: "vpc",
        network: { cidr: "10.20.0.0/16", zones: [{ name: zone, cidr: "10.20.0.0/20" }] },
        clients,
        admins,
        realServers: { count, instanceType },
        verifier: {},
      },
      [
        "admins: addresses that may log in to the directors and, through them, to all other machines. The computer that deploys must be among them.",
        "A new account usually has no quota for GPU machines: the preview says so, and how to ask for it.",
      ],
    ),
    "",
  ];
}

function httpsLines({ serverName, certificate }: HttpsAnswers): string[] {
  const comments = {
    "self-signed":
      "HTTPS, by nginx on every real server. The certificate is self-signed, created with Pulumi's plugin tls (which pulumi downloads); browsers warn about it.",
    files: "HTTPS, by nginx on every real server. The certificate is the secrets tlsCertificate and tlsKey.",
    acme: "HTTPS, by nginx on every real server. scripts/certificate gets the certificate, and renews it when it runs every day.",
  };
  return [
    entry(
      "https",
      {
        enabled: true,
        serverName,
        certificate: certificate.from === "self-signed" ? "selfSigned" : "config",
        plainPort: "closed",
      },
      [
        comments[certificate.from],
        "plainPort: open also serves clients without TLS. API keys and logins: docs/security.md",
      ],
    ),
    "",
  ];
}

function monitoringLines(
  { mail }: MonitoringAnswers,
  hosts: HostsAnswers | undefined,
  found: Found,
): string[] {
  const machine = hosts?.monitor && machineEntry(hosts.monitor, found);
  const admins = hosts?.admins ?? [];
  return [
    entry(
      "monitoring",
      {
        ...(machine ?? { enabled: true }),
        ...(admins.length > 0 ? { adminNetworks: admins } : {}),
        ...(mail
          ? { receivers: [{ name: "ops", kind: "email", to: mail.to, from: mail.to, server: mail.server }] }
          : {}),
      },
      [
        "The monitoring machine. Logs, dashboards and other receivers of alerts: docs/monitoring.md",
        ...(admins.length > 0
          ? ["adminNetworks: networks from which Prometheus and Alertmanager can be opened."]
          : []),
        ...(mail
          ? ["If the mail server wants a login, add user, and set the secret receiverSecrets.ops."]
          : []),
      ],
    ),
    "",
  ];
}

function firewallLines({ admins }: HostsAnswers): string[] {
  return [
    entry("firewall", { enabled: true, admins }, [
      "Every machine drops traffic that its role does not need. admins: networks that SSH is accepted from. openPorts: [8080, ...] keeps other programs' ports open.",
    ]),
    "",
  ];
}

function machineEntry({ name, address }: MachineAnswer, { hostKeys }: Found) {
  return { name, address, ...optional("hostKey", hostKeys[name]) };
}

/** A key of the stack file, below what is said of it. */
function entry(key: string, value: unknown, comments: readonly string[] = []): string {
  const yaml = stringify({ [`cosyvoice-lvs:${key}`]: value }, { lineWidth: 0 });
  return [...comments.map((comment) => `# ${comment}`), ...yaml.trimEnd().split("\n")]
    .map((line) => `  ${line}`)
    .join("\n");
}

function optional<K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [P in K]?: string });
}
