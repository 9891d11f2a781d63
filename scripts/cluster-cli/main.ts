import { CommanderError } from "commander";
import { said } from "../../lab/errors";
import { clusterProgram } from "./program";
import { EXIT } from "./session";

try {
  await clusterProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.well : EXIT.failed;
  } else {
    console.error(said(error));
    process.exitCode = EXIT.failed;
  }
}
