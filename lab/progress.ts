import { readFile } from "node:fs/promises";
import pc from "picocolors";
import { LabError, reason } from "./errors";

/** How long a step took. */
export interface Timing {
  readonly step: string;
  /** s */
  readonly seconds: number;
}

/**
 * Shows steps with their elapsed time on standard error: on a terminal the current one in place, else one line per
 * step when it ends. A failing step shows the tail of its log and what to do.
 */
export class Progress {
  readonly timings: Timing[] = [];
  private readonly began = Date.now();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  /**
   * Runs one step.
   *
   * @param work gets a function that shows what the step is at
   * @throws what `work` throws, after the step was shown as failed.
   */
  async step<T>(name: string, work: (note: (text: string) => void) => Promise<T>): Promise<T> {
    const start = Date.now();
    let note = "";
    const inPlace = this.stream.isTTY;
    const show = () => {
      const details = `${elapsed(start)} ${note}`.slice(
        0,
        Math.max(0, (this.stream.columns || 80) - name.length - 4),
      );
      this.stream.write(`\r\u001b[K  ${name} ${pc.dim(details)}`);
    };
    this.timer = inPlace ? setInterval(show, 200) : undefined;
    if (inPlace) show();
    const finish = (mark: string) => {
      this.pause();
      this.stream.write(`${mark} ${name} ${pc.dim(`${elapsed(start)}${note === "" ? "" : `  ${note}`}`)}\n`);
      this.timings.push({ step: name, seconds: (Date.now() - start) / 1000 });
    };
    try {
      const result = await work((text) => {
        note = text;
      });
      finish(pc.green("✓"));
      return result;
    } catch (error) {
      finish(pc.red("✗"));
      throw error;
    }
  }

  /** Leaves the terminal to the step's own output, until the step ends. */
  pause(): void {
    clearInterval(this.timer);
    if (this.stream.isTTY) this.stream.write("\r\u001b[K");
  }

  /** Shows a line that stays. */
  say(text: string): void {
    this.stream.write(`${this.stream.isTTY ? "\r\u001b[K" : ""}  ${text}\n`);
  }

  /** A table of the steps and their times. */
  table(): string {
    const rows = [...this.timings, { step: "total", seconds: (Date.now() - this.began) / 1000 }];
    const width = Math.max(...rows.map(({ step }) => step.length));
    return rows
      .map(({ step, seconds }) => `${step.padEnd(width)}  ${seconds.toFixed(1).padStart(7)} s`)
      .join("\n");
  }
}

/** What the user gets to see of a failure: the log's tail, what was wrong, what to do. */
export async function failureText(error: unknown): Promise<string> {
  const parts: string[] = [];
  if (error instanceof LabError && error.log !== undefined) {
    const log = await readFile(error.log, "utf8").catch(() => "");
    const tail = log.trimEnd().split("\n").slice(-20);
    if (tail.join("") !== "")
      parts.push(pc.dim(`${error.log}:\n${tail.map((line) => `  | ${line}`).join("\n")}`));
  }
  parts.push(`${pc.red("lab:")} ${reason(error)}`);
  if (error instanceof LabError) parts.push(error.fix);
  return parts.join("\n");
}

function elapsed(start: number): string {
  return `${((Date.now() - start) / 1000).toFixed(1)} s`;
}
