import { createHash } from "node:crypto";
import { connect as dialTcp, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import ssh2, { type AnyAuthMethod, type Client, type ConnectConfig, type ParsedKey } from "ssh2";
import { type Context, sleep } from "./context";

/** How to reach a machine, as in the program's `connection`; defaults are already filled in. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password?: string;
  readonly privateKey?: string;
  readonly privateKeyPassword?: string;
  readonly agentSocketPath?: string;
  /** Failed attempts that are allowed; -1 = no limit. */
  readonly dialErrorLimit?: number;
  /** Seconds for one TCP connection; 0 = no limit. */
  readonly perDialTimeout?: number;
  readonly hostKey?: string;
}
export interface Connection extends Endpoint {
  readonly proxy?: Endpoint;
}

/** An open connection and the way to give it back. */
export interface Session {
  readonly client: Client;
  close(): void;
}

/**
 * Longest time for the SSH handshake after the TCP connection stands. The real plugin waits for ever; a machine whose
 * sshd hangs should not hang a deployment, and an emulated one under load still makes this.
 */
const HANDSHAKE_LIMIT = 120_000;

/**
 * How long a connection may be silent before the other side is asked for a sign of life, and how often in vain before
 * it counts as lost: a machine that loses its power says nothing.
 */
const KEEPALIVE = { keepaliveInterval: 15_000, keepaliveCountMax: 8 };

const FIRST_DELAY = 100;
const BACKOFF = 1.5;
const LONGEST_DELAY = 5_000;

/** Tries again, ever more slowly, until it works, the limit of errors is passed or the operation is stopped. */
async function retry<T>(
  what: string,
  limit: number,
  context: Context,
  attempt: () => Promise<T>,
): Promise<T> {
  let delay = FIRST_DELAY;
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (context.signal.aborted) throw context.signal.reason;
      if (limit > -1 && failures + 1 > limit) {
        if (error instanceof HostKeyMismatch) context.report("warning", error.detail);
        throw new Error(`after ${failures} failed attempts: ${message(error)}`);
      }
      context.status(`${what} ${failures + 1}/${limit === -1 ? "inf" : limit} failed: retrying`);
    }
    await sleep(delay, context.signal);
    delay = Math.min(Math.floor(delay * BACKOFF), LONGEST_DELAY);
  }
}

class HostKeyMismatch extends Error {
  constructor(
    text: string,
    readonly detail: string,
  ) {
    super(text);
  }
}

/** What an error says. */
export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const SOCKET_ERRORS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connect: connection refused",
  EHOSTUNREACH: "connect: no route to host",
  ENETUNREACH: "connect: network is unreachable",
  ETIMEDOUT: "i/o timeout",
  ECONNRESET: "read: connection reset by peer",
};

interface SocketError extends Error {
  readonly code?: string;
  readonly address?: string;
  readonly port?: number;
  readonly errors?: readonly SocketError[];
}

function socketError(error: SocketError, endpoint: Endpoint): Error {
  const first = error.errors?.[0] ?? error;
  if (first.code === "ENOTFOUND") return new Error(`dial tcp: lookup ${endpoint.host}: no such host`);
  const address = joinHostPort(first.address ?? endpoint.host, first.port ?? endpoint.port);
  return new Error(`dial tcp ${address}: ${SOCKET_ERRORS[first.code ?? ""] ?? first.message}`);
}

/** `host:port`, with brackets around an IPv6 address. */
function joinHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function openSocket(endpoint: Endpoint): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = dialTcp({ host: endpoint.host, port: endpoint.port, noDelay: true, keepAlive: true });
    const fail = (error: SocketError) => {
      socket.destroy();
      reject(socketError(error, endpoint));
    };
    const limit = (endpoint.perDialTimeout ?? 15) * 1000;
    const timer =
      limit > 0 ? setTimeout(() => fail(Object.assign(new Error(), { code: "ETIMEDOUT" })), limit) : null;
    socket.once("error", fail);
    socket.once("connect", () => {
      if (timer) clearTimeout(timer);
      socket.off("error", fail);
      resolve(socket);
    });
    socket.once("close", () => timer && clearTimeout(timer));
  });
}

/** The key in a line as ssh-keyscan or an authorized_keys file has it: type, text in base64, comment. */
function parseHostKey(line: string): { type: string; key: Buffer } {
  for (const candidate of line.split("\n")) {
    const words = candidate.trim().split(/\s+/);
    const at = words.findIndex((word, i) => {
      const next = Buffer.from(words[i + 1] ?? "", "base64");
      const length = next.length > 4 ? next.readUInt32BE(0) : 0;
      return length > 0 && next.toString("latin1", 4, 4 + length) === word;
    });
    const type = words[at];
    const text = words[at + 1];
    if (at >= 0 && type && text) return { type, key: Buffer.from(text, "base64") };
  }
  throw new Error("failed to parse host key: ssh: no key found");
}

