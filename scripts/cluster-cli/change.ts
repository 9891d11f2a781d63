import { renderRadius } from "../preview-cli/render";
import type { ProgressLine } from "./progress";
import { deploy, preview } from "./pulumi";
import { agreed, namingStack, type Outcome } from "./session";
import type { StackFile } from "./stackFile";

export interface ChangeOptions {
  /** Go without asking. */
  readonly yes: boolean;
  /** Standard output is for a program: all words go to standard error. */
  readonly json: boolean;
  /** What is going to happen, besides what a preview says. */
  readonly announcement: string;
  /** How to take the change back when its deployment fails. */
  readonly back: string;
}

/** Pulumi's words for what changes nothing. */
const IDLE = new Set(["same", "read", "refresh"]);

/**
 * Deploys a changed stack file: previews it, shows what would happen, asks, and only then writes it. Until then the file is as
 * it was, whatever happens.
 *
 * @returns `well` when it was deployed, or nothing was to be done.
 * @throws with the program's words when the preview refuses the change.
 */
export async function change(
  stack: string,
  file: StackFile,
  { yes, json, announcement, back }: ChangeOptions,
  progress: ProgressLine,
): Promise<Outcome> {
  const say = json ? console.error : console.log;
  progress.show("previewing: nothing is touched yet");
  const previewed = await preview(stack, file.text);
  const idle = previewed.steps.every(({ op }) => IDLE.has(op));
  progress.clear();
  say(announcement);
  if (idle && !file.changed) {
    say("Nothing is to be done: the cluster is as the stack file and this checkout say.");
    return "well";
  }
  say(idle ? `No resource would change, only ${file.path}.` : `\n${renderRadius(stack, previewed)}`);
  if (!yes && !(await agreed("Deploy that?"))) {
    say("Nothing was changed.");
    return "declined";
  }
  if (file.changed) await file.save();
  const start = Date.now();
  if (!(await deploy(stack, json))) {
    console.error(
      namingStack(
        `\nThe deployment failed; its messages are above. ${file.path} has the new values: pulumi up tries again. To go back: ${back}`,
        stack,
      ),
    );
    return "failed";
  }
  say(`\nDeployed in ${Math.round((Date.now() - start) / 1000)} s.`);
  return "well";
}
