/** `scripts/pulumi ARGS...`: the resolved pulumi, for any stack of this project. */
import { spawn } from "node:child_process";
import { resolveToolchain } from "./index";

try {
  const { pulumi, env: own, summary } = await resolveToolchain();
  process.stderr.write(`toolchain: ${summary}\n`);
  const args = process.argv.slice(2);
  // One machine that is off must not keep the others from being cleaned.
  const goOn = args.includes("destroy") ? { PULUMI_CONTINUE_ON_ERROR: "true" } : {};
  const env = { ...process.env, ...goOn, ...own };
  const child = spawn(pulumi, args, { stdio: "inherit", env });
  // An interrupt reaches pulumi too, which then ends in its own time: wait for that.
  for (const signal of ["SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("error", (error) => {
    process.stderr.write(`toolchain: ${pulumi} could not be started: ${error.message}\n`);
    process.exitCode = 126;
  });
  child.on("exit", async (code, signal) => {
    process.exitCode = code ?? (signal === "SIGINT" ? 130 : 1);
    if (process.exitCode === 0) return;
    const { lockHint } = await import("./locks");
    const hint = await lockHint(pulumi, args, env);
    if (hint !== undefined) process.stderr.write(`\n${hint}\n`);
  });
} catch (error) {
  process.stderr.write(`toolchain: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
