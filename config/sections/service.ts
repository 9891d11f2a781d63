/** The section `service`: the speech service on the real servers. */
import * as z from "zod";
import { about, choice, flag, seconds, section, text, userName, whole } from "../leaves";

const outputsSchema = section(
  {
    days: whole(0, 36_500, {
      text: "Results that nobody has requested for this long are removed from the share. 0 = never.",
      unit: "days",
    }).default(0),
    quota: whole(0, 1_000_000, {
      text: "Total size of results beyond which the least recently used are removed. 0 = no limit.",
      unit: "GiB",
      why: "When results fill the share, nobody can make new ones.",
    }).default(0),
    shared: flag({
      text: "Whether all users see all results, on the page and at `/v1/results`. If not, each user sees only their own.",
    }).default(false),
  },
  { text: "Which results are kept in /root/CosyVoice/outputs, and who sees them." },
);

export const serviceSchema = section(
  {
    engine: choice(["cpu", "cosyvoice"], {
      text: "The speech engine. cpu: espeak-ng, which needs no GPU and no weights. cosyvoice: CosyVoice3, on a GPU; `app` says what is installed for it.",
    }).default("cpu"),
    user: userName({
      text: "Unprivileged user that the service runs as. It is created on every real server and on the storage machine.",
    }).default("cosyvoice"),
    uid: whole(100, 59_999, {
      text: "Its user id and group id, the same on every machine.",
      why: "NFS compares ids, not names: with the same id, every real server owns the files that another one wrote.",
    }).default(7860),
    enableQueue: flag({
      text: "Whether `run.sh` passes `--enable-queue`: requests wait their turn instead of being refused while another is being spoken.",
    }).default(true),
    queueLength: whole(1, 10_000, {
      text: "Requests that may wait on one real server. Any further one is answered with 503.",
      unit: "requests",
    }).default(20),
    peers: flag({
      text: "Whether the real servers work as one: each answers for the sessions of all, and a request that waits at one is spoken by another that is free. They authenticate each other with the secret `peerKey`. Without it each works alone, and a preview says so.",
      why: "To mh a school behind one address is one client, which would wait at one GPU; and a drain or another scheduler would lose sessions. The real servers talk to each other on `port`.",
    }).default(true),
    timeLimit: seconds(1, 3600, {
      text: "How long one synthesis may take before it is aborted.",
      why: "An engine that hangs would otherwise block the queue for ever. The longest text (4096 characters) is more than ten minutes of audio: a slow GPU may need a higher limit.",
    }).default(60),
    outputs: outputsSchema.prefault({}),
    maxUnavailable: whole(1, 100, {
      text: "How many real servers a deployment may take out of the pool at the same time. Those that do not serve are changed without waiting.",
      unit: "real servers",
      why: "1 keeps the most capacity; with more, a large pool is done sooner.",
    }).default(1),
    drainLimit: seconds(1, 86_400, {
      text: "How long a real server that is taken out of the pool gets to finish its queue before it is changed anyway.",
      why: "A full queue of long texts takes minutes, and each request that is cut off fails.",
    }).default(300),
    release: text((value) => /^[0-9a-f]{16}$/.test(value), "the 16 hexadecimal digits of a release", {
      text: "A release that is already on the real servers, to run instead of the one in `app/`. `scripts/cluster rollback` sets it.",
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
        text: "Additional environment variables for the service, as `name: value`. Not for secrets: the values are readable in the state and on the machine.",
      })
      .default({}),
  },
  { text: "The speech service on the real servers." },
);

/** Options of the speech service. */
export type ServiceConfig = z.output<typeof serviceSchema>;
