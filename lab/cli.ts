import { Command, CommanderError, InvalidArgumentError } from "commander";
import { resolveToolchain } from "../scripts/toolchain";
import { LabError, said } from "./errors";
import { installMissingPackages } from "./hostPackages";
import { Lab } from "./lab";
import { withLock } from "./lock";
import { machineNamed } from "./machines";
import { failureText, Progress } from "./progress";
import { LabStack } from "./stack";
import { statusText } from "./status";

const lab = new Lab();
const stack = new LabStack(lab);

/** What starts, stops or removes the lab: one at a time. */
function locked(work: () => Promise<void>): Promise<void> {
  return withLock(`${lab.directory}.lock`, work);
}

async function up(options: { deploy: boolean; timings?: true }): Promise<void> {
  const progress = new Progress();
  try {
    await progress.step("packages of this computer", () =>
      installMissingPackages((text) => progress.say(text)),
    );
    if (options.deploy) {
      await progress.step("toolchain", async (note) => {
        note((await resolveToolchain({ say: note })).summary);
      });
    }
    if ((await lab.vm.running()) === undefined) {
      const images = await progress.step("images", (note) => lab.images(note));
      await progress.step("virtual machine", (note) => lab.boot(images, note));
    }
    await progress.step("machines", (note) => lab.startMachines(note));
    if (options.deploy) await progress.step("deployment", () => deploy(progress));
  } finally {
    if (options.timings) console.error(`\n${progress.table()}`);
  }
  console.log(options.deploy ? await whereItIs() : "The machines are ready: scripts/lab status");
}

async function whereItIs(): Promise<string> {
  const https = (await stack.isOn("https")) ? await lab.httpsUrl() : undefined;
  return [
    `The service is at ${await lab.url()}`,
    ...(https === undefined ? [] : [`and at ${https} for whoever trusts ${stack.tls.caFile}`]),
  ].join("\n");
}

/** `pulumi up`, which shows its own progress. */
async function deploy(progress: Progress): Promise<void> {
  progress.pause();
  const exitCode = await stack.runOnTerminal(["up", "--yes", "--skip-preview"]);
  if (exitCode !== 0) {
    throw new LabError(
      `pulumi up failed (exit code ${exitCode}).`,
      (await stack.locked()) ?? "Its own messages are above. scripts/lab up tries again.",
    );
  }
}

async function pulumi(args: string[]): Promise<void> {
  process.exitCode = await stack.runOnTerminal(withoutDashes(args));
  const locked = process.exitCode === 0 ? undefined : await stack.locked();
  if (locked !== undefined) console.error(`\n${locked}`);
}

async function status(options: { json?: true }): Promise<void> {
  const { monitorUrls = [], ...rest } = await lab.status();
  // The ports are forwarded in any case; where nobody listens they are no address.
  const found = rest.running && (await stack.isOn("monitoring")) ? { ...rest, monitorUrls } : rest;
  console.log(options.json ? JSON.stringify(found, null, 2) : statusText(found));
}

/** Runs a command in a machine with this program's standard streams, and ends with its exit code. */
async function exec(name: string, command: string[]): Promise<void> {
  await lab.requireRunning();
  const tty = process.stdin.isTTY && process.stdout.isTTY;
  const { exitCode } = await lab.exec(name, withoutDashes(command), { stdio: "inherit", reject: false }, tty);
  process.exitCode = exitCode ?? 1;
}

/** The name of a machine, as an argument. */
function machine(name: string): string {
  try {
    return machineNamed(name).name;
  } catch (error) {
    throw new InvalidArgumentError(String(said(error)));
  }
}

/** `--` before the command is customary, and commander leaves it there. */
function withoutDashes(command: string[]): string[] {
  return command[0] === "--" ? command.slice(1) : command;
}

async function ssh(name: string, command: string[]): Promise<void> {
  await lab.requireRunning();
  const { exitCode } = await lab.ssh.spawn(name, withoutDashes(command), { stdio: "inherit", reject: false });
  process.exitCode = exitCode ?? 1;
}

const program = new Command("scripts/lab")
  .description("The lab: a whole cluster in one virtual machine on this computer.")
  // Options behind a machine's name belong to the command that runs there.
  .enablePositionalOptions()
  .exitOverride()
  .showHelpAfterError()
  .addHelpText(
    "after",
    `
Exit status: 0 done, 1 it failed, 2 usage error, 70 a bug in this program.
exec, ssh and pulumi end with the exit status of what they ran.

Examples:
  scripts/lab up                                create it, or start it again, and deploy
  scripts/lab status                            its machines, and the service's address
  scripts/lab power-cut director-1              cause a fault
  scripts/lab exec rs-1 -- ipvsadm -Ln          run a command in a machine
  scripts/lab pulumi preview --diff             what a change of Pulumi.lab.yaml would do
  scripts/lab down                              stop it; its disk is kept`,
  );

program
  .command("up")
  .description("create or start the lab, deploy the stack `lab` on it, and print the URL")
  .option("--no-deploy", "start only the machines; deploy nothing")
  .option("--timings", "print a table of the steps' durations at the end")
  .action((options: { deploy: boolean; timings?: true }) => locked(() => up(options)));
program
  .command("down")
  .description("shut the machines down; everything is kept")
  .action(() => locked(() => lab.down()));
program
  .command("destroy")
  .description("remove the machines, their disk and the stack's state")
  .option("--cache", "also remove the built images")
  .action((options: { cache?: true }) => locked(() => lab.destroy(options)));
program
  .command("status")
  .description("show the machines and their states")
  .option("--json", "print JSON")
  .action(status);
program
  .command("ssh")
  .argument("<name>", "a machine, or vm", (name) => (name === "vm" ? name : machine(name)))
  .argument("[command...]")
  .passThroughOptions()
  .description("open a shell (or run a command) on a machine by SSH, through its network")
  .action(ssh);
program
  .command("exec")
  .argument("<name>", "a machine", machine)
  .argument("<command...>")
  .passThroughOptions()
  .description(
    "run a command in a machine, even without a network; standard input and exit code are passed through",
  )
  .action(exec);
program
  .command("pulumi")
  .argument("[args...]")
  .passThroughOptions()
  .allowUnknownOption()
  .helpOption(false)
  .description("run pulumi on the lab's stack, e.g. scripts/lab pulumi preview --diff")
  .action(pulumi);
program
  .command("power-cut")
  .argument("<name>", "a machine", machine)
  .description("cut the machine's power: its link goes down, then everything is killed")
  .action((name: string) => lab.powerCut(name));
program
  .command("power-on")
  .argument("<name>", "a machine", machine)
  .description("start it again, with the same disk and addresses")
  .action((name: string) => lab.powerOn(name));
program
  .command("unplug")
  .argument("<name>", "a machine", machine)
  .description("take the machine's link down")
  .action((name: string) => lab.unplug(name));
program
  .command("plug")
  .argument("<name>", "a machine", machine)
  .description("bring the machine's link back")
  .action((name: string) => lab.plug(name));

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(await failureText(error));
    process.exitCode = error instanceof LabError ? 1 : 70;
  }
}