function fingerprint(key: Buffer): string {
  return `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
}

function parsePrivateKey(endpoint: Endpoint): ParsedKey | undefined {
  if (endpoint.privateKey === undefined) return undefined;
  const parsed = ssh2.utils.parseKey(endpoint.privateKey, endpoint.privateKeyPassword);
  if (parsed instanceof Error) {
    if (/no passphrase/i.test(parsed.message))
      throw new Error("ssh: this private key is passphrase protected");
    if (
      /passphrase|decrypt|integrity|malformed/i.test(parsed.message) &&
      endpoint.privateKeyPassword !== undefined
    ) {
      throw new Error("x509: decryption password incorrect");
    }
    throw new Error("ssh: no key found");
  }
  return Array.isArray(parsed) ? parsed[0] : parsed;
}

/**
 * The order in which ways to log in are tried: `none`, then each configured one that the server still offers, each
 * name once. So a private key that is refused is not followed by the keys of an agent.
 */
function loginMethods(endpoint: Endpoint, key: ParsedKey | undefined): AnyAuthMethod[] {
  const username = endpoint.user;
  const methods: AnyAuthMethod[] = [];
  if (key) methods.push({ type: "publickey", username, key });
  if (endpoint.password !== undefined) {
    const password = endpoint.password;
    methods.push({ type: "password", username, password });
    methods.push({
      type: "keyboard-interactive",
      username,
      prompt: (_name, _instructions, _language, prompts, finish) => finish(prompts.map(() => password)),
    });
  }
  const agent = endpoint.agentSocketPath ?? process.env.SSH_AUTH_SOCK;
  if (!key && agent) methods.push({ type: "agent", username, agent });
  return methods;
}

/** The name of a method in the protocol: an agent offers public keys. */
function protocolName(method: AnyAuthMethod): string {
  return method.type === "agent" ? "publickey" : method.type;
}

/** Everything about an endpoint that can be wrong before any packet is sent. */
interface Prepared {
  readonly endpoint: Endpoint;
  readonly methods: AnyAuthMethod[];
  readonly expected: { type: string; key: Buffer } | undefined;
}

function prepare(endpoint: Endpoint): Prepared {
  const expected = endpoint.hostKey === undefined ? undefined : parseHostKey(endpoint.hostKey);
  return { endpoint, expected, methods: loginMethods(endpoint, parsePrivateKey(endpoint)) };
}

function handshake({ endpoint, methods, expected }: Prepared, socket: Duplex): Promise<Client> {
  return new Promise((resolve, reject) => {
    const client = new ssh2.Client();
    const tried = ["none"];
    let shown: Buffer | undefined;
    let refused = false;

    const fail = (reason: string | Error) => {
      clearTimeout(timer);
      client.removeAllListeners();
      client.on("error", () => undefined);
      client.destroy();
      socket.destroy();
      reject(reason instanceof Error ? reason : new Error(`ssh: handshake failed: ${reason}`));
    };
    const timer = setTimeout(() => fail("i/o timeout"), HANDSHAKE_LIMIT);

    const config: ConnectConfig & { sock: Duplex } = {
      sock: socket as ConnectConfig["sock"] & Duplex,
      username: endpoint.user,
      readyTimeout: 0,
      ...KEEPALIVE,
      hostVerifier: (key: Buffer) => {
        shown = key;
        return expected === undefined || key.equals(expected.key);
      },
      authHandler: (left, _partial, next) => {
        // Nothing has been tried yet: ask with "none" what the server offers.
        if (left === null) return next({ type: "none", username: endpoint.user });
        const offered: string[] = left;
        const method = methods.find((candidate) => {
          const name = protocolName(candidate);
          return offered.includes(name) && !tried.includes(name);
        });
        if (method) {
          tried.push(protocolName(method));
          next(method);
          return;
        }
        refused = true;
        next(false as unknown as AnyAuthMethod);
      },
    };
    if (expected) config.algorithms = { serverHostKey: [expected.type as "ssh-ed25519"] };

    client.once("ready", () => {
      clearTimeout(timer);
      client.removeAllListeners("error").removeAllListeners("end").removeAllListeners("close");
      // From here on, a broken connection shows itself at the channel that it carried.
      client.on("error", () => undefined);
      resolve(client);
    });
    client.once("end", () => fail("EOF"));
    client.once("close", () => fail("EOF"));
    client.on("error", (error: Error & { level?: string; code?: string }) => {
      if (refused) {
        fail(
          `ssh: unable to authenticate, attempted methods [${tried.join(" ")}], no supported methods remain`,
        );
      } else if (expected && shown && !shown.equals(expected.key)) {
        const address = joinHostPort(endpoint.host, endpoint.port);
        const detail =
          `${address} showed the host key ${fingerprint(shown)}, but ${fingerprint(expected.key)} is expected: ` +
          "either connection.hostKey is out of date or another machine answers at this address";
        fail(new HostKeyMismatch("ssh: handshake failed: ssh: host key mismatch", detail));
      } else if (expected && /no matching host key format/.test(error.message)) {
        fail(`ssh: no common algorithm for host key; we offered: [${expected.type}]`);
      } else if (error.code === "ECONNRESET" || error.code === "EPIPE") {
        fail(`read tcp ${joinHostPort(endpoint.host, endpoint.port)}: ${SOCKET_ERRORS.ECONNRESET}`);
      } else if (/before handshake|ended by|Connection lost/i.test(error.message)) {
        fail("EOF");
      } else {
        fail(error.message.startsWith("ssh: ") ? error.message : `ssh: ${error.message}`);
      }
    });
    client.connect(config);
  });
}

const REFUSALS: Readonly<Record<number, string>> = {
  1: "administratively prohibited",
  2: "connect failed",
  3: "unknown channel type",
  4: "resource shortage",
};

function forward(client: Client, endpoint: Endpoint): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const lost = () => reject(new Error("EOF"));
    client.once("close", lost);
    client.forwardOut("127.0.0.1", 0, endpoint.host, endpoint.port, (error, channel) => {
      client.off("close", lost);
      if (!error) return resolve(channel);
      const reason = (error as Error & { reason?: number }).reason;
      const detail = error.message.replace(/^\(SSH\) Channel open failure: /, "");
      reject(
        new Error(reason === undefined ? detail : `ssh: rejected: ${REFUSALS[reason] ?? reason} (${detail})`),
      );
    });
  });
}

/** A connection to a jump host, used by everything that goes through it. */
interface Shared {
  readonly client: Promise<Client>;
  users: number;
  idle: NodeJS.Timeout | undefined;
}
const jumpHosts = new Map<string, Shared>();
const IDLE = 10_000;

/**
 * Connects to a jump host once for all commands that are on their way through it: thirty machines behind one do not
 * cost it thirty logins (its sshd starts to refuse at ten that wait).
 */
async function viaJumpHost(prepared: Prepared, context: Context): Promise<Session> {
  const { endpoint } = prepared;
  const key = JSON.stringify(endpoint);
  let shared = jumpHosts.get(key);
  if (!shared) {
    const limit = endpoint.dialErrorLimit ?? 10;
    const client = retry("Dial proxy", limit, context, async () =>
      handshake(prepared, await openSocket(endpoint)),
    );
    const created: Shared = { client, users: 0, idle: undefined };
    const forget = () => {
      if (jumpHosts.get(key) === created) jumpHosts.delete(key);
    };
    client.then((open) => open.once("close", forget), forget);
    jumpHosts.set(key, created);
    shared = created;
  }
  const mine = shared;
  mine.users++;
  clearTimeout(mine.idle);
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    mine.users--;
    if (mine.users > 0) return;
    mine.idle = setTimeout(() => {
      if (mine.users > 0) return;
      if (jumpHosts.get(key) === mine) jumpHosts.delete(key);
      mine.client.then(
        (client) => client.end(),
        () => undefined,
      );
    }, IDLE);
    mine.idle.unref();
  };
  try {
    return { client: await mine.client, close };
  } catch (error) {
    close();
    throw error;
  }
}

/**
 * Opens a connection, through the jump host if there is one.
 *
 * @throws what the real plugin says, so that a message means the same with either.
 */
export async function connect(connection: Connection, context: Context): Promise<Session> {
  const target = prepare(connection);
  const limit = connection.dialErrorLimit ?? 10;
  const { proxy } = connection;
  if (!proxy) {
    const client = await retry("Dial", limit, context, async () =>
      handshake(target, await openSocket(connection)),
    );
    return { client, close: () => client.end() };
  }
  let jump: Session | undefined;
  try {
    const through = prepare(proxy);
    const opened = await viaJumpHost(through, context);
    jump = opened;
    const client = await retry("Dial", limit, context, async () =>
      handshake(target, await forward(opened.client, connection)),
    );
    return {
      client,
      close: () => {
        client.end();
        opened.close();
      },
    };
  } catch (error) {
    jump?.close();
    if (context.signal.aborted) throw error;
    throw new Error(`proxy: ${message(error)}`);
  }
}
