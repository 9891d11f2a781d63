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
    ask: "Where do the machines come from: your own (hosts), or AWS?",
    choices: ["hosts", "aws"],
    fallback: "hosts",
  },
  {
    key: "vip",
    flag: "--vip <address>",
    ask: "The address that clients use (VIP), which no machine has:",
    fallback: undefined,
  },
  { key: "port", flag: "--port <port>", ask: "Its port:", fallback: "7860" },
  {
    key: "directors",
    flag: "--directors <machines>",
    ask: "The two directors, as ADDRESS or NAME=ADDRESS with commas between:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "realServers",
    flag: "--real-servers <machines>",
    ask: "The real servers (those with the GPUs), in the same way:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "storage",
    flag: "--storage <machine>",
    ask: "The machine that becomes the NFS server for results, or an export that is there, as host:/path:",
    when: onHosts,
    fallback: undefined,
  },
  {
    key: "client",
    flag: "--client <machine>",
    ask: "A machine on the same segment that asks for sentences at the end of a deployment (empty: none):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "user",
    flag: "--user <name>",
    ask: "User to log in as: root, or one who may sudo without a password:",
    when: onHosts,
    fallback: "root",
  },
  {
    key: "sshPort",
    flag: "--ssh-port <port>",
    ask: "Port of their SSH servers:",
    when: onHosts,
    fallback: "22",
  },
  {
    key: "key",
    flag: "--key <file>",
    ask: "Private key to log in with (empty: those of your SSH agent):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "jumpHost",
    flag: "--jump-host <user@host:port>",
    ask: "A host on the way to them, as USER@HOST or USER@HOST:PORT (empty: none):",
    when: onHosts,
    fallback: "",
  },
  { key: "region", flag: "--region <region>", ask: "AWS region:", when: onAws, fallback: undefined },
  { key: "zone", flag: "--zone <zone>", ask: "Availability zone:", when: onAws, fallback: undefined },
  { key: "count", flag: "--count <number>", ask: "Number of real servers:", when: onAws, fallback: "3" },
  {
    key: "gpu",
    flag: `--gpu <${Object.keys(gpus).join("|")}>`,
    ask: "Their GPU:",
    choices: Object.keys(gpus),
    when: onAws,
    fallback: "A10G",
  },
  {
    key: "clients",
    flag: "--clients <ranges>",
    ask: "Who may use the service, as ranges such as 10.20.0.0/16 with commas between:",
    when: onAws,
    fallback: "10.20.0.0/16",
  },
  {
    key: "engine",
    flag: "--engine <cpu|cosyvoice>",
    ask: "What speaks: cosyvoice (needs a GPU), or cpu (espeak-ng, needs nothing)?",
    choices: ["cpu", "cosyvoice"],
    fallback: "cpu",
  },
  {
    key: "https",
    flag: "--https <off|self-signed|files|acme>",
    ask: "HTTPS: none (off), a certificate made here, of which browsers warn (self-signed), one that you have (files), or one from Let's Encrypt or another CA by ACME (acme)?",
    choices: ["off", "self-signed", "files", "acme"],
    fallback: "off",
  },
  {
    key: "serverName",
    flag: "--server-name <name>",
    ask: "What clients call the service, such as speech.example.org:",
    when: said("https", "--https", "self-signed", "files", "acme"),
    fallback: ({ https, vip }) => (https === "self-signed" ? vip : undefined),
  },
  {
    key: "certificate",
    flag: "--certificate <file>",
    ask: "File with the certificate, followed by its issuers' (fullchain.pem):",
    when: withFiles,
    fallback: undefined,
  },
  {
    key: "certificateKey",
    flag: "--certificate-key <file>",
    ask: "File with its private key (privkey.pem):",
    when: withFiles,
    fallback: undefined,
  },
  {
    key: "acmeEmail",
    flag: "--acme-email <address>",
    ask: "Who is told by the CA of trouble with the certificate:",
    when: withAcme,
    fallback: undefined,
  },
  {
    key: "acmeDns",
    flag: "--acme-dns <provider>",
    ask: "Where the name's DNS records are, as lego calls it (lego dnshelp), such as cloudflare:",
    when: withAcme,
    fallback: undefined,
  },
  {
    key: "monitor",
    flag: "--monitor <machine>",
    ask: "A machine of its own that watches the others (empty: nothing is watched):",
    when: onHosts,
    fallback: "",
  },
  {
    key: "monitoring",
    flag: "--monitoring <on|off>",
    ask: "A small machine that watches the others?",
    choices: ["on", "off"],
    when: onAws,
    fallback: "on",
  },
  {
    key: "alertMail",
    flag: "--alert-mail <address>",
    ask: "Who is told of alerts, by mail (empty: nobody):",
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
    ask: "Your mail server, with STARTTLS, as HOST:PORT:",
    when: { holds: ({ alertMail }) => (alertMail ?? "") !== "", words: "--alert-mail" },
    fallback: undefined,
  },
  {
    key: "firewall",
    flag: "--firewall <on|off>",
    ask: "A packet filter on every machine? It closes the ports of other programs there, too:",
    choices: ["off", "on"],
    when: onHosts,
    fallback: "off",
  },
  {
    key: "admins",
    flag: "--admins <ranges>",
    ask: "Networks of those who operate it (SSH, Prometheus), this computer's or the jump host's among them, such as 203.0.113.7/32:",
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
