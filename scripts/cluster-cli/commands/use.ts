import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { bench, describe, renderBench } from "../bench";
import { machineIn } from "../run";
import { agreed, explain, whole, within } from "../session";
import { renderSpoken, reportOf, speak } from "../speak";

/** The lab is nobody's production. */
const LAB = "lab";

/** Commands that use the cluster as its clients do, or log in to it. */
export function useCommands(program: Command): void {
  const speakCommand = program
    .command("speak")
    .argument("<text>", "the text to speak")
    .option("-o, --output <file>", "file for the audio", "speech.wav")
    .option("--voice <id>", "one of GET /v1/voices")
    .option("--seed <number>", "1 to 100000000", whole(1, 100_000_000))
    .option("--fresh", "synthesize it even if the result exists already")
    .option("--json", "print JSON")
    .description("have a text spoken through the VIP")
    .action(
      (text: string, options: { output: string; voice?: string; seed?: number; fresh?: true; json?: true }) =>
        within(program, async ({ inventory, ssh, progress, print }) => {
          const { output: file, voice, seed, json } = options;
          progress.show("having it said");
          const spoken = await speak(inventory, ssh, text, { voice, seed, cache: options.fresh !== true });
          await writeFile(file, spoken.audio);
          print(json ? JSON.stringify(reportOf(file, spoken), undefined, 2) : renderSpoken(file, spoken));
          return "well";
        }),
    );
  explain(speakCommand, {
    exit: "0 it was spoken",
    examples: [
      'speak "Is anybody there?"',
      'speak "Good morning." -o morning.wav --voice en --fresh',
      'speak "Is anybody there?" --fresh --json | jq -r .node',
    ],
  });

  const benchCommand = program
    .command("bench")
    .option("--sentences <number>", "number of sentences in all; 0 for none", whole(0, 10_000), 20)
    .option("--at-once <number>", "number of sentences at the same time", whole(1, 200), 2)
    .option("--characters <number>", "length of a sentence", whole(40, 2000), 120)
    .option(
      "--rate <number>",
      "additional light requests per second (GET /healthz, each on a new connection)",
      whole(0, 200),
      0,
    )
    .option("--seconds <number>", "end after this time, whatever has been done by then", whole(1, 600), 60)
    .option("--yes", "do not ask")
    .option("--json", "print JSON")
    .description("put a limited load on the cluster through its VIP, and measure how it copes")
    .action(
      (options: {
        sentences: number;
        atOnce: number;
        characters: number;
        rate: number;
        seconds: number;
        yes?: true;
        json?: true;
      }) =>
        within(program, async ({ stack, inventory, ssh, progress }) => {
          if (options.sentences === 0 && options.rate === 0)
            throw new Error("Nothing would be asked: give --sentences, or --rate.");
          progress.clear();
          if (stack !== LAB && options.yes !== true) {
            console.log(`${describe(options)}, on the stack ${stack}, whose users wait behind it.`);
            if (!(await agreed("Do that?"))) return "declined";
          }
          const result = await bench(inventory, ssh, options, progress);
          progress.clear();
          console.log(options.json ? JSON.stringify(result, undefined, 2) : renderBench(result));
          return result.kinds.every(({ errors }) => errors === 0) ? "well" : "findings";
        }),
    );
  benchCommand.addHelpText(
    "after",
    `
The load comes from the stack's client machine (verification.client), from all
its addresses in turn, since one address mostly reaches one real server; without
a client machine it comes from this computer. Where only HTTPS is open
(https.plainPort) it uses HTTPS, with the first of apiKeys. Each sentence is new,
and its result stays on the share like any other.`,
  );
  explain(benchCommand, {
    exit: "0 every request succeeded, 1 some did not, 3 you declined",
    examples: [
      "bench",
      "bench --sentences 100 --at-once 8 --stack onprem",
      "bench --sentences 0 --rate 200 --seconds 10 --json",
    ],
  });

  const ssh = program
    .command("ssh")
    .argument("<machine>", "its name")
    .argument("[command...]", "command to run there, after -- (default: a shell)")
    .description("log in to a machine; its host key is checked")
    .action((name: string, command: string[]) =>
      within(program, async ({ inventory, ssh, progress }) => {
        progress.clear();
        process.exitCode = await ssh.session(machineIn(inventory.machines, name).name, command);
        return undefined;
      }),
    );
  explain(ssh, {
    exit: "that of the command",
    examples: ["ssh rs-1", "ssh rs-1 -- nvidia-smi", "ssh director-1 --stack onprem -- ipvsadm -Ln"],
  });
}
