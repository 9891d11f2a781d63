import type { Problem } from "../../config/problems";
import { gpus, questions, questionsFor, type Texts } from "./questions";

export interface MachineAnswer {
  readonly name: string;
  readonly address: string;
}

/** What a stack file is made of, read from texts; whether it makes sense is for config/ to say. */
export interface Answers {
  readonly platform: "hosts" | "aws";
  readonly vip: string;
  readonly port: number;
  readonly engine: "cpu" | "cosyvoice";
  readonly hosts?: HostsAnswers;
  readonly aws?: AwsAnswers;
}

export interface HostsAnswers {
  readonly directors: readonly MachineAnswer[];
  readonly realServers: readonly MachineAnswer[];
  readonly storage: MachineAnswer | { readonly export: string };
  readonly client: MachineAnswer | undefined;
  readonly user: string;
  readonly sshPort: number;
  readonly key: string | undefined;
  readonly jumpHost: { readonly user: string; readonly address: string; readonly port: number } | undefined;
}

export interface AwsAnswers {
  readonly region: string;
  readonly zone: string;
  readonly count: number;
  readonly instanceType: string;
  readonly clients: readonly string[];
  readonly admins: readonly string[];
}

/** Reads the texts. @returns the answers, or everything that is missing or cannot be read. */
export function readAnswers(texts: Texts): { answers: Answers } | { problems: Problem[] } {
  const problems: Problem[] = [];
  const wanted = questionsFor(texts);
  const report = (key: string, message: string, fix: string) => {
    const flag = questions.find((question) => question.key === key)?.flag.split(" ")[0] ?? key;
    problems.push({ path: flag, value: texts[key], message, fix });
  };
  for (const { key, flag } of questions) {
    if (texts[key] !== undefined && !wanted.some((question) => question.key === key))
      report(key, `means nothing for a stack on ${texts.platform}`, `leave ${flag} out`);
  }
  const text = (key: string): string => {
    const question = wanted.find((one) => one.key === key);
    const value = (texts[key] ?? question?.fallback)?.trim();
    if (value === undefined) report(key, "is missing", `say ${question?.flag}`);
    else if (question?.choices !== undefined && !question.choices.includes(value))
      report(key, `is not one of ${question.choices.join(", ")}`, `say ${question.flag}`);
    return value ?? "";
  };
  const number = (key: string): number => {
    const value = text(key);
    if (value !== "" && !/^\d{1,6}$/.test(value)) report(key, "is no number", "write a whole number");
    return Number(value);
  };
  const parts = (key: string) =>
    text(key)
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "");
  const machine = (key: string, part: string, name: string): MachineAnswer => {
    const [first = "", second, ...more] = part.split("=");
    if (more.length > 0)
      report(key, "has more than one '=' in a machine", "write NAME=ADDRESS, or ADDRESS alone");
    return second === undefined ? { name, address: first } : { name: first, address: second };
  };
  const machines = (key: string, name: string) =>
    parts(key).map((part, index) => machine(key, part, `${name}-${index + 1}`));

  const platform = text("platform") as Answers["platform"];
  const common = {
    platform,
    vip: text("vip"),
    port: number("port"),
    engine: text("engine") as Answers["engine"],
  };
  const answers = platform === "aws" ? { ...common, aws: readAws() } : { ...common, hosts: readHosts() };
  return problems.length > 0 ? { problems } : { answers };

  function readHosts(): HostsAnswers {
    const storage = text("storage");
    const client = text("client");
    return {
      directors: machines("directors", "director"),
      realServers: machines("realServers", "rs"),
      storage: storage.includes(":/") ? { export: storage } : machine("storage", storage, "storage"),
      client: client === "" ? undefined : machine("client", client, "client"),
      user: text("user"),
      sshPort: number("sshPort"),
      key: text("key") || undefined,
      jumpHost: readJumpHost(),
    };
  }

  function readJumpHost(): HostsAnswers["jumpHost"] {
    const given = text("jumpHost");
    if (given === "") return undefined;
    const [, user = "root", address = "", port = "22"] =
      /^(?:([^@:]+)@)?([^@:]+)(?::(\d+))?$/.exec(given) ?? [];
    if (address === "") report("jumpHost", "cannot be read", "write USER@HOST, or USER@HOST:PORT");
    return { user, address, port: Number(port) };
  }

  function readAws(): AwsAnswers {
    return {
      region: text("region"),
      zone: text("zone"),
      count: number("count"),
      instanceType: gpus[text("gpu")] ?? "",
      clients: parts("clients"),
      admins: parts("admins"),
    };
  }
}
