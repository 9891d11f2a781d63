import { Command } from "commander";
import { changeCommands } from "./commands/change";
import { keepCommands } from "./commands/keep";
import { lookCommands } from "./commands/look";
import { useCommands } from "./commands/use";
import { DEFAULT_STACK } from "./session";

/** The whole command line, ready to be parsed. */
export function clusterProgram(): Command {
  const program = new Command("scripts/cluster")
    .description("Inspects, uses, changes and repairs a deployed cluster.")
    .option("-s, --stack <name>", "the stack", DEFAULT_STACK)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError("For help: scripts/cluster --help, scripts/cluster COMMAND --help")
    .addHelpText(
      "after",
      `
Exit status: 0 all is well, or done; 1 there are findings; 2 the command failed
or was called wrongly; 3 you declined, and nothing was changed. Details and
more examples: scripts/cluster COMMAND --help

Examples:
  scripts/cluster status                        the stack lab, which is the default
  scripts/cluster status --stack onprem --json
  scripts/cluster doctor                        what differs from the deployment, and how to repair it
  scripts/cluster logs --request ID             one request, on every machine that handled it
  scripts/cluster speak "Is anybody there?"     have a sentence spoken through the VIP
  scripts/cluster trace                         the path of one request, with MAC addresses
  scripts/cluster bench                         time twenty sentences
  scripts/cluster where 192.168.1.201           which real server serves that client
  scripts/cluster failover                      move the VIP to the other director
  scripts/cluster ssh rs-1 -- nvidia-smi        run a command on a machine
  scripts/cluster drain rs-2 --reason "new fan" take rs-2 out of the pool; it finishes its queue
  scripts/cluster undrain rs-2                  put it back
  scripts/cluster upgrade                       deploy the speech app of this checkout
  scripts/cluster rollback                      go back to the previous release
  scripts/cluster scale 4 --add rs-4=10.0.0.4   add a real server
  scripts/cluster backup --stack onprem         save what is not in git to one file
  scripts/cluster unlock                        after a pulumi command was killed
  scripts/cluster forget rs-2 --stack onprem    when rs-2 is gone for good`,
    );

  lookCommands(program);
  useCommands(program);
  changeCommands(program);
  keepCommands(program);
  return program;
}
