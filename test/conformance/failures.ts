import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { makeKey } from "./harness/sshd";
import type { Outcome, Resource, Stack } from "./harness/stack";
import type { World } from "./harness/world";

/** A resource that cannot be made, and the first words of the error. */
interface Case {
  readonly resource: Resource;
  readonly error: string;
}

function cases(world: World): Record<string, Case> {
  const { target, jump, closedPort, path } = world;
  const otherHost = readFileSync(`${path("other-host")}.pub`, "utf8").trim();
  const stranger = readFileSync(path("stranger"), "utf8");
  const locked = readFileSync(path("locked"), "utf8");
  const { privateKey: _, ...keyless } = target;
  const once = { dialErrorLimit: 0 };
  const closed = { ...target, port: closedPort };
  const local = (
    args: Record<string, unknown>,
    error: string,
    options = {},
  ): Omit<Resource, "name"> & { error: string } => ({
    type: "local.Command",
    args,
    options,
    error,
  });
  const remote = (
    connection: unknown,
    error: string,
    args: Record<string, unknown> = { create: "echo never" },
  ) => ({
    type: "remote.Command" as const,
    args: { connection, ...args },
    error,
  });
  const copy = (source: unknown, to: string, error: string) => ({
    type: "remote.CopyToRemote" as const,
    args: { connection: target, source, remotePath: to },
    error,
  });
  const all: Record<string, Omit<Resource, "name"> & { error: string }> = {
    "local exit code": local(
      { create: "echo said; sleep 1; echo complained >&2; exit 3" },
      'exit status 3: running "echo said; sleep 1; echo complained >&2; exit 3":\nsaid\ncomplained',
    ),
    "remote exit code": remote(
      target,
      'Process exited with status 3: running "echo said; sleep 1; echo complained >&2; exit 3":\nsaid\ncomplained',
      { create: "echo said; sleep 1; echo complained >&2; exit 3" },
    ),
    "local signal": local({ create: "kill -9 $$" }, 'signal: killed: running "kill -9 $$":'),
    "remote signal": remote(target, 'Process exited with status 143 from signal TERM: running "kill $$":', {
      create: "kill $$",
    }),
    "connection lost": remote(
      target,
      'wait: remote command exited without exit status or exit signal: running "echo said; sleep 1; kill -9 $PPID; sleep 9":\nsaid',
      { create: "echo said; sleep 1; kill -9 $PPID; sleep 9" },
    ),
    "local command with odd characters": local(
      { create: "false '\"é\t\\\n✓\u0001'" },
      'exit status 1: running "false \'\\"é\\t\\\\\\n✓\\x01\'":',
    ),
    "local time limit": local({ create: "exec sleep 60" }, 'signal: killed: running "exec sleep 60":', {
      customTimeouts: { create: "2s" },
    }),
    "interpreter that is not there": local(
      { create: "x", interpreter: ["no-such-program-here"] },
      'exec: "no-such-program-here": executable file not found in $PATH: running "x":',
    ),
    "interpreter path that is not there": local(
      { create: "x", interpreter: ["/no/such/program"] },
      'fork/exec /no/such/program: no such file or directory: running "x":',
    ),
    "directory that is not there": local(
      { create: "true", dir: "/no/such/directory" },
      'chdir /no/such/directory: no such file or directory: running "true":',
    ),
    "connection refused": remote(
      { ...closed, dialErrorLimit: 1 },
      "after 1 failed attempts: dial tcp 127.0.0.1:$CLOSED: connect: connection refused",
    ),
    "wrong host key": remote(
      { ...target, hostKey: otherHost, dialErrorLimit: 1 },
      "after 1 failed attempts: ssh: handshake failed: ssh: host key mismatch",
    ),
    "host key of a kind that the server has not": remote(
      { ...target, hostKey: readFileSync(`${path("ecdsa")}.pub`, "utf8"), ...once },
      "after 0 failed attempts: ssh: handshake failed: ssh: no common algorithm for host key; we offered: [ecdsa-sha2-nistp256]",
    ),
    "wrong host key behind the jump host": remote(
      { ...target, hostKey: otherHost, ...once, proxy: jump },
      "proxy: after 0 failed attempts: ssh: handshake failed: ssh: host key mismatch",
    ),
    "wrong host key of the jump host": remote(
      { ...target, proxy: { ...jump, hostKey: otherHost, ...once } },
      "proxy: after 0 failed attempts: ssh: handshake failed: ssh: host key mismatch",
    ),
    "host key that is none": remote(
      { ...target, hostKey: "nonsense" },
      "failed to parse host key: ssh: no key found",
    ),
    "unknown user key": remote(
      { ...target, privateKey: stranger, ...once },
      "after 0 failed attempts: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain",
    ),
    "password where none is taken": remote(
      { ...keyless, password: "guess", ...once },
      "after 0 failed attempts: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none], no supported methods remain",
    ),
    "unknown user key at the jump host": remote(
      { ...target, proxy: { ...jump, privateKey: stranger, ...once } },
      "proxy: after 0 failed attempts: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain",
    ),
    "private key that is none": remote({ ...target, privateKey: "nonsense" }, "ssh: no key found"),
    "private key that is none for the jump host": remote(
      { ...target, proxy: { ...jump, privateKey: "nonsense" } },
      "proxy: ssh: no key found",
    ),
    "locked private key": remote(
      { ...target, privateKey: locked },
      "ssh: this private key is passphrase protected",
    ),
    "locked private key, wrong passphrase": remote(
      { ...target, privateKey: locked, privateKeyPassword: "guess" },
      "x509: decryption password incorrect",
    ),
    "variable that the server does not take": remote(
      jump,
      'could not set environment variable "OTHER": ssh: setenv failed',
      {
        create: `touch ${path("ran-without-variable")}`,
        environment: { OTHER: "1" },
      },
    ),
    "jump host refused": remote(
      { ...target, proxy: { ...jump, port: closedPort, ...once } },
      "proxy: after 0 failed attempts: dial tcp 127.0.0.1:$CLOSED: connect: connection refused",
    ),
    "machine behind the jump host refused": remote(
      { ...closed, ...once, proxy: jump },
      "proxy: after 0 failed attempts: ssh: rejected: connect failed (Connection refused)",
    ),
    "name that is not found": remote(
      { ...target, host: "no-such-host.invalid", ...once },
      "after 0 failed attempts: dial tcp: lookup no-such-host.invalid: no such host",
    ),
    "copy of a text onto a directory": copy(
      { $text: "x" },
      path("."),
      "remote path $T/files is a directory; when using a text asset, remotePath must be a file path",
    ),
    "copy of a folder onto a file": copy(
      { $archive: path("folder") },
      path("other-host"),
      "failed to create remote directory $T/files/other-host/folder: file does not exist",
    ),
  };
  return Object.fromEntries(
    Object.entries(all).map(([title, { error, ...rest }]) => [
      title,
      { resource: { name: title.replace(/[ ,]+/g, "-"), ...rest }, error },
    ]),
  );
}

