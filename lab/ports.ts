import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** Whether a server could listen on that port of 127.0.0.1. */
export async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

/** The first free port of 127.0.0.1 from that one on. */
export async function freePortFrom(first: number): Promise<number> {
  for (let port = first; port < Math.min(first + 1000, 65536); port++) {
    if (await isFree(port)) return port;
  }
  throw new Error(`No free port on 127.0.0.1 from ${first} on.`);
}

/**
 * Whether an SSH server greets at that port of 127.0.0.1 within `limit` milliseconds. That the connection opens proves
 * nothing: QEMU opens it before it asks the virtual machine.
 */
export function sshGreets(port: number, limit: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket: Socket = connect(port, "127.0.0.1");
    const done = (greets: boolean) => {
      socket.destroy();
      resolve(greets);
    };
    socket.setTimeout(limit, () => done(false));
    socket.once("data", (data) => done(data.toString("latin1").startsWith("SSH-")));
    socket.once("error", () => done(false));
    socket.once("close", () => done(false));
  });
}
