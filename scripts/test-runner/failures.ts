import { plain } from "./count";
import type { Step } from "./steps";

/** Of a step: whoever reads the end of a run must see all that failed in it, and the rest is above. */
const TESTS = 8;
/** Of a test's message. */
const LINES = 6;
/** Of a line. */
const WIDTH = 200;

/** What failed of a step, for the end of a run: its tests with the first lines of what they said, else what its program said last. */
export function failures(kind: Step["counts"], output: string): readonly string[] {
  const text = plain(output).replaceAll("\r", "");
  const found = kind === "mocha" ? ofMocha(text) : kind === "pytest" ? ofPytest(text) : [];
  if (found.length === 0) return lines(text).slice(-TESTS).map(cut);
  const more = found.length - TESTS;
  return [...found.slice(0, TESTS).flat(), ...(more > 0 ? [`and ${more} more`] : [])];
}

/** The list after `N failing`: a title of several lines, of which the last one ends with a colon; then the error. */
function ofMocha(text: string): string[][] {
  const list = text.split(/^ {2}\d+ failing$/m).at(-1) ?? "";
  if (list === text) return [];
  return list
    .split(/^ {2}(?=\d+\) )/m)
    .slice(1)
    .map((test) => {
      const [, title = "", message = ""] = /^([\s\S]*?):\n([\s\S]*)$/.exec(test) ?? [undefined, test];
      const said = lines(message).filter((line) => !/^\s+at /.test(line));
      return [
        cut(
          lines(title)
            .map((line) => line.trim())
            .join(" > "),
        ),
        ...said.slice(0, LINES).map(cut),
      ];
    });
}

/** The lines of the short summary. */
function ofPytest(text: string): string[][] {
  return lines(text)
    .filter((line) => /^(FAILED|ERROR) \S+::/.test(line))
    .map((line) => [cut(line)]);
}

/** Those with something in them. */
function lines(text: string): string[] {
  return text.split("\n").filter((line) => line.trim() !== "");
}

function cut(line: string): string {
  return line.length <= WIDTH ? line : `${line.slice(0, WIDTH - 3)}...`;
}
