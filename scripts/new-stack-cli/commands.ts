/** Commands that are told to whoever makes a new stack. */

import { shellQuote } from "../../render/text";
import type { Answers } from "./answers";
import { questions, type Texts } from "./questions";

/** What says all of these answers again: nobody has to type them twice for one mistake. */
export function commandFor(stack: string, texts: Texts): string {
  const words = questions.flatMap(({ key, flag }) => {
    const text = texts[key];
    return text === undefined || text === "" ? [] : [`${flag.split(" ")[0]} ${quoted(text)}`];
  });
  return `scripts/new-stack ${stack} ${words.join(" ")}`;
}

/** The commands by which a new stack gets its secrets, each with what it is for. */
export function secretCommands(stack: string, { https, monitoring }: Answers): string[] {
  const set = (key: string) => `pulumi config set --secret ${key} --stack ${stack}`;
  return [
    `openssl rand -hex 32 | ${set("peerKey")}   # with which real servers authenticate each other`,
    ...(https?.certificate.from === "files"
      ? [
          `${set("tlsCertificate")} < ${quoted(https.certificate.chain)}`,
          `${set("tlsKey")} < ${quoted(https.certificate.key)}`,
        ]
      : []),
    ...(https?.certificate.from === "acme"
      ? [`${certificateCommand(stack, https.certificate)} --no-deploy   # sets tlsCertificate and tlsKey`]
      : []),
    ...(monitoring
      ? [
          `openssl rand -hex 16 | ${set("monitoringPassword")}   # of the user admin of Prometheus and Alertmanager`,
        ]
      : []),
  ];
}

/** What keeps the certificate fresh, run every day. */
export function certificateCommand(
  stack: string,
  { email, dns }: { readonly email: string; readonly dns: string },
): string {
  return `scripts/certificate --stack ${stack} --email ${quoted(email)} --dns ${quoted(dns)}`;
}

/** As the shell must be told. The home directory's sign stays what it is. */
function quoted(text: string): string {
  return text.startsWith("~/") ? `~/${shellQuote(text.slice(2))}` : shellQuote(text);
}
