import { StringDecoder } from "node:string_decoder";

const ESCAPES: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
  '"': '\\"',
};

/** A text in double quotes, escaped the way the real plugin's errors show a command. */
export function quote(text: string): string {
  const body = Array.from(text, (char) => {
    const escaped = ESCAPES[char];
    if (escaped) return escaped;
    if (char === " " || /[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(char)) return char;
    const code = char.codePointAt(0) ?? 0;
    const hex = code.toString(16);
    if (code < 0x80) return `\\x${hex.padStart(2, "0")}`;
    return code > 0xffff ? `\\U${hex.padStart(8, "0")}` : `\\u${hex.padStart(4, "0")}`;
  });
  return `"${body.join("")}"`;
}

/** One newline at the end is a habit of programs, not part of what they say. */
export function trimNewline(text: string): string {
  return text.endsWith("\n") ? text.slice(0, -1) : text;
}

/** A longer line is cut in the log (never in an output): the log is for people. */
const LONGEST_LINE = 64 * 1024;

/** Cuts a stream into lines and hands each to `log` as soon as it is complete. */
export class LineLogger {
  private rest = "";

  constructor(private readonly log: (line: string) => void) {}

  write(text: string): void {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.emit(line);
  }

  end(): void {
    if (this.rest !== "") this.emit(this.rest);
    this.rest = "";
  }

  private emit(line: string): void {
    this.log(line.replace(/\r$/, "").slice(0, LONGEST_LINE));
  }
}

/** Which of a command's two streams is shown while it runs. Anything unknown shows nothing, as in the real plugin. */
export function shows(logging: string | undefined, stream: "stdout" | "stderr"): boolean {
  return logging === undefined || logging === stream || logging === "stdoutAndStderr";
}

/**
 * Keeps what a command writes: each stream for the outputs, both in order of arrival for an error message, and the
 * lines that are to be shown for the engine.
 */
export class Capture {
  private readonly chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[], both: [] as Buffer[] };
  private readonly decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
  private readonly lines: LineLogger;

  constructor(
    private readonly logging: string | undefined,
    log: (line: string) => void,
  ) {
    this.lines = new LineLogger(log);
  }

  write(stream: "stdout" | "stderr", chunk: Buffer): void {
    this.chunks[stream].push(chunk);
    this.chunks.both.push(chunk);
    if (shows(this.logging, stream)) this.lines.write(this.decoders[stream].write(chunk));
  }

  end(): void {
    this.lines.end();
  }

  text(stream: "stdout" | "stderr" | "both"): string {
    return Buffer.concat(this.chunks[stream]).toString("utf8");
  }
}
