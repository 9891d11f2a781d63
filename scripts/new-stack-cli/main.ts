import { constants, existsSync } from "node:fs";
import { access, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { confirm, input, select } from "@inquirer/prompts";
import { Command, CommanderError } from "commander";
import pc from "picocolors";
import { expandHome } from "../../components/remote/openssh";
import { formatProblems, type Problem } from "../../config/problems";
import { ProgressLine } from "../cluster-cli/progress";
import { endWithReader } from "../lib/ending";
import { repository } from "../lib/paths";
import { type Answers, readAnswers } from "./answers";
import { checkStackFile } from "./check";
import { certificateCommand, commandFor, secretCommands } from "./commands";
import { type ShownKey, showHostKeys } from "./hostKeys";
import type { Objection } from "./machines";
import { fallbackOf, type Question, questions, questionsFor, type Texts } from "./questions";
import { futureSecrets } from "./secrets";
import { type Found, renderStackFile } from "./stackFile";
import { answersAt, surveyMachines } from "./survey";

interface Options {
  readonly yes?: true;
  readonly checks: boolean;
  readonly output?: string;
  readonly knownHosts: string;
}

const program = new Command("scripts/new-stack")
  .description(
    "Writes the file of a new stack: asks you what it needs to know and looks at the machines. Changes none of them.",
  )
  .argument("<stack>", "name of the stack, such as onprem")
  .option(
    "-y, --yes",
    "ask nothing: use defaults for what is not given, and trust the host keys that the machines show",
  )
  .option(
    "--no-checks",
    "do not look at the machines; their host keys are then taken from your known_hosts file",
  )
  .option("--known-hosts <file>", "file with host keys that you trust already", "~/.ssh/known_hosts")
  .option("--output <file>", "file to write (default: Pulumi.<stack>.yaml)")
  .exitOverride()
  .showHelpAfterError("For help: scripts/new-stack --help")
  .addHelpText(
    "after",
    `
Exit status: 0 written, 1 something is wrong or in the way and nothing was written, 2 usage error.

Examples:
  scripts/new-stack onprem                       asks
  scripts/new-stack onprem --yes --vip 192.168.1.100 --directors 192.168.1.11,192.168.1.12 \\
      --real-servers gpu-1=192.168.1.101,gpu-2=192.168.1.102 --storage 192.168.1.20 \\
      --https self-signed --monitor 192.168.1.30 --firewall on --admins 192.168.1.0/24
  scripts/new-stack prod --yes --platform aws --vip 10.255.0.100 --region eu-central-1 --zone eu-central-1a \\
      --gpu L4 --admins 203.0.113.7/32`,
  );
for (const { flag, ask, fallback } of questions) {
  const taken = typeof fallback === "string" && fallback !== "" ? ` (default: ${fallback})` : "";
  program.option(flag, `${ask.replace(/:$/, "")}${taken}`);
}

/** What is wrong, so that nothing is written. */
class Refusal extends Error {}

endWithReader();
try {
  program.parse();
  await main(program.args[0] ?? "", program.opts<Options>());
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof Error && error.name === "ExitPromptError") process.exitCode = 1;
  else {
    console.error(error instanceof Refusal ? error.message : error);
    process.exitCode = 1;
  }
}

async function main(stack: string, options: Options): Promise<void> {
  if (!/^[A-Za-z0-9_.-]{1,100}$/.test(stack))
    throw new Refusal(`"${stack}" is not a valid stack name: use letters, digits and . _ -`);
  const file =
    options.output === undefined ? join(repository, `Pulumi.${stack}.yaml`) : resolve(options.output);
  if (existsSync(file)) {
    const why = `${file} exists already`;
    if (options.yes || !process.stdin.isTTY)
      throw new Refusal(`${why}; nothing was written. Move it away, or choose another name.`);
    if (!(await confirm({ message: `${why}. Overwrite it?`, default: false })))
      throw new Refusal("Nothing was written.");
  }
  // Before twenty questions are asked.
  await access(dirname(file), constants.W_OK).catch(({ code }: NodeJS.ErrnoException) => {
    throw new Refusal(
      `${file} cannot be written (${code}): create its directory, or choose another --output.`,
    );
  });
  const said = given();
  const texts = options.yes ? withPlatform(said) : await askFor(said);
  const refusal = (problems: readonly Problem[]) =>
    new Refusal(
      `${formatProblems(problems)}${options.yes ? "" : `\nYour answers as a command, to correct and run again:\n  ${commandFor(stack, texts)}`}`,
    );
  const read = readAnswers(texts);
  if ("problems" in read) throw refusal(read.problems);
  const { answers } = read;

  let found: Found = { hostKeys: {}, interfaces: {} };
  const draft = renderStackFile(stack, answers, found);
  const { secrets, problems } = await futureSecrets(answers);
  const drafted = checkStackFile(draft, secrets);
  if ("problems" in drafted) throw refusal([...problems, ...drafted.problems]);
  if (problems.length > 0) throw refusal(problems);
  if (options.checks && answers.hosts)
    found = await lookAt({ ...answers, hosts: answers.hosts }, drafted.config, options);

  const text = renderStackFile(stack, answers, found);
  const checked = checkStackFile(text, secrets);
  if ("problems" in checked) throw refusal(checked.problems);
  await writeFile(`${file}.new`, text);
  await rename(`${file}.new`, file);
  console.log(`${pc.green("written:")} ${file}\n\n${nextSteps(stack, answers)}`);
}

