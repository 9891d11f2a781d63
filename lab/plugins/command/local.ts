import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import type { Context } from "./context";
import { Capture, quote, trimNewline } from "./text";
import { assetArchive, fileAsset, type PropertyMap } from "./values";

/** What a local command is given. */
export interface LocalInputs {
  readonly stdin?: string;
  readonly logging?: string;
  readonly interpreter?: string[];
  readonly dir?: string;
  readonly environment?: Record<string, string>;
  readonly assetPaths?: string[];
  readonly archivePaths?: string[];
  readonly addPreviousOutputInEnv?: boolean;
}

/** The outputs of the run before, for the next command's environment. */
export interface Previous {
  readonly stdout?: string;
  readonly stderr?: string;
}

/** The environment variables that carry the run before. An empty output is not passed on. */
export function previousOutput(
  inputs: { addPreviousOutputInEnv?: boolean },
  previous: Previous,
): [string, string][] {
  if (inputs.addPreviousOutputInEnv === false) return [];
  const variables: [string, string][] = [];
  if (previous.stdout) variables.push(["PULUMI_COMMAND_STDOUT", previous.stdout]);
  if (previous.stderr) variables.push(["PULUMI_COMMAND_STDERR", previous.stderr]);
  return variables;
}

const SIGNALS: Readonly<Record<string, string>> = {
  SIGHUP: "hangup",
  SIGINT: "interrupt",
  SIGQUIT: "quit",
  SIGABRT: "aborted",
  SIGKILL: "killed",
  SIGSEGV: "segmentation fault",
  SIGPIPE: "broken pipe",
  SIGTERM: "terminated",
};

function startError(error: NodeJS.ErrnoException, program: string, dir: string): string {
  if (!existsSync(dir)) return `chdir ${dir}: no such file or directory`;
  if (error.code === "ENOENT" && !program.includes("/")) {
    return `exec: ${quote(program)}: executable file not found in $PATH`;
  }
  const reasons: Record<string, string> = {
    ENOENT: "no such file or directory",
    EACCES: "permission denied",
  };
  return `fork/exec ${program}: ${reasons[error.code ?? ""] ?? error.message}`;
}

/** Runs a command on this machine and returns its outputs. */
export async function runLocally(
  command: string,
  inputs: LocalInputs,
  previous: Previous,
  context: Context,
): Promise<PropertyMap> {
  const interpreter = inputs.interpreter?.length ? inputs.interpreter : ["/bin/sh", "-c"];
  const [program = "/bin/sh", ...args] = [...interpreter, command];
  const dir = inputs.dir ?? process.cwd();
  const capture = new Capture(inputs.logging, context.status);
  const env = {
    ...process.env,
    ...inputs.environment,
    ...Object.fromEntries(previousOutput(inputs, previous)),
  };

  const failure = await new Promise<string | undefined>((resolve) => {
    const child = spawn(program, args, {
      cwd: dir,
      env,
      stdio: [inputs.stdin ? "pipe" : "ignore", "pipe", "pipe"],
    });
    const kill = () => child.kill("SIGKILL");
    context.signal.addEventListener("abort", kill, { once: true });
    child.stdout?.on("data", (chunk: Buffer) => capture.write("stdout", chunk));
    child.stderr?.on("data", (chunk: Buffer) => capture.write("stderr", chunk));
    // A command that ends without having read its input is no error.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(inputs.stdin);
    child.on("error", (error) => resolve(startError(error, program, dir)));
    child.on("close", (code, signal) => {
      context.signal.removeEventListener("abort", kill);
      if (signal) resolve(`signal: ${SIGNALS[signal] ?? signal}`);
      else resolve(code === 0 ? undefined : `exit status ${code}`);
    });
  });
  capture.end();
  if (failure) throw new Error(`${failure}: running ${quote(command)}:\n${capture.text("both")}`);

  const outputs: PropertyMap = {
    stdout: trimNewline(capture.text("stdout")),
    stderr: trimNewline(capture.text("stderr")),
  };
  if (inputs.assetPaths) outputs.assets = await collect(dir, inputs.assetPaths);
  if (inputs.archivePaths) outputs.archive = assetArchive(await collect(dir, inputs.archivePaths));
  return outputs;
}

/** A path pattern as a regular expression: `*` and `?` stay within a folder, `**` crosses folders, `{a,b}` chooses. */
export function globToRegExp(glob: string): RegExp {
  let depth = 0;
  const source = glob.replace(/\*\*|\\.|[\s\S]/g, (token) => {
    switch (token) {
      case "**":
        return ".*";
      case "*":
        return "[^/]*";
      case "?":
        return "[^/]";
      case "{":
        depth++;
        return "(?:";
      case "}":
        depth--;
        return ")";
      case ",":
        return depth > 0 ? "|" : ",";
      case "[":
      case "]":
      case "-":
        return token;
      case "!":
        return "^";
      default:
        return token.startsWith("\\") ? token : token.replace(/[.+^$()|/]/, "\\$&");
    }
  });
  return new RegExp(`^${source}$`, "s");
}

async function collect(dir: string, patterns: readonly string[]): Promise<PropertyMap> {
  const rules = patterns.map((pattern) => ({
    exclude: pattern.startsWith("!"),
    matcher: globToRegExp(pattern.replace(/^!/, "")),
  }));
  const assets: PropertyMap = {};
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const file = join(entry.parentPath, entry.name);
    const path = relative(dir, file).split(sep).join("/");
    // The last rule that matches decides.
    const rule = rules.findLast(({ matcher }) => matcher.test(path));
    if (!rule || rule.exclude) continue;
    const hash = createHash("sha256")
      .update(await readFile(file))
      .digest("hex");
    assets[path] = fileAsset(file, hash);
  }
  return assets;
}
