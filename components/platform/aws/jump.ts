import { connect } from "node:net";

/** Milliseconds that a director may take to open a connection. */
const LIMIT = 3000;

/**
 * The director through which the others are reached: the first one that answers. Where none does, or there is none yet, it is the
 * first, whose silence will then be reported.
 *
 * @param addresses by director, those that there are.
 */
export async function answeringDirector(
  directors: readonly string[],
  addresses: Readonly<Record<string, string>>,
  port = 22,
): Promise<string> {
  const answers = await Promise.all(
    directors.map(async (director) => {
      const address = addresses[director];
      return address !== undefined && (await opens(address, port)) ? director : undefined;
    }),
  );
  return answers.find((director) => director !== undefined) ?? directors[0] ?? "";
}

function opens(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(LIMIT, () => end(false));
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}
