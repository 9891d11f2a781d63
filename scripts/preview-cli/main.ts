import { Command, CommanderError } from "commander";
import { said } from "../../lab/errors";
import { ProgressLine } from "../cluster-cli/progress";
import { runPulumi } from "../cluster-cli/pulumi";
import { endWithReader } from "../lib/ending";
import { renderMarkdown, renderText } from "./render";
import { runPreview } from "./run";

const program = new Command("scripts/preview")
  .description(
    "Shows what a deployment would do to every machine and to clients, line by line. Changes nothing.",
  )
  .option("-s, --stack <name>", "the stack", process.env.PULUMI_STACK ?? "lab")
  .option("--markdown", "print Markdown, as for the comment on a pull request")
  .option("--full", "show the whole diff, including what stays the same")
  .exitOverride()
  .addHelpText(
    "after",
    `
Exit status: 0 it can be deployed, 1 it cannot (a mistake, or a rule of policy/ is broken), 2 usage error.

Examples:
  scripts/preview                              the lab, after a change of Pulumi.lab.yaml
  scripts/preview --stack onprem
  scripts/preview --stack prod --markdown      what the pull request's comment shows`,
  );

endWithReader();
try {
  program.parse();
  const { stack, markdown, full } = program.opts<{ stack: string; markdown?: true; full?: true }>();
  const progress = new ProgressLine();
  progress.show(`previewing ${stack}`);
  const preview = await runPreview((args) => runPulumi(stack, args)).finally(() => progress.clear());
  console.log(markdown ? renderMarkdown(stack, preview) : renderText(stack, preview, full === true));
  process.exitCode = preview.passed ? 0 : 1;
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : 2;
  } else {
    console.error(said(error));
    process.exitCode = 1;
  }
}
