/** Milliseconds after which what is still going on takes long. */
const SLOW = 2000;

/**
 * Progress in one line of the terminal that is written over, with the time that it has taken once that is long; elsewhere a line for
 * each step that takes long.
 */
export class ProgressLine {
  private shown = "";
  private told = "";
  private detail = "";
  private since = Date.now();
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  /**
   * @param text what is going on
   * @param detail changes all the time, such as a count; only for a terminal.
   */
  show(text: string, detail = ""): void {
    this.detail = detail;
    if (text !== this.told) {
      this.told = text;
      this.since = Date.now();
      clearInterval(this.timer);
      // It must not keep a program alive that has nothing else to do.
      this.timer = this.stream.isTTY
        ? setInterval(() => this.draw(), 1000).unref()
        : setTimeout(() => this.stream.write(`${text}\n`), SLOW).unref();
    }
    if (this.stream.isTTY) this.draw();
  }

  /** Takes the line away, so that what is printed next stands alone. */
  clear(): void {
    clearInterval(this.timer);
    if (this.stream.isTTY && this.shown !== "") this.stream.write("\r\u001b[K");
    this.shown = "";
    this.told = "";
  }

  private draw(): void {
    const passed = Date.now() - this.since;
    const elapsed = passed < SLOW ? "" : `, ${Math.floor(passed / 1000)} s`;
    this.shown = `${this.told}${this.detail}${elapsed}`.slice(0, (this.stream.columns || 80) - 1);
    this.stream.write(`\r\u001b[K${this.shown}`);
  }
}
