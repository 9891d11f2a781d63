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
  readonly when?: (answers: Texts) => boolean;
  /** One of these. @default any text */
  readonly choices?: readonly string[];
  /** Taken when nothing is said. `undefined`: it must be answered; "": it may be left out. */
  readonly fallback: string | undefined;
}

const onHosts = ({ platform }: Texts) => platform === "hosts";
const onAws = ({ platform }: Texts) => platform === "aws";

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
    key: "admins",
    flag: "--admins <ranges>",
    ask: "Who may log in over SSH, this computer among them, such as 203.0.113.7/32:",
    when: onAws,
    fallback: undefined,
  },
  {
    key: "engine",
    flag: "--engine <cpu|cosyvoice>",
    ask: "What speaks: cosyvoice (needs a GPU), or cpu (espeak-ng, needs nothing)?",
    choices: ["cpu", "cosyvoice"],
    fallback: "cpu",
  },
];

/** The questions that these answers lead to. */
export function questionsFor(answers: Texts): Question[] {
  return questions.filter(({ when }) => when === undefined || when(answers));
}
