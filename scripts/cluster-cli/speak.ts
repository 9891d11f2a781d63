import { execa } from "execa";
import type { OpenSsh } from "../../components/remote/openssh";
import { pinOf } from "../../config/certificate";
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
 * Asks the cluster for a sentence through its VIP, as clients are told to: by HTTPS where that is on. From the client machine
 * where the stack has one, else from this computer.
 *
 * @throws with the service's or curl's own words.
 */
export async function speak(
  inventory: Inventory,
  ssh: OpenSsh,
  text: string,
  { voice, seed, cache = true }: SpeakOptions = {},
): Promise<Spoken> {
  const { vip, machines, https } = inventory;
  const port = https?.port ?? inventory.port;
  const body = { model: "cosyvoice3", input: text, ...(voice ? { voice } : {}), ...(seed ? { seed } : {}) };
  // Standard output may only be text: headers and audio as base64.
  const command = "curl --config - | base64";
  const input = curlConfig({
    silent: true,
    "show-error": true,
    "max-time": 300,
    include: true,
    header: [
      "Content-Type: application/json",
      ...(cache ? [] : ["Cache-Control: no-cache"]),
      ...(https?.apiKey === undefined ? [] : [`Authorization: Bearer ${https.apiKey}`]),
    ],
    "data-binary": JSON.stringify(body),
    ...(https === undefined
      ? { url: `http://${vip}:${port}/v1/audio/speech` }
      : {
          url: `https://${https.serverName}:${port}/v1/audio/speech`,
          "connect-to": `::${vip}:${port}`,
          // Its key is known: whose word clients take for it need not be known here.
          insecure: true,
          pinnedpubkey: `sha256//${pinOf(https.certificate)}`,
        }),
  });
  const client = machines.find(({ role }) => role === "client");
  const start = Date.now();
  const { stdout, stderr } = client
    ? await ssh.run(client.name, command, { input, timeout: 310 })
    : await execa("sh", ["-c", command], { input, reject: false });
  const took = (Date.now() - start) / 1000;
  const answer = Buffer.from(stdout, "base64");
  const end = answer.indexOf("\r\n\r\n");
  const [headers, audio] = [answer.subarray(0, end).toString("latin1"), answer.subarray(end + 4)];
  const header = (name: string) => new RegExp(`^${name}: *(.*?)\\r?$`, "im").exec(headers)?.[1] ?? "";
  const status = /^HTTP\/\S+ (\d+)/.exec(headers)?.[1];
  if (status === undefined)
    throw new Error(
      `Nobody answers at ${vip}:${port}: ${stderr.trim().split("\n").at(-1)}. scripts/cluster doctor looks for the reason.`,
    );
  if (status !== "200") {
    const request = header("x-request-id");
    const more = request === "" ? "" : ` More: scripts/cluster logs --request ${request}`;
    throw new Error(
      `${header("x-served-by") || vip} answered ${status}: ${reasonIn(audio.toString("utf8").trim())}.${more}`,
    );
  }
  return {
    audio,
    node: header("x-served-by"),
    request: header("x-request-id"),
    cache: header("x-cache"),
    seconds: Number(header("x-result-seconds")),
    took,
  };
}

/** What was said, for programs. @param file where its audio is */
export function reportOf(file: string, { audio, ...rest }: Spoken) {
  return { file, bytes: audio.length, ...rest };
}

/** The same for people. */
export function renderSpoken(file: string, { seconds, cache, node, took, request }: Spoken): string {
  const how = cache === "hit" ? "found" : "made";
  return (
    `${file}: ${seconds.toFixed(1)} s of audio, ${how} by ${node} in ${took.toFixed(1)} s. ` +
    `More: scripts/cluster logs --request ${request}`
  );
}

/** The service's own words in an error of OpenAI's form; what came, where it is none. */
function reasonIn(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error: { message: string; code: string } };
    return `${error.message.replace(/[.\s]+$/, "")} (${error.code})`;
  } catch {
    return body.replace(/[.\s]+$/, "");
  }
}

/** What curl is to do, as it reads it from standard input: an argument could be read by everybody on that machine. */
function curlConfig(options: Readonly<Record<string, string | number | true | readonly string[]>>): string {
  return Object.entries(options)
    .flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).map((one) =>
        // The signs that curl knows in quotes are those of JSON, as far as they occur here.
        one === true ? name : `${name} = ${JSON.stringify(String(one))}`,
      ),
    )
    .map((line) => `${line}\n`)
    .join("");
}
