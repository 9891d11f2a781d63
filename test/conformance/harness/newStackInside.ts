/**
 * Run in a network of its own: gives lo the addresses of a small cluster, each with an SSH server, and runs scripts/new-stack on
 * them, once with a free VIP and once with one that a director has. Prints what came of it as JSON.
 *
 *     unshare -n node --import tsx test/conformance/harness/newStackInside.ts FOLDER
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { repository } from "../../../scripts/lib/paths";
import { makeKey, startSshd } from "./sshd";

const folder = join(process.argv[2] ?? "", "inside");
mkdirSync(folder);
const addresses = ["192.168.1.11", "192.168.1.12", "192.168.1.101", "192.168.1.20"];
execFileSync("ip", ["link", "set", "lo", "up"]);
for (const address of addresses) execFileSync("ip", ["address", "add", `${address}/32`, "dev", "lo"]);
const key = makeKey(join(folder, "user"));
const server = await startSshd(
  folder,
  "machines",
  key,
  addresses.map((address) => `ListenAddress ${address}`),
);
const { port, user, hostKey } = server.way;
const [director = "", other = "", realServer = "", storage = ""] = addresses;

async function write(vip: string) {
  const output = join(folder, `Pulumi.${vip}.yaml`);
  const words = {
    ...{ vip, directors: `${director},${other}`, "real-servers": realServer, storage },
    ...{ user, "ssh-port": `${port}`, key, "known-hosts": "/dev/null", output },
  };
  const options = Object.entries(words).flatMap(([name, value]) => [`--${name}`, value]);
  const { exitCode, stdout, stderr } = await execa(
    join(repository, "scripts", "new-stack"),
    ["made-up", "--yes", ...options],
    { reject: false },
  );
  return {
    exitCode,
    said: `${stdout}\n${stderr}`,
    text: existsSync(output) ? readFileSync(output, "utf8") : null,
  };
}

try {
  const free = await write("192.168.1.100");
  execFileSync("ip", ["address", "add", "192.168.1.200/32", "dev", "lo"]);
  const taken = await write("192.168.1.200");
  console.log(JSON.stringify({ hostKey: hostKey.split(" ").slice(0, 2).join(" "), free, taken }));
} finally {
  await server.stop();
}
