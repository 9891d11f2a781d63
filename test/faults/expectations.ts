import { homes, type Log } from "../../lab/load/summary";
import { machines } from "../../lab/machines";
import type { Expectations, Measured } from "./fault";

const realServers = machines.filter(({ role }) => role === "realServer").length;

/**
 * The expectations that do not hold, in words.
 *
 * @param judgeTimes whether times are judged and what hangs on them (a late answer takes a real server out for a while, and
 * moves its addresses), or only that nothing was lost and what must happen has happened: on a computer that does other things
 * as well, the rest says nothing.
 */
export function broken(
  expect: Expectations,
  found: Measured,
  hitsRealServer: boolean,
  judgeTimes: boolean,
): string[] {
  const { summary } = found;
  const wrong: string[] = [];
  const within = (what: string, value: number | null, limit: number | undefined) =>
    atMost(what, value, limit === undefined || judgeTimes ? limit : Number.POSITIVE_INFINITY, " s");
  const atMost = (what: string, value: number | null, limit: number | undefined, unit = "") => {
    if (limit === undefined) return;
    if (value === null) wrong.push(`${what}: never, at most ${limit}${unit} expected`);
    else if (!(value <= limit))
      wrong.push(`${what}: ${Math.round(value * 1000) / 1000}${unit}, at most ${limit}${unit} expected`);
  };
  atMost("requests lost", summary.lost, expect.lost ?? 0);
  atMost("requests lost that no dead server explains", found.strays, expect.strays);
  if (judgeTimes) atMost("requests slow", summary.slow, expect.slow);
  within("nobody was served for", summary.gap, expect.gap);
  const moved = `of ${summary.sources} source addresses served by another real server`;
  if (judgeTimes) atMost(moved, summary.moved, expect.moved);
  atMost("event streams broken", summary.streamsBroken, expect.streamsBroken ?? 0);
  atMost("syntheses lost", summary.synthesesLost, expect.synthesesLost ?? 0);
  if (hitsRealServer) {
    within("out of the pool after", found.out, expect.out);
    within("back in the pool after", found.back, expect.back);
  } else within("as before after", found.back, expect.back);
  within("exactly one holder after the fault within", found.oneHolder[0], expect.oneHolder);
  within("exactly one holder after its end within", found.oneHolder[1], expect.oneHolder);
  if (judgeTimes) atMost("moves of the VIP", found.moves, expect.moves);
  if (judgeTimes && expect.poolStays && found.fewest < realServers)
    wrong.push(`the pool: ${found.fewest} of ${realServers} at a time, all expected`);
  if ((expect.poolNeverEmpty ?? true) && found.fewest < 1) wrong.push("the pool was empty");
  if (expect.clearErrors && summary.synthesesLost > summary.synthesesRefused)
    wrong.push(
      `syntheses that failed without a clear answer: ${summary.synthesesLost - summary.synthesesRefused}`,
    );
  if (summary.stall > (judgeTimes ? 2 : 5))
    wrong.push(`the client itself stood still for ${summary.stall.toFixed(1)} s: nothing is proved`);
  return wrong;
}

/**
 * How many light requests were lost that the fault of one real server does not explain: of another one's share, or sent when
 * it was out of the pool.
 *
 * @param node the real server that was hit @param fell when @param out how long after that it was out
 */
export function strays(log: Log, node: string, fell: number, out: number | null): number {
  const home = homes(log.attempts, fell);
  // The holder's table is looked at four times a second.
  const late = fell + (out ?? Number.POSITIVE_INFINITY) + 0.25;
  return log.attempts.filter(
    ({ kind, result, source, start }) =>
      (kind === "request" || kind === "kept") &&
      result === "lost" &&
      ((home.get(source) ?? node) !== node || start > late),
  ).length;
}
