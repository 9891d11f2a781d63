import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";

/** The way to an sshd of the suite, as a program's `connection`. */
export interface Way {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly privateKey: string;
  readonly hostKey: string;
}

/** An sshd on a loopback port, with a host key of its own. */
export interface Server {
  readonly way: Way;
  stop(): Promise<void>;
}

const PLACES = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/** @throws an Error that names the package when there is no sshd here. */
function findSshd(): string {
  const found = PLACES.find((path) => existsSync(path));
  if (found) return found;
  throw new Error(
    "The suite logs in to servers of its own and needs sshd: install openssh-server and openssh-client",
  );
}

/** Makes a key pair and returns the path of the private key. */
export function makeKey(path: string, passphrase = ""): string {
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-C", "conformance", "-N", passphrase, "-f", path]);
  return path;
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const finish = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once("data", () => finish(true));
    socket.once("error", () => finish(false));
  });
}

/** Starts an sshd that lets the owner of `key` in as the current user. */
export async function startSshd(
  folder: string,
  name: string,
  key: string,
  settings: string[],
): Promise<Server> {
  const sshd = findSshd();
  // Root's sshd wants the directory of its privilege separation, which a service would have made.
  if (process.getuid?.() === 0) mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  const hostKey = makeKey(join(folder, `${name}-host`));
  const port = await freePort();
  const config = join(folder, `${name}.conf`);
  const lines = [
    `Port ${port}`,
    "ListenAddress 127.0.0.1",
    `HostKey ${hostKey}`,
    `AuthorizedKeysFile ${key}.pub`,
    "StrictModes no",
    "PidFile none",
    "UsePAM no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "Subsystem sftp internal-sftp",
    // bash takes a shell that sshd starts for a login and reads the user's ~/.bashrc, which may say something, unless
    // it seems to be started by another shell.
    "SetEnv SHLVL=3",
    ...settings,
  ];
  writeFileSync(config, `${lines.join("\n")}\n`);
  const log: string[] = [];
  const child: ChildProcess = spawn(sshd, ["-D", "-e", "-f", config], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  child.stderr?.on("data", (chunk: Buffer) => log.push(chunk.toString()));
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries > 100 || child.exitCode !== null) {
      child.kill("SIGKILL");
      throw new Error(`sshd ${name} did not start on port ${port}:\n${log.join("")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    way: {
      host: "127.0.0.1",
      port,
      user: userInfo().username,
      privateKey: readFileSync(key, "utf8"),
      hostKey: readFileSync(`${hostKey}.pub`, "utf8").trim(),
    },
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
