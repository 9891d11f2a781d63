import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { findHostKey } from "../../components/platform/knownHosts";
import { explain } from "../../components/remote/openssh";

describe("findHostKey", () => {
  const file = [
    "# a comment",
    "10.0.0.1 ssh-rsa AAAArsa",
    "10.0.0.1,rs-1 ecdsa-sha2-nistp256 AAAAecdsa",
    "10.0.0.1 ssh-ed25519 AAAAed comment",
    "[10.0.0.2]:2222 ssh-ed25519 AAAAport",
    "@revoked 10.0.0.3 ssh-ed25519 AAAArevoked",
    "10.0.0.4 ssh-rsa AAAAonly",
    `|1|c2FsdA==|${createHmac("sha1", "salt").update("10.0.0.5").digest("base64")} ssh-ed25519 AAAAhashed`,
  ].join("\n");
  const cases: [string, number, string | undefined][] = [
    ["10.0.0.1", 22, "ssh-ed25519 AAAAed"],
    ["rs-1", 22, "ecdsa-sha2-nistp256 AAAAecdsa"],
    ["10.0.0.2", 2222, "ssh-ed25519 AAAAport"],
    ["10.0.0.2", 22, undefined],
    ["10.0.0.3", 22, undefined],
    ["10.0.0.4", 22, undefined],
    ["10.0.0.5", 22, "ssh-ed25519 AAAAhashed"],
  ];
  for (const [address, port, key] of cases) {
    it(`${address} port ${port}: ${key ?? "none"}`, () =>
      assert.equal(findHostKey(file, address, port), key));
  }
});

describe("explain: what OpenSSH says, for people", () => {
  const target = { name: "rs-1", address: "10.0.0.1", port: 22, user: "root", hostKey: "ssh-ed25519 AAAA" };
  const cases: [string, string, RegExp][] = [
    ["a wrong host key", "Host key verification failed.", /its SSH host key is not the pinned one/],
    ["a refused login", "root@10.0.0.1: Permission denied (publickey).", /refuses the login of "root"/],
    [
      "a refused connection",
      "ssh: connect to host 10.0.0.1 port 22: Connection refused",
      /^connect to host 10\.0\.0\.1/,
    ],
    [
      "a dead machine behind the jump host",
      "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\nConnection closed by UNKNOWN port 65535",
      /No route to host/,
    ],
    ["silence", "", /ssh failed without a message/],
  ];
  for (const [what, log, expected] of cases) {
    it(what, () => {
      const { machine, reason, fix } = explain(target, log, log);
      assert.equal(machine, "rs-1");
      assert.match(reason, expected);
      assert.notEqual(fix, "");
    });
  }
});
