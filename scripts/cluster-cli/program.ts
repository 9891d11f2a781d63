import { Command } from "commander";
import { changeCommands } from "./commands/change";
import { keepCommands } from "./commands/keep";
import { lookCommands } from "./commands/look";
import { useCommands } from "./commands/use";
import { DEFAULT_STACK } from "./session";

/** The whole command line, ready to be parsed. */
export function clusterProgram(): Command {
  const program = new Command("scripts/cluster")
    .description("Shows, uses, changes and repairs a deployed cluster.")
    .option("-s, --stack <name>", "the stack", DEFAULT_STACK)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError("What there is: scripts/cluster --help, scripts/cluster COMMAND --help")
    .addHelpText(
      "after",
      `
Exit status: 0 all is well, or done; 1 there are findings; 2 the command failed,
or was called wrongly; 3 you said no, and nothing was changed. What that means
for a command, and more examples: scripts/cluster COMMAND --help

Examples:
  scripts/cluster status                        the lab
  scripts/cluster status --stack onprem --json
  scripts/cluster doctor                        what is not as it was deployed, and how to mend it
  scripts/cluster logs --request ID             one request, on every machine that had to do with it
  scripts/cluster speak "Is anybody there?"     a sentence through the VIP
  scripts/cluster trace                         one request's way through the network, with MACs
  scripts/cluster bench                         twenty sentences, and how long they took
  scripts/cluster where 192.168.1.201           which real server that client meets
  scripts/cluster failover                      the VIP to the other director
  scripts/cluster ssh rs-1 -- nvidia-smi        a command on a machine
  scripts/cluster drain rs-2 --reason "new fan" out of the pool, its queue finished
  scripts/cluster undrain rs-2                  and back
  scripts/cluster upgrade                       the speech app of this checkout, node by node
  scripts/cluster rollback                      the release before this one
  scripts/cluster scale 4 --add rs-4=10.0.0.4   one more real server
  scripts/cluster backup --stack onprem         what is not in git, into one file
  scripts/cluster unlock                        after a pulumi that was killed
  scripts/cluster forget rs-2 --stack onprem    rs-2 is gone for good`,
    );

  lookCommands(program);
  useCommands(program);
  changeCommands(program);
  keepCommands(program);
  return program;
}
