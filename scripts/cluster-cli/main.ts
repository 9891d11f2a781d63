import { CommanderError } from "commander";
import { said } from "../../lab/errors";
import { endWithReader } from "../lib/ending";
import { clusterProgram } from "./program";
import { EXIT, namingStack, stackOf } from "./session";

const program = clusterProgram();
endWithReader();
try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? EXIT.well : EXIT.failed;
  } else {
    const words = said(error);
    console.error(typeof words === "string" ? namingStack(words, stackOf(program)) : words);
    process.exitCode = EXIT.failed;
  }
}
