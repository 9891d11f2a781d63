import { execFile } from "node:child_process";
import type { Problem } from "../config/problems";
import { isCommit } from "../config/schema";

/** Seconds until a git server that does not answer is given up. */
const LIMIT = 30;

/**
 * The commit that a ref means now. A branch or a tag is looked up at the repository, once, so that all machines of a
 * deployment get the same.
 *
 * @returns the commit, or what is wrong with `app.ref` or `app.source`.
 */
export async function findCommit(source: string, ref: string): Promise<string | Problem> {
  if (isCommit(ref)) return ref;
  const { said, failed } = await git([
    "ls-remote",
    "--",
    source,
    `refs/heads/${ref}`,
    `refs/tags/${ref}`,
    `refs/tags/${ref}^{}`,
  ]);
  if (failed !== undefined) {
    return {
      path: "app.source",
      value: source,
      message: `cannot be asked which commit ${ref} is (${failed})`,
      fix: "make sure that this computer reaches it without a password prompt, or write a commit in app.ref",
    };
  }
  const found = new Map(
    said
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => line.split("\t").reverse() as [string, string]),
  );
  const branch = found.get(`refs/heads/${ref}`);
  // An annotated tag is an object of its own; the line with ^{} has what it is put on.
  const tag = found.get(`refs/tags/${ref}^{}`) ?? found.get(`refs/tags/${ref}`);
  if (branch !== undefined && tag !== undefined && branch !== tag) {
    return {
      path: "app.ref",
      value: ref,
      message: `is a branch (${branch}) and a tag (${tag}) of ${source}`,
      fix: "write the commit that you mean",
    };
  }
  return (
    branch ??
    tag ?? {
      path: "app.ref",
      value: ref,
      message: `is neither a branch nor a tag of ${source}`,
      fix: "correct it, or write a commit of 40 hexadecimal digits",
    }
  );
}

function git(args: readonly string[]): Promise<{ readonly said: string; readonly failed?: string }> {
  const env = { ...process.env, GIT_TERMINAL_PROMPT: "0", GIT_SSH_COMMAND: "ssh -o BatchMode=yes" };
  return new Promise((resolve) => {
    execFile("git", args, { env, timeout: LIMIT * 1000, killSignal: "SIGKILL" }, (error, stdout, stderr) => {
      if (error === null) resolve({ said: stdout });
      else if (error.killed) resolve({ said: "", failed: `no answer within ${LIMIT} s` });
      else resolve({ said: "", failed: reasonIn(stderr) ?? error.message });
    });
  });
}

/** What git says is wrong: its first line, for its last one is general advice. A warning of SSH may stand before it. */
function reasonIn(stderr: string): string | undefined {
  return stderr.split("\n").find((line) => line.trim() !== "" && !/^warning:/i.test(line));
}
