/** What is asked about a new stack: on the command line or at the terminal, the same questions in the same words. */

/** Answers as texts, by the questions' keys. */
export type Texts = Readonly<Record<string, string | undefined>>;

export interface Question {
  readonly key: string;
  /** For the command line, with what it takes. */
  readonly flag: string;
  /** At the terminal. */
  readonly ask: string;
  /** Asked only where this holds. @default always */
  readonly when?: Condition;
  /** One of these. @default any text */
  readonly choices?: readonly string[];
  /** Taken when nothing is said. `undefined`: it must be answered; "": it may be left out. */
  readonly fallback: string | undefined | ((answers: Texts) => string | undefined);
}

interface Condition {
  readonly holds: (answers: Texts) => boolean;
  /** What has to be said for it to hold. */
  readonly words: string;
}

function said(key: string, flag: string, ...values: string[]): Condition {
  return {
    holds: (answers) => values.includes(answers[key] ?? ""),
    words: `${flag} ${values.join(" or ")}`,
  };
}

const onHosts = said("platform", "--platform", "hosts");
const onAws = said("platform", "--platform", "aws");
const withFiles = said("https", "--https", "files");
const withAcme = said("https", "--https", "acme");

/** The GPUs that can be asked for on AWS, and the smallest instance that has one. */
export const gpus: Readonly<Record<string, string>> = {
  T4: "g4dn.xlarge",
  A10G: "g5.xlarge",
  L4: "g6.xlarge",
};