/** What the command line says. */
function given(): Texts {
  const said = program.opts<Record<string, string | undefined>>();
  return Object.fromEntries(questions.map(({ key, flag }) => [key, said[optionOf(flag)]]));
}

/** The name under which commander keeps an option: `--real-servers <machines>` is realServers. */
function optionOf(flag: string): string {
  return (flag.split(" ")[0] ?? "")
    .replace(/^--/, "")
    .replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Which questions there are depends on the platform. */
function withPlatform(texts: Texts): Texts {
  return { ...texts, platform: texts.platform ?? "hosts" };
}

/** Asks at the terminal what the command line does not say. */
async function askFor(texts: Texts): Promise<Texts> {
  if (!process.stdin.isTTY)
    throw new Refusal("There is no terminal to ask at: give --yes, and every option that has no default.");
  const answers: Record<string, string | undefined> = { ...texts };
  // Later questions depend on earlier answers.
  for (const question of questions) {
    if (answers[question.key] !== undefined || !questionsFor(answers).includes(question)) continue;
    answers[question.key] = await ask(question, fallbackOf(question, answers));
  }
  return answers;
}

function ask({ ask: message, choices }: Question, fallback: string | undefined): Promise<string> {
  if (choices !== undefined) return select({ message, choices: [...choices], default: fallback });
  return input({ message, ...(fallback ? { default: fallback } : {}), required: fallback === undefined });
}

/** Looks at the machines. @throws Refusal with everything that is in the way, unless the user wants the file all the same. */
async function lookAt(
  answers: Answers & { readonly hosts: NonNullable<Answers["hosts"]> },
  config: Parameters<typeof surveyMachines>[2],
  options: Options,
): Promise<Found> {
  const { hosts, vip, port } = answers;
  const progress = new ProgressLine();
  progress.show("asking the machines for their host keys");
  const knownHosts = await readFile(expandHome(options.knownHosts), "utf8").catch(() => "");
  const { shown, objections: silent } = await showHostKeys(hosts, knownHosts).finally(() => progress.clear());
  await confirmKeys(shown, options);
  const hostKeys = Object.fromEntries(shown.map(({ name, key }) => [name, key]));
  const there = new Set(shown.map(({ name }) => name));
  const reached = (machines: typeof hosts.directors) => machines.filter(({ name }) => there.has(name));
  const { storage, client, monitor } = hosts;
  progress.show("looking at the machines");
  const { interfaces, objections } = await surveyMachines(
    {
      ...answers,
      hosts: {
        ...hosts,
        directors: reached(hosts.directors),
        realServers: reached(hosts.realServers),
        storage: "export" in storage || there.has(storage.name) ? storage : { export: "none:/" },
        client: client && there.has(client.name) ? client : undefined,
        monitor: monitor && there.has(monitor.name) ? monitor : undefined,
      },
    },
    hostKeys,
    config,
  ).finally(() => progress.clear());
  const all = [...silent, ...objections];
  if (!all.some(({ machine }) => machine === null) && (await answersAt(vip, port)))
    all.push({
      machine: null,
      what: `something already answers at ${vip}:${port}`,
      fix: "choose an address that nobody uses",
    });
  if (all.length > 0) {
    const text = `${all.length === 1 ? "1 thing is" : `${all.length} things are`} in the way:\n\n${all.map(renderObjection).join("\n")}`;
    if (options.yes || !process.stdin.isTTY)
      throw new Refusal(
        `${text}\n\nNothing was written. --no-checks writes the file without looking at the machines.`,
      );
    console.log(text);
    if (!(await confirm({ message: "Write the file anyway?", default: false })))
      throw new Refusal("Nothing was written.");
  }
  return { hostKeys, interfaces };
}

/** Shows the keys that nobody has vouched for yet. @throws Refusal when the user does not know them. */
async function confirmKeys(shown: readonly ShownKey[], { yes }: Options): Promise<void> {
  const strange = shown.filter(({ known }) => !known);
  if (strange.length === 0) return;
  console.log("These host keys are seen for the first time:\n");
  for (const { name, address, fingerprint } of strange)
    console.log(`  ${name.padEnd(16)} ${address.padEnd(16)} ${fingerprint}`);
  console.log(
    "\nTo compare, run on each machine's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n",
  );
  if (yes) return;
  if (!(await confirm({ message: "Do the machines' consoles show the same keys?", default: false })))
    throw new Refusal(
      "Nothing was written: a machine that shows another key on the network is not the one you mean.",
    );
}

function renderObjection({ machine, what, fix }: Objection): string {
  return `  ${machine === null ? "" : `${pc.bold(machine)}: `}${what}\n    fix: ${fix}`;
}

function nextSteps(stack: string, answers: Answers): string {
  const { platform, https } = answers;
  return [
    "Next:",
    `  pulumi login --local   # or wherever you keep state (without an installed pulumi: scripts/pulumi)`,
    `  export PULUMI_CONFIG_PASSPHRASE_FILE=FILE   # a file with a passphrase that encrypts the secrets; not needed for Pulumi Cloud`,
    `  pulumi stack init ${stack}`,
    ...secretCommands(stack, answers).map((command) => `  ${command}`),
    `  scripts/preview --stack ${stack}   # shows what would be done; nothing is touched`,
    `  pulumi up --stack ${stack}${platform === "aws" ? "   # docs/aws.md has the costs" : ""}`,
    ...(https?.certificate.from === "acme"
      ? [
          `  ${certificateCommand(stack, https.certificate)}   # run it every day from then on: it renews the certificate`,
        ]
      : []),
  ].join("\n");
}