/** Inputs that are refused before anything is done. A program stops at the first, so each has a run of its own. */
function refusals(world: World): Record<string, Case> {
  const { target } = world;
  return {
    "a number for a text": {
      resource: { name: "bad-create", type: "local.Command", args: { create: 5 } },
      error: "Field 'create' on 'local.CommandInputs' must be a 'string'; got 'float64' instead",
    },
    "an unknown key in the connection": {
      resource: {
        name: "bad-key",
        type: "remote.Command",
        args: { connection: { ...target, hots: "x" }, create: "x" },
      },
      error: "Unrecognized field 'hots' on 'remote.Connection'",
    },
    "a connection without a host": {
      resource: { name: "no-host", type: "remote.Command", args: { connection: { user: "x" }, create: "x" } },
      error: "Missing required field 'host' on 'remote.Connection'",
    },
  };
}

/** Every failure, its message, and what the state is afterwards. */
export function failures(shared: () => World): void {
  let world: World;
  let stack: Stack;
  let outcome: Outcome;
  const listed = new Set<string>();

  before(async () => {
    world = shared();
    const { path } = world;
    makeKey(path("other-host"));
    makeKey(path("stranger"));
    makeKey(path("locked"), "open sesame");
    const { execFileSync } = await import("node:child_process");
    execFileSync("ssh-keygen", ["-q", "-t", "ecdsa", "-N", "", "-f", path("ecdsa")]);
    mkdirSync(path("folder"));
    writeFileSync(path("folder/x"), "x");
    stack = await world.stack("failures");
    outcome = await stack.up(
      Object.values(cases(world)).map(({ resource }) => resource),
      { title: "everything fails", fails: true, flags: ["--continue-on-error", "--parallel", "16"] },
    );
  });

  const titles = [
    "local exit code",
    "remote exit code",
    "local signal",
    "remote signal",
    "connection lost",
    "local command with odd characters",
    "local time limit",
    "interpreter that is not there",
    "interpreter path that is not there",
    "directory that is not there",
    "connection refused",
    "wrong host key",
    "host key of a kind that the server has not",
    "wrong host key behind the jump host",
    "wrong host key of the jump host",
    "host key that is none",
    "unknown user key",
    "password where none is taken",
    "unknown user key at the jump host",
    "private key that is none",
    "private key that is none for the jump host",
    "locked private key",
    "locked private key, wrong passphrase",
    "variable that the server does not take",
    "jump host refused",
    "machine behind the jump host refused",
    "name that is not found",
    "copy of a text onto a directory",
    "copy of a folder onto a file",
  ];
  for (const title of titles) {
    listed.add(title);
    it(title, () => {
      const found = cases(world)[title];
      assert.ok(found, `no such case: ${title}`);
      const errors = outcome.errors[found.resource.name] ?? [];
      assert.ok(
        errors.some((text) => text.startsWith(found.error)),
        `expected ${JSON.stringify(found.error)}, got ${JSON.stringify(errors)}`,
      );
      assert.equal(outcome.state[found.resource.name], undefined);
    });
  }
  it("tests every case", () => assert.deepEqual(Object.keys(cases(world)), [...listed]));
  it("does not run a command without its variables", () => {
    assert.ok(!existsSync(world.path("ran-without-variable")));
  });
  it("shows that it tries again", () => {
    assert.deepEqual(outcome.lines["connection-refused"], ["Dial 1/1 failed: retrying"]);
  });

  describe("refuses", () => {
    let own: Stack;
    before(async () => {
      own = await world.stack("refusals");
    });
    for (const title of [
      "a number for a text",
      "an unknown key in the connection",
      "a connection without a host",
    ]) {
      it(title, async () => {
        const { resource, error } = refusals(world)[title] as Case;
        const refused = await own.preview([resource], { title, fails: true });
        const errors = (refused.errors[resource.name] ?? []).join("\n");
        assert.ok(errors.includes(error), `expected ${JSON.stringify(error)}, got ${JSON.stringify(errors)}`);
      });
    }
  });

  describe("afterwards", () => {
    const fragile = (update: string, remove: string): Resource[] => [
      {
        name: "fragile",
        type: "local.Command",
        args: { create: "echo made", update, delete: remove, stdin: update },
      },
    ];
    let failedUpdate: Outcome;
    let failedDelete: Outcome;
    let deleted: Outcome;
    before(async () => {
      const own = await world.stack("fragile");
      await own.up(fragile("exit 4", "exit 5"), { title: "create" });
      failedUpdate = await own.up(fragile("echo more; exit 4", "exit 5"), {
        title: "update fails",
        fails: true,
      });
      failedDelete = await own.up([], { title: "delete fails", fails: true });
      writeFileSync(world.path("may-go"), "");
      await own.up(fragile("true", `test -e ${world.path("may-go")}`), { title: "repaired" });
      deleted = await own.up([], { title: "delete" });
    });
    it("a failed update leaves inputs and outputs as they were", () => {
      assert.deepEqual(failedUpdate.errors.fragile, ['exit status 4: running "echo more; exit 4":\nmore']);
      assert.equal(failedUpdate.state.fragile?.outputs.stdout, "made");
      assert.equal(failedUpdate.state.fragile?.inputs.stdin, "exit 4");
    });
    it("a failed delete leaves the resource", () => {
      assert.deepEqual(failedDelete.errors.fragile?.[0]?.split("\n")[0], 'exit status 5: running "exit 5":');
      assert.ok(failedDelete.state.fragile);
    });
    it("a delete that works again removes it", () => assert.deepEqual(deleted.state, {}));
  });
}
