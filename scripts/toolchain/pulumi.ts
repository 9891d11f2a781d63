/** `scripts/pulumi ARGS...`: the resolved pulumi, for any stack of this project. */
import { spawn } from "node:child_process";
import { resolveToolchain } from "./index";

try {
  const { pulumi, env, summary } = await resolveToolchain();
  process.stderr.write(`toolchain: ${summary}\n`);
  const child = spawn(pulumi, process.argv.slice(2), { stdio: "inherit", env: { ...process.env, ...env } });
  // An interrupt reaches pulumi too, which then ends in its own time: wait for that.
  for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("error", (error) => {
    process.stderr.write(`toolchain: ${pulumi} could not be started: ${error.message}\n`);
    process.exitCode = 126;
  });
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? (signal === "SIGINT" ? 130 : 1);
  });
} catch (error) {
  process.stderr.write(`toolchain: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
