/** Every workflow of GitHub's, read by actionlint, which has shellcheck read the commands in them. */
import { execa } from "execa";
import { repository } from "../lib/paths";
import { resolveActionlint } from "../toolchain/actionlint";

const actionlint = await resolveActionlint((line) => console.log(line));
const { exitCode } = await execa(actionlint, ["-no-color"], {
  cwd: repository,
  reject: false,
  stdio: "inherit",
});
process.exitCode = exitCode ?? 1;
