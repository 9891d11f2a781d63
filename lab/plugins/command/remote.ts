import type { Client, ClientChannel } from "ssh2";
import type { Context } from "./context";
import { type Previous, previousOutput } from "./local";
import { type Connection, connect } from "./ssh";
import { Capture, quote, trimNewline } from "./text";
import type { PropertyMap } from "./values";

/** What a remote command is given. */
export interface RemoteInputs {
  readonly connection: Connection;
  readonly stdin?: string;
  readonly logging?: string;
  readonly environment?: Record<string, string>;
  readonly addPreviousOutputInEnv?: boolean;
}

/** A variable for the command's environment. A refused one is an error, or only worth a warning. */
interface Variable {
  readonly name: string;
  readonly value: string;
  readonly required: boolean;
}

/** The part of ssh2's inner workings that is used below; the version is pinned by the lock file. */
interface Internals {
  readonly _protocol: {
    env(channel: number, name: string, value: string, wantReply: boolean): void;
    exec(channel: number, command: string, wantReply: boolean): void;
  };
  readonly _chanMgr: { get(id: number): { readonly _callbacks: ((failed: boolean | Error) => void)[] } };
}

/**
 * Starts a command after its environment has been set, and hands its channel to `opened` in the same turn of the event
 * loop: a quick command's exit status may lie in the packet that says that it was started, and is told only once.
 *
 * ssh2 sends variables without asking whether the server took them (most take none), and a command must not run
 * without what it was given. So the request to run is held back here until each variable has been answered.
 */
function start<T>(
  client: Client,
  command: string,
  variables: Variable[],
  context: Context,
  opened: (channel: ClientChannel) => Promise<T>,
): Promise<T> {
  const { _protocol: protocol, _chanMgr: channels } = client as unknown as Internals;
  return new Promise((resolve, reject) => {
    const lost = () => reject(new Error("EOF"));
    client.once("close", lost);
    const run = protocol.exec.bind(protocol);
    protocol.exec = (channel, text, wantReply) => {
      protocol.exec = run;
      // One channel in a connection: its number on this side is 0.
      const callbacks = channels.get(0)._callbacks;
      const started = callbacks.pop();
      const next = (index: number): void => {
        const variable = variables[index];
        if (!variable) {
          if (started) callbacks.push(started);
          run(channel, text, wantReply);
          return;
        }
        callbacks.push((failed) => {
          if (failed) {
            context.report(variable.required ? "error" : "warning", environmentHint(variable.name));
            if (variable.required) {
              started?.(
                new Error(`could not set environment variable ${quote(variable.name)}: ssh: setenv failed`),
              );
              return;
            }
          }
          next(index + 1);
        });
        protocol.env(channel, variable.name, variable.value, true);
      };
      next(0);
    };
    client.exec(command, (error, channel) => {
      client.off("close", lost);
      if (error) reject(error);
      else resolve(opened(channel));
    });
  });
}

function environmentHint(name: string): string {
  return (
    `Unable to set '${name}'. The SSH server takes only the variables that its AcceptEnv names. ` +
    `With a Bash-like shell on the remote host, the command itself can set it: '${name}=value command'`
  );
}

const SIGNALS: Readonly<Record<string, number>> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ABRT: 6,
  KILL: 9,
  SEGV: 11,
  PIPE: 13,
  TERM: 15,
};

/** Feeds a command, keeps what it writes, and waits for its end: what went wrong, or undefined. */
function finish(channel: ClientChannel, stdin: string, capture: Capture): Promise<string | undefined> {
  return new Promise((resolve) => {
    let outcome: string | undefined = "wait: remote command exited without exit status or exit signal";
    channel.on("data", (chunk: Buffer) => capture.write("stdout", chunk));
    channel.stderr.on("data", (chunk: Buffer) => capture.write("stderr", chunk));
    channel.on("exit", (code: number | null, signal?: string, _dumped?: string, description?: string) => {
      if (code === 0) outcome = undefined;
      else if (code !== null) outcome = `Process exited with status ${code}`;
      else {
        const name = (signal ?? "").replace(/^SIG/, "");
        const reason = description ? `. Reason was: ${description}` : "";
        outcome = `Process exited with status ${128 + (SIGNALS[name] ?? 0)} from signal ${name}${reason}`;
      }
    });
    channel.on("close", () => resolve(outcome));
    // A command that ends without having read its input is no error.
    channel.on("error", () => undefined);
    channel.end(stdin);
  });
}

/** Runs a command on another machine and returns its outputs. */
export async function runRemotely(
  command: string,
  inputs: RemoteInputs,
  previous: Previous,
  context: Context,
): Promise<PropertyMap> {
  const variables: Variable[] = [
    ...Object.entries(inputs.environment ?? {}).map(([name, value]) => ({ name, value, required: true })),
    ...previousOutput(inputs, previous).map(([name, value]) => ({ name, value, required: false })),
  ];
  const session = await connect(inputs.connection, context);
  try {
    const capture = new Capture(inputs.logging, context.status);
    const failure = await start(session.client, command, variables, context, (channel) =>
      finish(channel, inputs.stdin ?? "", capture),
    );
    capture.end();
    if (failure) throw new Error(`${failure}: running ${quote(command)}:\n${capture.text("both")}`);
    return { stdout: trimNewline(capture.text("stdout")), stderr: trimNewline(capture.text("stderr")) };
  } finally {
    session.close();
  }
}
