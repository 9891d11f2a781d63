/** Progress in one line of the terminal that is written over; elsewhere a line for each change. */
export class ProgressLine {
  private shown = "";
  private told = "";

  constructor(private readonly stream: NodeJS.WriteStream = process.stderr) {}

  /**
   * @param text what is going on
   * @param detail changes all the time, such as seconds; only for a terminal.
   */
  show(text: string, detail = ""): void {
    if (this.stream.isTTY) {
      this.shown = `${text}${detail}`.slice(0, (this.stream.columns || 80) - 1);
      this.stream.write(`\r\u001b[K${this.shown}`);
    } else if (text !== this.told) {
      this.stream.write(`${text}\n`);
    }
    this.told = text;
  }

  /** Takes the line away, so that what is printed next stands alone. */
  clear(): void {
    if (this.stream.isTTY && this.shown !== "") this.stream.write("\r\u001b[K");
    this.shown = "";
  }
}
