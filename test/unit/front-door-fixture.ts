/** A real nginx as the front door of the first real server, on this computer. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { type IncomingMessage, request as requestPlain } from "node:http";
import { type RequestOptions, request } from "node:https";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClusterConfig } from "../../config/schema";
import { freePortFrom } from "../../lab/ports";
import { renderFrontDoorConfig } from "../../render";
import { nginxArguments, nginxProgram, placeFrontDoor } from "../golden/nginx";
import { cluster, type RawOverrides } from "./config-fixture";

/** Where the two other real servers of the fixture are, for this computer. */
const others: Readonly<Record<string, string>> = {
  "192.168.1.102": "127.0.0.2",
  "192.168.1.103": "127.0.0.3",
};

/** Ports that nobody has at the moment, below those that the kernel gives to connections by chance. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = await freePortFrom(20_000 + Math.floor(Math.random() * 12_000));
    if (!ports.includes(port)) ports.push(port);
  }
  return ports;
}

/** An nginx that runs. */
export interface FrontDoor {
  readonly config: ClusterConfig;
  readonly nginx: ChildProcess;
  /** Ports: of the service beside it, of HTTPS, of the redirect, and for the directors' pollers. */
  readonly app: number;
  readonly tls: number;
  readonly plain: number;
  readonly health: number;
  /** The certificate that it shows, which vouches for itself. */
  readonly ca: () => Buffer;
  /** What it has logged of requests, as it came. */
  readonly logged: readonly string[];
  /** What it has said of itself. */
  readonly errors: readonly string[];
}

/**
 * Starts nginx with what is rendered for a configuration.
 *
 * @param folder where its files are; a certificate and a key that are there are shown.
 * @param place puts what is here in place of what is on the machines, before it is done for the real servers' addresses.
 */
export async function startFrontDoor(
  folder: string,
  https: RawOverrides = {},
  more: RawOverrides = {},
  place = (text: string): string => text,
): Promise<FrontDoor> {
  const [app = 0, tls = 0, plain = 0, health = 0] = await freePorts(4);
  const config = cluster({
    port: app,
    https: { enabled: true, serverName: "speech.example.org", port: tls, ...https },
    tlsCertificate: true,
    tlsKey: true,
    ...more,
  });
  let text = place(renderFrontDoorConfig(config, "rs-1"))
    .replace("listen 80;", `listen ${plain};`)
    .replace("listen 7862;", `listen ${health};`);
  for (const [from, to] of Object.entries(others)) text = text.replaceAll(from, to);
  const logged: string[] = [];
  const journal = createSocket("udp4", (datagram) => logged.push(datagram.toString("latin1"))).unref();
  await new Promise<void>((done) => journal.bind(0, "127.0.0.1", done));
  text = text.replace("syslog:server=unix:/dev/log", `syslog:server=127.0.0.1:${journal.address().port}`);
  placeFrontDoor(folder, text);
  const nginx = spawn(nginxProgram(), nginxArguments(folder), { stdio: ["ignore", "inherit", "pipe"] });
  const errors: string[] = [];
  nginx.stderr?.on("data", (text) => {
    process.stderr.write(text);
    errors.push(String(text));
  });
  const ca = () => readFileSync(join(folder, "certificate.pem"));
  for (const end = Date.now() + 15_000; ; await sleep(50)) {
    const status = await statusOf(health).catch(() => undefined);
    if (status === 200) return { config, nginx, app: config.port, tls, plain, health, ca, logged, errors };
    assert.ok(Date.now() < end, "nginx does not answer");
  }
}

function statusOf(port: number): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    requestPlain({ host: "127.0.0.1", port, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    })
      .on("error", reject)
      .end();
  });
}

/** Ends it, without waiting for what runs. */
export async function stopFrontDoor({ nginx }: Pick<FrontDoor, "nginx">): Promise<void> {
  if (nginx.exitCode !== null) return;
  const ended = new Promise((done) => nginx.once("exit", done));
  nginx.kill("SIGTERM");
  await ended;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
}

/** One request by HTTPS, on a connection of its own unless an agent is given. */
export function ask(
  { tls, ca }: { tls: number; ca: () => Buffer | string },
  path: string,
  { body, ...options }: RequestOptions & { body?: Buffer | string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: "127.0.0.1", port: tls, path, ca: ca(), agent: false, timeout: 10_000, ...options },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () =>
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            text: Buffer.concat(chunks).toString(),
          }),
        );
      },
    );
    asked.on("timeout", () => asked.destroy(new Error("no answer within 10 s")));
    asked.on("error", reject);
    asked.end(body);
  });
}
