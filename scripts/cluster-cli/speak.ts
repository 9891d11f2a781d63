import { execa } from "execa";
import type { OpenSsh } from "../../components/remote/openssh";
import type { Inventory } from "./inventory";

export interface SpeakOptions {
  /** @default auto */
  readonly voice?: string | undefined;
  /** 1 to 100000000. @default 1 */
  readonly seed?: number | undefined;
  /** Whether a result that is there already will do. @default true */
  readonly cache?: boolean;
}

/** What came back, and from where. */
export interface Spoken {
  readonly audio: Buffer;
  /** Real server that answered, and the id by which its logs know the request. */
  readonly node: string;
  readonly request: string;
  readonly cache: string;
  /** s of audio; s until it was here */
  readonly seconds: number;
  readonly took: number;
}

/**
 * Asks the cluster for a sentence through its VIP: from the client machine where the stack has one, else from this computer.
 *
 * @throws with the service's or curl's own words.
 */
export async function speak(
  { vip, port, machines }: Inventory,
  ssh: OpenSsh,
  text: string,
  { voice, seed, cache = true }: SpeakOptions = {},
): Promise<Spoken> {
  const body = { model: "cosyvoice3", input: text, ...(voice ? { voice } : {}), ...(seed ? { seed } : {}) };
  // Text only on standard output, which is the audio as base64; headers on standard error.
  const command = [
    `curl --silent --show-error --max-time 300 --dump-header /dev/stderr --data-binary @-`,
    `--header 'Content-Type: application/json'`,
    ...(cache ? [] : [`--header 'Cache-Control: no-cache'`]),
    `http://${vip}:${port}/v1/audio/speech | base64`,
  ].join(" ");
  const client = machines.find(({ role }) => role === "client");
  const input = JSON.stringify(body);
  const start = Date.now();
  const { stdout, stderr } = client
    ? await ssh.run(client.name, command, { input, timeout: 310 })
    : await execa("sh", ["-c", command], { input, reject: false });
  const took = (Date.now() - start) / 1000;
  const audio = Buffer.from(stdout, "base64");
  const header = (name: string) => new RegExp(`^${name}: *(.*?)\\r?$`, "im").exec(stderr)?.[1] ?? "";
  const status = /^HTTP\/\S+ (\d+)/m.exec(stderr)?.[1];
  if (status === undefined)
    throw new Error(
      `Nobody answers at ${vip}:${port}: ${stderr.trim().split("\n").at(-1)}. scripts/cluster doctor looks for the reason.`,
    );
  if (status !== "200")
    throw new Error(`${header("x-served-by") || vip} answered ${status}: ${audio.toString("utf8").trim()}`);
  return {
    audio,
    node: header("x-served-by"),
    request: header("x-request-id"),
    cache: header("x-cache"),
    seconds: Number(header("x-result-seconds")),
    took,
  };
}
