// Clients that take their time with nginx: they are cut off, and nobody else notices them meanwhile.
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { ask, type FrontDoor, startFrontDoor, stopFrontDoor } from "../unit/front-door-fixture";

const MANY = 200;
/** s until nginx gives up on a header and on a part of a body, and what a busy computer needs besides. */
const [HEADER, BODY, MORE] = [15, 30, 20];

let folder: string;
let door: FrontDoor;
let service: Server;
/** What the service was asked. */
let asked: string[] = [];

/** Connections on which so much was said; when each ended, in seconds. */
async function held(said: string): Promise<() => Promise<number[]>> {
  const began = Date.now();
  const sockets = await Promise.all(
    Array.from(
      { length: MANY },
      () =>
        new Promise<TLSSocket>((resolve, reject) => {
          const socket = connectTls({ host: "127.0.0.1", port: door.tls, ca: door.ca() }, () => {
            socket.write(said);
            resolve(socket);
          });
          socket.on("error", reject);
        }),
    ),
  );
  const ends = Promise.all(
    sockets.map(
      (socket) =>
        new Promise<number>((resolve) => {
          socket.removeAllListeners("error").on("error", () => undefined);
          socket.on("close", () => resolve((Date.now() - began) / 1000)).resume();
        }),
    ),
  );
  return () => ends;
}

describe("slow clients", function () {
  this.timeout(120_000);

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "slow-clients-"));
    chmodSync(folder, 0o755);
    // All come from one address here, and are not to be kept out for that.
    door = await startFrontDoor(folder, { connections: 0, requestsPerSecond: 0 });
    asked = [];
    service = createServer((request, answer) => {
      asked.push(request.url ?? "");
      answer.end("ok");
    });
    await new Promise<void>((done) => service.listen(door.app, "127.0.0.1", done));
  });

  afterEach(async () => {
    await stopFrontDoor(door);
    service.closeAllConnections();
    service.close();
    rmSync(folder, { recursive: true, force: true });
  });

  for (const [what, said, limit] of [
    ["a header that has no end", "GET /slow HTTP/1.1\r\nHost: x\r\nX-Slow: ", HEADER],
    ["a body that does not come", "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", BODY],
  ] as const) {
    it(`with ${what} are cut off, and never seen by the service`, async () => {
      const ends = await held(said);
      assert.equal((await ask(door, "/healthz")).status, 200);
      const times = await ends();
      console.log(
        `        ended after ${Math.min(...times).toFixed(1)} to ${Math.max(...times).toFixed(1)} s`,
      );
      assert.ok(Math.max(...times) < limit + MORE);
      assert.deepEqual(asked, ["/healthz"]);
    });
  }
});