export const questions: readonly Question[] = [
  {
    key: "platform",
    flag: "--platform <hosts|aws>",
    ask: "Where do the machines come from: your own machines (hosts), or AWS (aws)?",
    choices: ["hosts", "aws"],
    fallback: "hosts",
  },
  {
    key: "vip",
    flag: "--vip <address>",
    ask: "The address that clients use (VIP), which no machine may have:",
    fallback: undefined,
  },
  { key: "port", flag: "--port <port>", ask: "Port of the service:", fallback: "7860" },
  {
    key: "directors",
    flag: "--directors <machines>",
    ask: "The two directors, as ADDRESS or NAME=ADDRESS, separated by commas:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "realServers",
    flag: "--real-servers <machines>",
    ask: "The real servers (the machines with the GPUs), as ADDRESS or NAME=ADDRESS, separated by commas:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "storage",
    flag: "--storage <machine>",
    ask: "The machine that becomes the NFS server for results, or an existing export as host:/path:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "client",
    flag: "--client <machine>",
    ask: "A client machine on the same segment, which asks for sentences at the end of a deployment (empty: none):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "user",
    flag: "--user <name>",
    ask: "User to log in as: root, or a user who may use sudo without a password:",
    when: onHosts,
    fallback: "root",
  },
  {
    key: "sshPort",
    flag: "--ssh-port <port>",
    ask: "Port of the machines' SSH servers:",
    when: onHosts,
    fallback: "22",
  },
  {
    key: "key",
    flag: "--key <file>",
    ask: "Private key to log in with (empty: the keys of your SSH agent):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "jumpHost",
    flag: "--jump-host <user@host:port>",
    ask: "A jump host through which the machines are reached, as USER@HOST or USER@HOST:PORT (empty: none):",
    when: onHosts,
    fallback: "",
  },
  { key: "region", flag: "--region <region>", ask: "AWS region:", when: onAws, fallback: undefined },
  { key: "zone", flag: "--zone <zone>", ask: "Availability zone:", when: onAws, fallback: undefined },
  { key: "count", flag: "--count <number>", ask: "Number of real servers:", when: onAws, fallback: "3" },
  {
    key: "gpu",
    flag: `--gpu <${Object.keys(gpus).join("|")}>`,
    ask: "GPU of the real servers:",
    choices: Object.keys(gpus),
    when: onAws,
    fallback: "A10G",
  },
  {
    key: "clients",
    flag: "--clients <ranges>",
    ask: "Addresses that may use the service, as ranges such as 10.20.0.0/16, separated by commas:",
    when: onAws,
    fallback: "10.20.0.0/16",
  },
  {
    key: "engine",
    flag: "--engine <cpu|cosyvoice>",
    ask: "Speech engine: cosyvoice (needs a GPU), or cpu (espeak-ng, needs none)?",
    choices: ["cpu", "cosyvoice"],
    fallback: "cpu",
  },
  {
    key: "https",
    flag: "--https <off|self-signed|files|acme>",
    ask: "HTTPS: none (off), with a self-signed certificate, about which browsers warn (self-signed), with a certificate that you have (files), or with one from Let's Encrypt or another CA by ACME (acme)?",
    choices: ["off", "self-signed", "files", "acme"],
    fallback: "off",
  },
  {
    key: "serverName",
    flag: "--server-name <name>",
    ask: "Name by which clients call the service, such as speech.example.org:",
    when: said("https", "--https", "self-signed", "files", "acme"),
    fallback: ({ https, vip }) => (https === "self-signed" ? vip : undefined),
  },
  {
    key: "certificate",
    flag: "--certificate <file>",
    ask: "File with the certificate, followed by the intermediate certificates (fullchain.pem):",
    when: withFiles,
    fallback: undefined,
  },
  {
    key: "certificateKey",
    flag: "--certificate-key <file>",
    ask: "File with the certificate's private key (privkey.pem):",
    when: withFiles,
    fallback: undefined,
  },
  {
    key: "acmeEmail",
    flag: "--acme-email <address>",
    ask: "E-mail address that the CA writes to about problems with the certificate:",
    when: withAcme,
    fallback: undefined,
  },
  {
    key: "acmeDns",
    flag: "--acme-dns <provider>",
    ask: "DNS provider of the name, as lego calls it (lego dnshelp), such as cloudflare:",
    when: withAcme,
    fallback: undefined,
  },
  {
    key: "monitor",
    flag: "--monitor <machine>",
    ask: "A separate machine for monitoring, which has no other role (empty: no monitoring):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "monitoring",
    flag: "--monitoring <on|off>",
    ask: "A small machine for monitoring?",
    choices: ["on", "off"],
    when: onAws,
    fallback: "on",
  },
  {
    key: "alertMail",
    flag: "--alert-mail <address>",
    ask: "E-mail address that receives alerts (empty: none):",
    when: {
      holds: ({ monitor, monitoring, platform }) =>
        platform === "aws" ? monitoring !== "off" : (monitor ?? "") !== "",
      words: "--monitor or --monitoring on",
    },
    fallback: "",
  },
  {
    key: "mailServer",
    flag: "--mail-server <host:port>",
    ask: "Your mail server (it must offer STARTTLS), as HOST:PORT:",
    when: { holds: ({ alertMail }) => (alertMail ?? "") !== "", words: "--alert-mail" },
    fallback: undefined,
  },
  {
    key: "firewall",
    flag: "--firewall <on|off>",
    ask: "A packet filter on every machine? It also closes the ports of other programs on them:",
    choices: ["off", "on"],
    when: onHosts,
    fallback: "off",
  },
  {
    key: "admins",
    flag: "--admins <ranges>",
    ask: "Networks of those who operate the cluster (for SSH and Prometheus), including this computer's or the jump host's, such as 203.0.113.7/32:",
    when: {
      holds: ({ platform, monitor, firewall }) =>
        platform === "aws" || firewall === "on" || (monitor ?? "") !== "",
      words: "--platform aws, --firewall on or --monitor",
    },
    fallback: ({ platform, firewall }) => (platform === "aws" || firewall === "on" ? undefined : ""),
  },
];

/** The questions that these answers lead to. */
export function questionsFor(answers: Texts): Question[] {
  return questions.filter(({ when }) => when === undefined || when.holds(answers));
}

/** What is taken for an answer, or offered as one, when nothing is said. */
export function fallbackOf({ fallback }: Question, answers: Texts): string | undefined {
  return typeof fallback === "function" ? fallback(answers) : fallback;
}
