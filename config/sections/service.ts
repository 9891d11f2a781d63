/** The section `service`: the speech service on the real servers. */
import * as z from "zod";
import { about, choice, flag, seconds, section, text, userName, whole } from "../leaves";

const outputsSchema = section(
  {
    days: whole(0, 36_500, {
      text: "Results that nobody asked for in so many days are removed from the share. 0 = never.",
      unit: "days",
    }).default(0),
    quota: whole(0, 1_000_000, {
      text: "Size of all results beyond which the least recently used are removed. 0 = any.",
      unit: "GiB",
      why: "Results that fill the share keep everybody from making new ones.",
    }).default(0),
    shared: flag({
      text: "Whether everybody is shown what everybody made, on the page and at `/v1/results`; otherwise each their own.",
    }).default(false),
  },
  { text: "What is kept at /root/CosyVoice/outputs, and who sees it." },
);

export const serviceSchema = section(
  {
    engine: choice(["cpu", "cosyvoice"], {
      text: "What speaks. cpu: espeak-ng, needs no GPU and no weights. cosyvoice: CosyVoice3, on a GPU; `app` says what is installed for it.",
    }).default("cpu"),
    user: userName({
      text: "Unprivileged user the service runs as. It is made on every real server, and on the storage machine.",
    }).default("cosyvoice"),
    uid: whole(100, 59_999, {
      text: "Its user id and group id, the same on every machine.",
      why: "NFS compares numbers: files that one node writes are the other nodes' own.",
    }).default(7860),
    enableQueue: flag({
      text: "Whether `run.sh` passes `--enable-queue`: requests wait their turn instead of being refused while one is spoken.",
    }).default(true),
    queueLength: whole(1, 10_000, {
      text: "Requests that may wait on one node. One more is answered with 503.",
      unit: "requests",
    }).default(20),
    peers: flag({
      text: "Whether the real servers work as one: any of them answers for any visitor's session, and what waits at one is spoken by the next that is free. Needs the secret `peerKey`, by which they know each other; without it each is alone, and a preview says so.",
      why: "A school behind one address is one client to mh and would wait at one GPU; and a drain or another scheduler would lose sessions. They talk to each other on `port`.",
    }).default(true),
    timeLimit: seconds(1, 3600, {
      text: "Longest time one synthesis may take before it is given up.",
      why: "An engine that hangs would otherwise hold the queue for ever. The longest text, 4096 characters, is ten minutes of audio and more: a slow GPU may need more for it.",
    }).default(60),
    outputs: outputsSchema.prefault({}),
    maxUnavailable: whole(1, 100, {
      text: "How many real servers a deployment may take out of the pool at the same time. Those that do not serve anyway are changed at once.",
      unit: "real servers",
      why: "1 keeps the most capacity; a large fleet is through sooner with more.",
    }).default(1),
    drainLimit: seconds(1, 86_400, {
      text: "How long a real server that is taken out of the pool may go on with what it has in its queue, before it is changed all the same.",
      why: "A full queue of long texts takes minutes, and cutting it off would fail every request in it.",
    }).default(300),
    release: text((value) => /^[0-9a-f]{16}$/.test(value), "the 16 hexadecimal digits of a release", {
      text: "A release to run that is already on the real servers, instead of the one in `app/`. `scripts/cluster rollback` sets it.",
      derived: "the release in `app/`",
    }).optional(),
    environment: z
      .record(
        z
          .string()
          .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of an environment variable: letters, digits and '_'"),
        z
          .string('a text on one line (numbers and true/false in quotes: "1")')
          .refine(
            (value) => value.length <= 4096 && !/\p{Cc}/u.test(value),
            'a text on one line (numbers and true/false in quotes: "1")',
          ),
        "names and values",
      )
      .register(about, {
        form: "names and values",
        text: "More environment variables for the service, name: value. Not for secrets: they are readable in the state and on the machine.",
      })
      .default({}),
  },
  { text: "The speech service on the real servers." },
);

/** Options of the speech service. */
export type ServiceConfig = z.output<typeof serviceSchema>;
