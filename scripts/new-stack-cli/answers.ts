import type { Problem } from "../../config/problems";
import { fallbackOf, gpus, questions, questionsFor, type Texts } from "./questions";

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
  /** `undefined`: off. */
  readonly https: HttpsAnswers | undefined;
  /** `undefined`: nothing is watched. */
  readonly monitoring: MonitoringAnswers | undefined;
  readonly hosts?: HostsAnswers;
  readonly aws?: AwsAnswers;
}

export interface HttpsAnswers {
  readonly serverName: string;
  readonly certificate:
    | { readonly from: "self-signed" }
    /** Paths on this computer, `~` not expanded. */
    | { readonly from: "files"; readonly chain: string; readonly key: string }
    | { readonly from: "acme"; readonly email: string; readonly dns: string };
}

export interface MonitoringAnswers {
  /** `undefined`: nobody is told. */
  readonly mail: { readonly to: string; readonly server: string } | undefined;
}

export interface HostsAnswers {
  readonly directors: readonly MachineAnswer[];
  readonly realServers: readonly MachineAnswer[];
  readonly storage: MachineAnswer | { readonly export: string };
  readonly client: MachineAnswer | undefined;
  readonly monitor: MachineAnswer | undefined;
  readonly firewall: boolean;
  /** From where those who operate it come; empty where nobody asked. */
  readonly admins: readonly string[];
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
  for (const { key, flag, when } of questions) {
    if (texts[key] !== undefined && !wanted.some((question) => question.key === key))
      report(key, `is only for ${when?.words}`, `leave ${flag} out`);
  }
  const text = (key: string): string => {
    const question = wanted.find((one) => one.key === key);
    const value = (texts[key] ?? (question && fallbackOf(question, texts)))?.trim();
    if (value === undefined) report(key, "is missing", `give ${question?.flag}`);
    else if (question?.choices !== undefined && !question.choices.includes(value))
      report(key, `is not one of ${question.choices.join(", ")}`, `give ${question.flag}`);
    return value ?? "";
  };
  const number = (key: string): number => {
    const value = text(key);
    if (value !== "" && !/^\d{1,6}$/.test(value)) report(key, "is not a number", "write a whole number");
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
    https: readHttps(),
    monitoring: readMonitoring(),
  };
  const answers = platform === "aws" ? { ...common, aws: readAws() } : { ...common, hosts: readHosts() };
  return problems.length > 0 ? { problems } : { answers };

  function readHttps(): HttpsAnswers | undefined {
    const from = text("https");
    if (from === "files")
      return {
        serverName: text("serverName"),
        certificate: { from, chain: text("certificate"), key: text("certificateKey") },
      };
    if (from === "acme")
      return {
        serverName: text("serverName"),
        certificate: { from, email: text("acmeEmail"), dns: text("acmeDns") },
      };
    return from === "self-signed" ? { serverName: text("serverName"), certificate: { from } } : undefined;
  }

  function readMonitoring(): MonitoringAnswers | undefined {
    const watched = platform === "aws" ? text("monitoring") === "on" : text("monitor") !== "";
    if (!watched) return undefined;
    const to = text("alertMail");
    return { mail: to === "" ? undefined : { to, server: text("mailServer") } };
  }

  function readHosts(): HostsAnswers {
    const storage = text("storage");
    const client = text("client");
    const monitor = text("monitor");
    const firewall = text("firewall") === "on";
    return {
      directors: machines("directors", "director"),
      realServers: machines("realServers", "rs"),
      storage: storage.includes(":/") ? { export: storage } : machine("storage", storage, "storage"),
      client: client === "" ? undefined : machine("client", client, "client"),
      monitor: monitor === "" ? undefined : machine("monitor", monitor, "monitor"),
      firewall,
      admins: firewall || monitor !== "" ? parts("admins") : [],
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
