#!/usr/bin/python3 -IS
"""Brings one layer of this machine to what a manifest says. Installed as /usr/local/lib/cosyvoice-lvs/apply.

    apply apply                                        the manifest (JSON) on standard input
    apply remove LAYER --owner OWNER                   takes back what the layer brought
    apply version

This text is the reference of the manifest's format. Keys marked * must be there; the others may be left out.

  layer*    name of the layer, a DNS label
  owner*    "stack/machine". The same stack under another machine name is a rename and takes the layer over;
            another stack is refused. `remove` by anyone but the present owner changes nothing and succeeds:
            after a rename the old name's delete comes last and must not wipe what the new name wrote.
  secret    true: no content and no program output is ever printed for this layer
  preflight [{name*, run*, fix}]     commands that must succeed before anything is changed
  packages  [name]     Debian packages; installed when missing, daemons not started by it, never removed
  users     [{name*, home*, uid}]   system user and group, no login, of that number or of one that is free;
            go with the layer
  directories {path: {mode, owner, purge, keep}}   mode = "0755", owner = "root:root". One that is a mount
            point at the moment is left alone. On removal: one that the layer made goes when it is empty, with
            all that is in it when `purge` is true (never across a mount point); one that was there before
            gets its mode and owner back.
  files     {path: {content*, mode, owner, check, checkOk, notify, keep}}   mode = "0644", owner = "root:root"
            check    shell command, {} = path of the staged new file, which lies in the same directory under
                     the name .cosyvoice-lvs-new.NAME; checkOk = exit codes that mean yes, [0]
            notify   list of "reload:UNIT", "restart:UNIT", "run:COMMAND", "daemon-reload" (by itself for
                     unit files)
            keep     true: stays when a later manifest no longer names it (releases that one can go back to);
                     goes with the layer. The same for directories and links.
  modules   [name]          loaded now and at boot (/etc/modules-load.d/cosyvoice-lvs-LAYER.conf)
  sysctls   {key: value}   set now and at boot (/etc/sysctl.d/60-cosyvoice-lvs-LAYER.conf), value as text; the
            value found is kept and restored on removal. A key with slashes is a path below /proc/sys.
  steps     [{name*, run*, unless, timeout}]   commands; left out when `unless` succeeds; timeout = 1800 (s)
  links     {path: target | {target*, notify, keep}}   symbolic links, replaced atomically
  units     {unit: {enabled, started, within}}   true = make it so, false = make it not so, absent = leave it.
            Units are started all at once, without waiting for each other; then each must be active `within`
            so many seconds (600: systemd's own limits come first; 0 = do not wait, for a mount whose server
            may be away).
  around    {name*, run*, within}   a program that stands around the change. It is started when everything is
            staged and checked and running units will be restarted, reloaded or stopped. Nothing live is
            touched before it prints a line "go". A line "say TEXT" is passed on; "no TEXT" or its end refuses
            the change; so do `within` seconds without "go" (86400) and the end of the caller's connection.
            Once the change has ended it reads "done", or "failed TEXT" after everything was put back, and is
            waited for; what it says then ("no TEXT") fails the run and undoes nothing.
  checks    [{name*, run*, within}]   after all else; tried every half second until success or `within` (10 s)
  onRemove  [command]       run on removal, after the units were stopped

Order: read and validate all, preflight, packages, users, directories, stage every file beside its place, all
file checks, around, put all files in place (atomic each), modules, sysctls, steps, links, enable,
daemon-reload, start, notifies (each once; none for a unit just started), wait, checks, record. What the
former manifest brought and this one lacks is taken back.

Promises:
  - A failed file check leaves every live file as it was. A failure after files were put in place puts them,
    links, sysctls and units back, and reloads what had been reloaded.
  - What will be touched is recorded first (/var/lib/cosyvoice-lvs/layers/LAYER.json, 0600). So after a kill
    or a power cut at any point the next `apply` finishes the job, with the reloads that were due, and
    `remove` finds everything.
  - Applied again, it changes nothing and says "unchanged".
  - A foreign file in the place of one of ours is kept (/var/lib/cosyvoice-lvs/originals/LAYER) and comes back
    on removal.

`compare` changes nothing. It prints, as a JSON list, what on the machine is not as the manifest on standard
input says: [{"what", "wanted", "found"}]. Programs of the manifest are not run, but for each step's `unless`.

Exit status: 0 done; 1 failed (the message says which step, why, and what to do); 2 wrong call or wrong
manifest.

Environment, for tests: COSYVOICE_LVS_ROOT puts a directory in front of every path (the programs called are
then looked up in the caller's PATH), COSYVOICE_LVS_LOCK_WAIT is the time to wait for another applier (600 s).
"""

import errno
import fcntl
import json
import os
import re
import signal
import stat
import sys
import time

VERSION = "1"
STATE = "/var/lib/cosyvoice-lvs"
STAGED = ".cosyvoice-lvs-new."
TAIL_LINES = 30
SYSTEMCTL_TIMEOUT = 200  # s; longer than systemd's own 90 s for a stop that has to be forced
APT_TIMEOUT = 1200  # s
USER_TIMEOUT = 20  # s; the unit of a user that is taken back may still be restarting
USERDEL_IN_USE = 8
# Debian's way to keep an installation from starting daemons, with their packaged configuration.
POLICY = "/usr/sbin/policy-rc.d"
POLICY_TEXT = b"#!/bin/sh\n# cosyvoice-lvs: there while packages are installed\nexit 101\n"
UNIT_DIRECTORIES = ("/etc/systemd/system/", "/usr/local/lib/systemd/system/", "/run/systemd/system/")
ENABLED_STATES = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "transient")
RUNNING_STATES = ("active", "activating", "reloading", "refreshing")


class Failed(Exception):
    """A step did not work out: which, why, what the program printed, what to do."""

    def __init__(self, step, reason, output="", fix=""):
        super().__init__(f"{step}: {reason}")
        self.step, self.reason, self.output, self.fix = step, reason, output, fix


class Wrong(Exception):
    """The manifest or the call is wrong; nothing was looked at yet."""


# ---------------------------------------------------------------------------------------------- the machine


class Machine:
    """Files and programs of this machine, below a root that is / except in tests."""

    def __init__(self, root=""):
        self.root = "" if root in ("", "/") else root.rstrip("/")
        self.privileged = os.geteuid() == 0
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "SYSTEMD_PAGER": "",
            "SYSTEMD_COLORS": "0",
        }
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            if name in os.environ:
                self.environment[name] = os.environ[name]
        if self.root:
            self.environment.update(PATH=os.environ.get("PATH", ""), COSYVOICE_LVS_ROOT=self.root)

    def at(self, path):
        """Where a path of the machine is found from here."""
        return self.root + path

    def run(self, argv, timeout):
        """Runs a program to its end: (exit code, output). 124 = it ran past `timeout` seconds and was killed.

        Standard output goes to a memory file and not to a pipe: a daemon that the program leaves behind then
        cannot keep the caller waiting. No subprocess module: importing it costs as much as a whole step under
        emulation.
        """
        output = os.memfd_create("output")
        try:
            try:
                pid = os.posix_spawnp(
                    argv[0],
                    argv,
                    self.environment,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, output, 1),
                        (os.POSIX_SPAWN_DUP2, output, 2),
                    ],
                    setsid=True,
                    setsigdef=[signal.SIGPIPE, signal.SIGHUP],
                )
            except OSError as error:
                return 127, f"{argv[0]}: {error.strerror}"
            deadline, pause, killed = time.monotonic() + timeout, 0.002, False
            try:
                while True:
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        break
                    if time.monotonic() > deadline and not killed:
                        killed = True
                        os.killpg(pid, signal.SIGKILL)
                    time.sleep(pause)
                    pause = min(pause * 2, 0.05)
            except BaseException:
                os.killpg(pid, signal.SIGKILL)
                raise
            size = os.lseek(output, 0, os.SEEK_END)
            text = os.pread(output, 65536, max(0, size - 65536)).decode("utf-8", "replace")
        finally:
            os.close(output)
        if killed:
            return 124, text + f"\n(killed after {timeout:g} s)"
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        return code, text

    def shell(self, command, timeout):
        return self.run(["/bin/sh", "-c", command], timeout)

    def ids(self, owner):
        """(uid, gid) of "user:group", None when a name is not there. (-1, -1) without root: tests only."""
        if not self.privileged:
            return -1, -1
        user, group = owner.split(":")
        uid, gid = self.number("/etc/passwd", user), self.number("/etc/group", group)
        return None if uid is None or gid is None else (uid, gid)

    def number(self, database, name):
        """Number of a user or group by name."""
        if name == "root" or name.isdigit():
            return 0 if name == "root" else int(name)
        if not self.root:
            import grp
            import pwd

            try:
                return pwd.getpwnam(name).pw_uid if database.endswith("passwd") else grp.getgrnam(name).gr_gid
            except KeyError:
                return None
        for entry in self.accounts(database):
            if entry[0] == name:
                return int(entry[2])
        return None

    def name(self, database, number):
        """Name of a user or group by number."""
        if not self.root:
            import grp
            import pwd

            try:
                return (
                    pwd.getpwuid(number).pw_name
                    if database.endswith("passwd")
                    else grp.getgrgid(number).gr_name
                )
            except KeyError:
                return None
        for entry in self.accounts(database):
            if int(entry[2]) == number:
                return entry[0]
        return None

    def accounts(self, database):
        try:
            with open(self.at(database)) as lines:
                return [line.rstrip("\n").split(":") for line in lines if line.count(":") >= 3]
        except FileNotFoundError:
            return []

    def mount_points(self):
        """Paths on which something is mounted, without touching them: the server may be away."""
        with open("/proc/self/mountinfo") as lines:
            points = [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]
        return {p[len(self.root) :] or "/" for p in points if p.startswith(self.root)}

    # -- one path

    def look(self, path):
        """What is there: {"kind": "absent" | "file" | "link" | "directory" | "other", ...}."""
        try:
            found = os.lstat(self.at(path))
        except (FileNotFoundError, NotADirectoryError):
            return {"kind": "absent"}
        if stat.S_ISLNK(found.st_mode):
            return {"kind": "link", "target": os.readlink(self.at(path))}
        about = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "uid": found.st_uid, "gid": found.st_gid}
        if stat.S_ISREG(found.st_mode):
            return dict(about, kind="file")
        return dict(about, kind="directory" if stat.S_ISDIR(found.st_mode) else "other")

    def read(self, path):
        with open(self.at(path), "rb") as file:
            return file.read()

    def stage(self, path, data, mode, uid=-1, gid=-1):
        """Writes a file beside its place; `commit` puts it there. Returns the staged file's path."""
        staged = staged_name(path)
        self.unlink(staged)  # of a run that was killed
        file = os.open(self.at(staged), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if uid >= 0 and self.privileged:
                os.fchown(file, uid, gid)
            os.fchmod(file, int(mode, 8))
            os.fsync(file)
        finally:
            os.close(file)
        return staged

    def commit(self, path):
        os.replace(self.at(staged_name(path)), self.at(path))

    def write(self, path, data, mode, uid=-1, gid=-1):
        self.stage(path, data, mode, uid, gid)
        self.commit(path)
        self.sync(os.path.dirname(path))

    def link(self, path, target):
        staged = staged_name(path)
        self.unlink(staged)
        os.symlink(target, self.at(staged))
        self.commit(path)
        self.sync(os.path.dirname(path))

    def unlink(self, path):
        try:
            os.unlink(self.at(path))
        except FileNotFoundError:
            pass

    def sync(self, directory):
        """Makes renames in a directory outlive a power cut."""
        fd = os.open(self.at(directory), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def make(self, directory, mode="0755"):
        """A directory and its parents; returns those that were not there, outermost first."""
        made, missing = [], []
        here = directory
        while not os.path.isdir(self.at(here)):
            missing.append(here)
            here = os.path.dirname(here)
        for path in reversed(missing):
            os.mkdir(self.at(path))
            os.chmod(self.at(path), int(mode, 8))
            made.append(path)
        return made

    # -- kept copies

    def keep(self, path, directory):
        """Copies what is at a path below `directory`; returns what `put_back` needs to restore it."""
        found = self.look(path)
        if found["kind"] == "file":
            self.make(directory, "0700")
            found["copy"] = directory + "/" + escaped(path)
            self.write(found["copy"], self.read(path), "0600")
        return found

    def put_back(self, path, kept):
        """Brings a path back to what `keep` (or `look`) saw there."""
        if kept["kind"] == "absent":
            self.unlink(path)
        elif kept["kind"] == "link":
            self.link(path, kept["target"])
        elif kept["kind"] == "file":
            self.make(os.path.dirname(path))
            self.write(path, self.read(kept["copy"]), kept["mode"], kept["uid"], kept["gid"])

    # -- sysctls

    def sysctl(self, key):
        """Present value, None when the kernel has no such key now."""
        try:
            return " ".join(self.read(sysctl_path(key)).decode().split())
        except FileNotFoundError:
            return None

    def set_sysctl(self, key, value):
        with open(self.at(sysctl_path(key)), "wb", buffering=0) as file:
            file.write(value.encode() + b"\n")

    # -- packages, modules, units

    def missing_packages(self, names):
        if not names:
            return []
        query = ["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\n", "--", *names]
        lines = self.run(query, 60)[1].splitlines()
        installed = {line.split("\t")[0] for line in lines if line.endswith("\tinstalled")}
        return [name for name in names if name not in installed]

    def missing_modules(self, names):
        # Containers see no /sys/module, and /proc/modules lacks what is built in.
        try:
            loaded = {line.split(b" ")[0].decode() for line in self.read("/proc/modules").splitlines()}
        except FileNotFoundError:
            loaded = set()
        return [
            name
            for name in names
            if name.replace("-", "_") not in loaded
            and not os.path.isdir(self.at("/sys/module/" + name.replace("-", "_")))
        ]

    def units(self, names):
        """State of units by name, one systemctl call for all."""
        names = sorted(names)
        if not names:
            return {}
        properties = "LoadState,ActiveState,SubState,UnitFileState,Type,Result,Job,NeedDaemonReload,NRestarts"
        code, text = self.run(["systemctl", "show", "--no-pager", "-p", "Id," + properties, "--", *names], 60)
        blocks = [b for b in text.strip("\n").split("\n\n") if b]
        if code or len(blocks) != len(names):
            raise Failed(
                "ask systemd", f"systemctl show exited with {code}", text, "is systemd running here?"
            )
        states = {}
        for name, block in zip(names, blocks):
            state = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            states[name] = {
                "active": state.get("ActiveState") in RUNNING_STATES,
                "enabled": state.get("UnitFileState") in ENABLED_STATES,
                "state": state.get("ActiveState", ""),
                "result": state.get("Result", ""),
                "oneshot": state.get("Type") == "oneshot",
                "job": state.get("Job", "") not in ("", "0"),
                "stale": state.get("NeedDaemonReload") == "yes",
                "restarts": int(state.get("NRestarts") or 0),
            }
        return states

    def systemctl(self, step, *arguments):
        code, text = self.run(["systemctl", *arguments], SYSTEMCTL_TIMEOUT)
        if code:
            raise Failed(step, "systemctl {} exited with {}".format(" ".join(arguments[:2]), code), text)

    def journal(self, unit):
        return self.run(
            ["journalctl", "-u", unit, "-n", str(TAIL_LINES), "--no-pager", "-o", "short-iso"], 30
        )[1]


def staged_name(path):
    # Hidden: what reads a whole directory must not take it up. With its ending, which checkers look at.
    return os.path.dirname(path) + "/" + STAGED + os.path.basename(path)


def escaped(path):
    return path.replace("%", "%25").replace("/", "%2F")


def sysctl_path(key):
    return "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))


def tail(text):
    lines = [line for line in text.rstrip().splitlines() if line.strip()]
    return "\n".join("    " + line for line in lines[-TAIL_LINES:])


# --------------------------------------------------------------------------------------------- the manifest

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
UNIT = r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|socket|target|mount|automount|timer|path|slice|swap)"
MODE, OWNER = r"0[0-7]{3}", r"([a-z_][a-z0-9_-]*|[0-9]+):([a-z_][a-z0-9_-]*|[0-9]+)"
NOTIFY = rf"(reload|restart):{UNIT}|daemon-reload|run:.+"


class Reader:
    """Reads the manifest strictly and collects every mistake instead of stopping at the first."""

    def __init__(self):
        self.mistakes, self.secret = [], False
        self.layer, self.machine = "?", os.uname().nodename  # for messages

    def wrong(self, where, value, expected):
        shown = json.dumps(value, ensure_ascii=False)
        shown = "(not shown)" if self.secret else shown if len(shown) <= 80 else shown[:77] + "..."
        self.mistakes.append(f"{where}: {shown}: {expected}")

    def text(self, where, value, pattern=None, expected="expected a text that is not empty"):
        good = (
            isinstance(value, str)
            and "\0" not in value
            and (value if pattern is None else re.fullmatch(pattern, value))
        )
        if not good:
            self.wrong(where, value, expected)
        return value if good else ""

    def number(self, where, value, low, high):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.wrong(where, value, f"expected a number from {low:g} to {high:g}")
            return low
        return value

    def flag(self, where, value):
        if not isinstance(value, bool):
            self.wrong(where, value, "expected true or false")
        return value is True

    def path(self, where, value):
        good = (
            isinstance(value, str)
            and value.startswith("/")
            and value == os.path.normpath(value)
            and value != "/"
        )
        good = good and "\0" not in value and "\n" not in value and len(escaped(value)) <= 200
        if not good:
            self.wrong(
                where,
                value,
                "expected an absolute path of at most 200 characters, without . or .. or a / at the end",
            )
        elif value.startswith(("/proc/", "/sys/", "/dev/", STATE + "/")):
            self.wrong(where, value, "this place is not for files of a layer")
        return value

    def entries(self, where, value, keys, required=()):
        """An object with known keys."""
        if not isinstance(value, dict):
            self.wrong(where, value, "expected an object")
            return {}
        for key in value:
            if key not in keys:
                self.wrong(f"{where}.{key}", value[key], "unknown key; known: {}".format(", ".join(keys)))
        for key in required:
            if key not in value:
                self.wrong(f"{where}.{key}", None, "missing")
        return {key: value[key] for key in value if key in keys}

    def mapping(self, where, value):
        if not isinstance(value, dict):
            self.wrong(where, value, "expected an object")
            return {}
        return value

    def list(self, where, value):
        if not isinstance(value, list):
            self.wrong(where, value, "expected a list")
            return []
        return value

    def commands(self, where, value, keys, numbers):
        """preflight, steps and checks: named commands."""
        result = []
        for index, item in enumerate(self.list(where, value)):
            here = f"{where}[{index}]"
            item = self.entries(here, item, ("name", "run", *keys, *numbers), ("name", "run"))
            for key in item:
                if key in numbers:
                    item[key] = self.number(f"{here}.{key}", item[key], *numbers[key])
                else:
                    item[key] = self.text(f"{here}.{key}", item[key])
            result.append(item)
        return result

    def notify(self, where, value):
        expected = 'expected "reload:UNIT", "restart:UNIT", "daemon-reload" or "run:COMMAND"'
        return [
            self.text(f"{where}[{i}]", v, NOTIFY, expected) for i, v in enumerate(self.list(where, value))
        ]

    def read(self, text):
        try:
            raw = json.loads(text)
        except ValueError as error:  # its message holds a position and no content
            raise Wrong(f"the manifest is not JSON: {error}")
        if not isinstance(raw, dict):
            raise Wrong("the manifest is not a JSON object")
        self.secret = raw.get("secret") is not False and "secret" in raw
        raw = self.entries("manifest", raw, MANIFEST_KEYS, ("layer", "owner"))
        expected = 'expected a DNS label such as "director"'
        layer = self.text("layer", raw["layer"], LABEL, expected) if "layer" in raw else ""
        self.layer = layer or self.layer
        m = {"layer": layer, "secret": self.flag("secret", raw.get("secret", False))}
        owner = raw.get("owner", "a/" + self.machine)
        m["owner"] = self.text(
            "owner", owner, r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+", 'expected "stack/machine"'
        )
        self.machine = m["owner"].rsplit("/", 1)[-1] or self.machine
        fix = {"fix": True}
        m["preflight"] = self.commands("preflight", raw.get("preflight", []), tuple(fix), {})
        m["packages"] = [
            self.text(f"packages[{i}]", p, r"[a-z0-9][a-z0-9+.-]+", "expected the name of a Debian package")
            for i, p in enumerate(self.list("packages", raw.get("packages", [])))
        ]
        m["modules"] = [
            self.text(f"modules[{i}]", p, r"[A-Za-z0-9_-]+", "expected the name of a kernel module")
            for i, p in enumerate(self.list("modules", raw.get("modules", [])))
        ]
        m["sysctls"] = self.read_sysctls(raw.get("sysctls", {}))
        m["users"] = self.read_users(raw.get("users", []))
        m["directories"], m["files"] = {}, {}
        for path, entry in self.mapping("directories", raw.get("directories", {})).items():
            m["directories"][path] = self.read_directory(f'directories["{path}"]', path, entry)
        for path, entry in self.mapping("files", raw.get("files", {})).items():
            m["files"][path] = self.read_file(f'files["{path}"]', path, entry)
        m["steps"] = self.commands("steps", raw.get("steps", []), ("unless",), {"timeout": (1, 86400)})
        m["links"] = self.read_links(raw.get("links", {}))
        m["units"] = {}
        for unit, entry in self.mapping("units", raw.get("units", {})).items():
            where = f'units["{unit}"]'
            self.text(where, unit, UNIT, "expected the full name of a unit, such as keepalived.service")
            entry = self.entries(where, entry, ("enabled", "started", "within"))
            state = {k: self.flag(f"{where}.{k}", entry[k]) for k in ("enabled", "started") if k in entry}
            state["within"] = self.number(where + ".within", entry.get("within", 600), 0, 3600)
            m["units"][unit] = state
        m["around"] = None
        if "around" in raw:
            (m["around"],) = self.commands("around", [raw["around"]], (), {"within": (1, 604800)})
        m["checks"] = self.commands("checks", raw.get("checks", []), (), {"within": (0, 3600)})
        m["onRemove"] = [
            self.text(f"onRemove[{i}]", c)
            for i, c in enumerate(self.list("onRemove", raw.get("onRemove", [])))
        ]
        self.cross_check(m)
        if self.mistakes:
            what = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
            raise Wrong("the manifest has {}:\n{}".format(what, "\n".join("    " + x for x in self.mistakes)))
        return m

    def read_sysctls(self, raw):
        expected = "expected a key such as net.ipv4.ip_forward"
        values = {}
        for key, value in self.mapping("sysctls", raw).items():
            where = f'sysctls["{key}"]'
            if ".." in key or "//" in key or key.startswith("/"):
                self.wrong(where, key, expected)
            self.text(where, key, r"[A-Za-z0-9_./:*@-]+", expected)
            values[key] = self.text(where, value, r"[^\n]+", "expected the value as a text of one line")
        return values

    def read_users(self, raw):
        users = []
        for index, user in enumerate(self.list("users", raw)):
            where = f"users[{index}]"
            user = self.entries(where, user, ("name", "uid", "home"), ("name", "home"))
            self.text(
                where + ".name", user.get("name", "x"), r"[a-z_][a-z0-9_-]{0,30}", "expected a user name"
            )
            uid = user.get("uid", 1)
            if isinstance(uid, bool) or not isinstance(uid, int) or not 1 <= uid < 65534:
                self.wrong(where + ".uid", uid, "expected a whole number from 1 to 65533")
            self.path(where + ".home", user.get("home", "/x"))
            users.append(user)
        return users

    def read_mode(self, where, entry, default):
        mode = self.text(
            where + ".mode", entry.get("mode", default), MODE, 'expected an octal text such as "0644"'
        )
        owner = self.text(where + ".owner", entry.get("owner", "root:root"), OWNER, 'expected "user:group"')
        return {"mode": mode, "owner": owner, "keep": self.flag(where + ".keep", entry.get("keep", False))}

    def read_directory(self, where, path, raw):
        self.path(where, path)
        raw = self.entries(where, raw, ("mode", "owner", "purge", "keep"))
        entry = self.read_mode(where, raw, "0755")
        entry["purge"] = self.flag(where + ".purge", raw.get("purge", False))
        return entry

    def read_file(self, where, path, raw):
        self.path(where, path)
        keys = ("content", "mode", "owner", "check", "checkOk", "notify", "keep")
        raw = self.entries(where, raw, keys, ("content",))
        entry = self.read_mode(where, raw, "0644")
        content = raw.get("content", "")
        if not isinstance(content, str):
            self.mistakes.append(f"{where}.content: expected a text")
            content = ""
        entry["content"] = content.encode("utf-8", "surrogateescape")
        if "check" in raw:
            entry["check"] = self.text(
                where + ".check", raw["check"], r"(?s).*\{\}.*", "expected a command with {} in it"
            )
        codes = self.list(where + ".checkOk", raw.get("checkOk", [0]))
        entry["checkOk"] = [self.number(f"{where}.checkOk[{i}]", c, 0, 255) for i, c in enumerate(codes)]
        entry["notify"] = self.notify(where + ".notify", raw.get("notify", []))
        return entry

    def read_links(self, raw):
        links = {}
        for path, entry in self.mapping("links", raw).items():
            where = f'links["{path}"]'
            self.path(where, path)
            if isinstance(entry, str):
                entry = {"target": entry}
            entry = self.entries(where, entry, ("target", "notify", "keep"), ("target",))
            target = self.text(where + ".target", entry.get("target", "-"))
            links[path] = {
                "target": target,
                "notify": self.notify(where + ".notify", entry.get("notify", [])),
                "keep": self.flag(where + ".keep", entry.get("keep", False)),
            }
        return links

    def cross_check(self, m):
        """Mistakes between entries that are right by themselves."""
        for part in ("modules", "sysctls"):
            path = implied_path(part, m["layer"])
            if m[part] and path in m["files"]:
                self.wrong(f'files["{path}"]', path, f"this file is written from `{part}`")
        kinds = [(p, k) for k in ("files", "links", "directories") for p in m[k]]
        seen = {}
        for path, kind in kinds:
            if path in seen:
                self.wrong(f'{kind}["{path}"]', path, f"the same path is in {seen[path]}")
            seen[path] = kind
        for path, kind in kinds:
            parent = os.path.dirname(path)
            while parent != "/" and parent:
                if seen.get(parent) == "files":
                    self.wrong(f'{kind}["{path}"]', path, f"{parent} above it is a file in this manifest")
                parent = os.path.dirname(parent)
        for key in ("name", "uid"):
            values = [u[key] for u in m["users"] if key in u]
            for value in sorted({str(v) for v in values if values.count(v) > 1}):
                self.wrong("users", value, f"two users with the same {key}")


MANIFEST_KEYS = (
    *("layer", "owner", "secret", "preflight", "packages", "users", "directories", "files"),
    *("modules", "sysctls", "steps", "links", "units", "around", "checks", "onRemove"),
)


def implied_path(part, layer):
    if part == "modules":
        return f"/etc/modules-load.d/cosyvoice-lvs-{layer}.conf"
    return f"/etc/sysctl.d/60-cosyvoice-lvs-{layer}.conf"


def implied_files(m):
    """The files that `modules` and `sysctls` stand for, so that they come back at boot."""
    files = {}
    contents = {
        "modules": "".join(name + "\n" for name in m["modules"]),
        "sysctls": "".join("{} = {}\n".format(*item) for item in sorted(m["sysctls"].items())),
    }
    for part, content in contents.items():
        if content:
            entry = {
                "mode": "0644",
                "owner": "root:root",
                "content": content.encode(),
                "checkOk": [0],
                "notify": [],
                "keep": False,
            }
            files[implied_path(part, m["layer"])] = entry
    return files


# ------------------------------------------------------------------------------------------------ one layer


def record_path(layer):
    return f"{STATE}/layers/{layer}.json"


def read_record(machine, path):
    try:
        return json.loads(machine.read(path))
    except FileNotFoundError:
        return None
    except ValueError:
        fix = "something else has damaged it; move it away if the layer is to start afresh"
        raise Failed("read the record", f"{path} is not JSON", fix=fix)


class Layer:
    """A layer on this machine: what is recorded of it, and the change under way."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name
        self.originals = f"{STATE}/originals/{name}"
        self.previous = f"{STATE}/previous/{name}"
        self.record = read_record(machine, record_path(name))
        self.saved = json.dumps(self.record, sort_keys=True)
        self.others = {}  # records of the machine's other layers
        try:
            names = sorted(os.listdir(machine.at(STATE + "/layers")))
        except FileNotFoundError:
            names = []
        for file in names:
            if file.endswith(".json") and not file.startswith(".") and file != name + ".json":
                self.others[file[:-5]] = read_record(machine, f"{STATE}/layers/{file}")

    def save(self):
        """Writes the record when it says something new."""
        text = json.dumps(self.record, sort_keys=True)
        if text != self.saved:
            path = record_path(self.name)
            if not os.path.isdir(self.machine.at(STATE)):
                self.machine.make(STATE, "0700")
            self.machine.make(os.path.dirname(path), "0700")
            self.machine.write(path, text.encode() + b"\n", "0600")
            self.saved = text

    def forget(self):
        """The layer is gone: so are its record and kept copies."""
        self.machine.unlink(record_path(self.name))
        self.machine.unlink(staged_name(record_path(self.name)))
        self.drop_copies(self.originals)
        self.drop_copies(self.previous)
        self.saved, self.record = "null", None

    def copies(self, directory):
        try:
            return os.listdir(self.machine.at(directory))
        except FileNotFoundError:
            return []

    def drop_copies(self, directory, used=()):
        """Deletes kept copies but those in use, and the folders when they are empty."""
        for name in self.copies(directory):
            if directory + "/" + name not in used:
                self.machine.unlink(directory + "/" + name)
        for folder in (directory, os.path.dirname(directory)):
            try:
                os.rmdir(self.machine.at(folder))
            except OSError:
                pass  # in use, by this layer or another, or never made

    def clear_up(self, record):
        """What a run that was killed has left lying about."""
        transaction = record.get("transaction")
        if not transaction:
            return
        for path in [*transaction.get("staged", []), *transaction["paths"], POLICY]:
            self.machine.unlink(staged_name(path))
        for directory in (self.originals, self.previous):
            for name in self.copies(directory):
                if name.startswith(STAGED):
                    self.machine.unlink(directory + "/" + name)
        if self.machine.look(POLICY)["kind"] == "file" and self.machine.read(POLICY) == POLICY_TEXT:
            self.machine.unlink(POLICY)

    def holder(self, part, key):
        """Another layer that has the same file, link or sysctl."""
        for name, record in self.others.items():
            if key in record.get(part, {}):
                return name
        return None

    # -- taking back; each of these is also what `remove` is made of

    def remove_unit_states(self, units):
        """Stops and disables units, except as far as they were running or enabled before the layer came."""
        states = self.machine.units(units)
        stop = [u for u in reversed(list(units)) if states[u]["active"] and not units[u]["prior"]["active"]]
        disable = [u for u in stop if states[u]["enabled"] and not units[u]["prior"]["enabled"]]
        disable += [
            u for u in units if u not in stop and states[u]["enabled"] and not units[u]["prior"]["enabled"]
        ]
        disable = [u for u in disable if units[u].get("enabled")]
        stop = [u for u in stop if units[u].get("started")]
        if stop:
            self.machine.systemctl("stop units", "stop", "--", *stop)
        if disable:
            self.machine.systemctl("disable units", "disable", "--no-reload", "--", *disable)
        return stop

    def restore_sysctl(self, key, entry):
        holder = self.holder("sysctls", key)
        if (
            holder is None
            and entry["prior"] is not None
            and self.machine.sysctl(key) not in (None, entry["prior"])
        ):
            self.machine.set_sysctl(key, entry["prior"])

    def remove_directory(self, path, entry, mounts):
        """True when the directory is no longer the layer's concern."""
        machine = self.machine
        if path in mounts:
            raise Failed(
                "remove directories",
                f"something is mounted on {path}",
                fix="unmount it and remove the layer again",
            )
        if "prior" in entry:
            found = machine.look(path)
            if found["kind"] == "directory":
                self.set_directory(path, entry["prior"]["mode"], entry["prior"]["uid"], entry["prior"]["gid"])
            return
        if entry.get("purge"):
            below = sorted(m for m in mounts if m.startswith(path + "/"))
            if below:
                fix = "unmount it and remove the layer again"
                raise Failed(
                    "remove directories", f"something is mounted on {below[0]}, below {path}", fix=fix
                )
            import shutil

            if machine.look(path)["kind"] == "directory":
                shutil.rmtree(machine.at(path))
            return
        try:
            os.rmdir(machine.at(path))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
                raise

    def set_directory(self, path, mode, uid, gid):
        if uid >= 0 and self.machine.privileged:
            os.chown(self.machine.at(path), uid, gid)
        os.chmod(self.machine.at(path), int(mode, 8))


class Apply(Layer):
    """One run of `apply`."""

    def __init__(self, machine, manifest):
        super().__init__(machine, manifest["layer"])
        self.m = manifest
        self.wanted_files = dict(manifest["files"], **implied_files(manifest))
        self.step = "read the machine"
        self.done = []  # what was changed, in words
        self.tx = None  # the change under way, as recorded
        self.states = {}  # units before the change
        self.changed = []  # files that differ
        self.just_started, self.restarted, self.awaited = [], [], {}
        self.dropped_units = []  # stopped for good: nothing is left to reload
        self.around = None

    # -- the run

    def run(self):
        self.check_owner()
        if self.record is None:
            self.record = {"format": 1, "layer": self.name, "owner": self.m["owner"], "state": "applied"}
        for part in ("files", "links", "units", "sysctls", "directories", "users"):
            self.record.setdefault(part, {})
        for part in ("packages", "modules", "onRemove"):
            self.record.setdefault(part, [])
        try:
            self.clear_up(self.record)
            self.tx = self.record.get("transaction")
            self.check_conflicts()
            self.preflight()
            self.look_at_units()
            self.install_packages()
            self.make_users()
            self.make_directories()
            self.stage_files()
            if self.m["around"] and self.disturbs():
                self.begin_around(self.m["around"])
            self.drop_units()
            self.replace_files()
            self.load_modules()
            self.set_sysctls()
            self.run_steps()
            self.set_links()
            self.enable_units()
            self.start_units()
            self.send_notifies()
            self.wait_for_units()
            self.run_checks()
        except (Failed, OSError) as error:
            failure = self.undo(error if isinstance(error, Failed) else Failed(self.step, str(error)))
            if self.around:
                self.around.end("failed {}: {}".format(failure.step, " ".join(failure.reason.split())))
            raise failure
        self.finish()
        if self.around:
            self.around.end("done")
        return "layer {}: {}".format(self.name, ", ".join(self.done) if self.done else "unchanged")

    def check_owner(self):
        owner = (self.record or {}).get("owner", self.m["owner"])
        if stack_of(owner) != stack_of(self.m["owner"]):
            fix = "destroy it there first, or take this machine out of one of the two stacks"
            reason = 'it belongs to "{}" and this deployment is "{}"'.format(owner, self.m["owner"])
            raise Failed("check the owner", reason, fix=fix)

    def check_conflicts(self):
        """What can be refused before anything is changed."""
        self.step = "check against the machine"
        for paths in (self.wanted_files, self.m["links"]):
            for path in paths:
                holder = self.holder("files", path) or self.holder("links", path)
                if holder:
                    raise Failed(
                        self.step, f"{path} belongs to layer {holder}", fix="name it in one layer only"
                    )
                found = self.machine.look(path)["kind"]
                if found in ("directory", "other"):
                    what = "a directory" if found == "directory" else "no regular file"
                    raise Failed(
                        self.step, f"{path} is {what} on this machine", fix="move it away, then run again"
                    )
        for key, value in self.m["sysctls"].items():
            holder = self.holder("sysctls", key)
            if holder and self.others[holder]["sysctls"][key]["value"] != value:
                theirs = self.others[holder]["sysctls"][key]["value"]
                reason = f"sysctl {key}: {value} here, {theirs} in layer {holder}"
                raise Failed(self.step, reason, fix="give both the same value")
        for user in self.m["users"]:
            if "uid" in user:
                self.check_user(user)

    def check_user(self, user):
        for database, what in (("/etc/passwd", "user"), ("/etc/group", "group")):
            number = self.machine.number(database, user["name"])
            name = self.machine.name(database, user["uid"])
            if number is not None and number != user["uid"]:
                reason = "{} {} has number {} on this machine and should have {}".format(
                    what, user["name"], number, user["uid"]
                )
                raise Failed(
                    "check users", reason, fix="choose that number in the configuration, or another user name"
                )
            if name is not None and name != user["name"]:
                reason = "number {} is taken by {} {}".format(user["uid"], what, name)
                raise Failed("check users", reason, fix="choose a number that is free on every machine")

    def preflight(self):
        for entry in self.m["preflight"]:
            self.step = "preflight: " + entry["name"]
            code, text = self.machine.shell(entry["run"], 60)
            if code:
                raise Failed(self.step, f"exit code {code}", text, entry.get("fix", ""))

    # -- intent

    def intend(self):
        """From here on the record says that a change is under way. Then comes `save`, then the change."""
        if self.tx is None:
            base = json.loads(self.saved)
            self.tx = {
                "base": base,
                "paths": {},
                "sysctls": {},
                "directories": {},
                "users": [],
                "notify": [],
                "units": {},
            }
        self.record["transaction"], self.record["state"] = self.tx, "applying"
        self.record["owner"] = self.m["owner"]
        for unit, state in self.states.items():
            self.tx["units"].setdefault(unit, {"active": state["active"], "enabled": state["enabled"]})

    def remember_path(self, path, notify):
        """Before a file or link changes: what was there, and which reloads are due from here on."""
        if path not in self.tx["paths"]:
            self.tx["paths"][path] = self.machine.keep(path, self.previous)
        for item in notify + (["daemon-reload"] if path.startswith(UNIT_DIRECTORIES) else []):
            if item not in self.tx["notify"]:
                self.tx["notify"].append(item)

    # -- steps

    def look_at_units(self):
        self.step = "ask systemd"
        units = set(self.m["units"]) | set(self.record["units"])
        notifies = [
            n for e in list(self.wanted_files.values()) + list(self.m["links"].values()) for n in e["notify"]
        ]
        notifies += [
            n for part in ("files", "links") for e in self.record[part].values() for n in e.get("notify", [])
        ]
        units |= {n.split(":", 1)[1] for n in notifies if n.startswith(("reload:", "restart:"))}
        self.states = self.machine.units(units)
        for unit in self.m["units"]:
            if unit not in self.record["units"]:
                prior = {"active": self.states[unit]["active"], "enabled": self.states[unit]["enabled"]}
                self.record["units"][unit] = {"prior": prior}

    def install_packages(self):
        self.step = "install packages"
        missing = self.machine.missing_packages(self.m["packages"])
        if not missing:
            return
        self.intend()
        self.record["packages"] = sorted(set(self.record["packages"]) | set(missing))
        self.save()
        policy = self.hold_daemons()
        try:
            self.apt_install(missing)
        finally:
            if policy:
                self.machine.unlink(POLICY)
        self.done.append("installed " + " ".join(missing))

    def hold_daemons(self):
        """Keeps dpkg from starting daemons. False: there is a policy on this machine already."""
        found = self.machine.look(POLICY)["kind"]
        if found != "absent":
            return False
        self.machine.make(os.path.dirname(POLICY))
        self.machine.write(POLICY, POLICY_TEXT, "0755")
        return True

    def apt_install(self, packages):
        options = ["-y", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Get::AllowUnauthenticated=false"]
        options += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
        install = ["apt-get", "install", "--no-install-recommends", *options, "--", *packages]
        code, text = self.machine.run(install, APT_TIMEOUT)
        if code and "dpkg --configure -a" in text:  # an earlier installation was killed
            self.machine.run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], APT_TIMEOUT)
            code, text = self.machine.run(install, APT_TIMEOUT)
        if not code:
            return
        updated, update_text = self.machine.run(
            ["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=300"], APT_TIMEOUT
        )
        code, text = self.machine.run(install, APT_TIMEOUT)
        if code:
            reason = "apt-get install {} exited with {}".format(" ".join(packages), code)
            if updated:
                text = update_text + "\n" + text
                reason += f", apt-get update with {updated}"
            raise Failed(
                self.step, reason, text, "see that this machine reaches its package mirror (apt-get update)"
            )

    def make_users(self):
        for user in self.m["users"]:
            self.step = "make user " + user["name"]
            name, number = user["name"], str(user.get("uid", ""))
            have_group = self.machine.number("/etc/group", name) is not None
            have_user = self.machine.number("/etc/passwd", name) is not None
            if have_group and have_user:
                continue
            self.intend()
            if name not in self.record["users"]:
                self.record["users"][name] = {"user": not have_user, "group": not have_group}
                self.tx["users"].append(name)
            self.save()
            if not have_group:
                self.program("groupadd", "--system", *(["--gid", number] if number else []), name)
            if not have_user:
                options = [*(["--uid", number] if number else []), "--gid", number or name]
                options += ["--no-create-home", "--home-dir", user["home"], "--shell", "/usr/sbin/nologin"]
                self.program("useradd", "--system", *options, name)
            self.done.append(f"user {name} made")

    def program(self, *argv):
        code, text = self.machine.run(list(argv), 60)
        if code:
            raise Failed(self.step, f"{argv[0]} exited with {code}", text)

    def make_directories(self):
        self.step = "make directories"
        wanted = dict(self.m["directories"])
        for path in list(self.wanted_files) + list(self.m["links"]):
            parent = os.path.dirname(path)
            if parent not in wanted and not os.path.isdir(self.machine.at(parent)):
                wanted[parent] = {
                    "mode": "0755",
                    "owner": "root:root",
                    "purge": False,
                    "keep": False,
                    "implied": True,
                }
        mounts, count = None, 0
        for path in sorted(wanted):
            entry = wanted[path]
            if mounts is None:
                mounts = self.machine.mount_points()
            if path in mounts:
                self.record["directories"].setdefault(path, {"made": True})
                continue
            if os.path.isdir(self.machine.at(path)):
                if not entry.get("implied"):
                    count += self.adjust_directory(path, entry)
                continue
            if self.machine.look(path)["kind"] != "absent":
                raise Failed(
                    self.step, f"{path} is there and is no directory", fix="move it away, then run again"
                )
            missing, here = [], path
            while not os.path.isdir(self.machine.at(here)):
                missing.append(here)
                here = os.path.dirname(here)
            self.intend()
            for new in missing:
                self.record["directories"].setdefault(new, {"made": True})
                self.tx["directories"].setdefault(new, {"made": True})
            self.save()
            self.machine.make(path)
            uid, gid = self.owner(path, entry["owner"])
            self.set_directory(path, entry["mode"], uid, gid)
            count += 1
        for path, entry in self.m["directories"].items():
            held = self.record["directories"].setdefault(path, {"made": True})
            held.update(purge=entry["purge"], keep=entry["keep"])
        if count:
            self.done.append(counted(count, "directory", "directories") + " made or changed")

    def adjust_directory(self, path, entry):
        """Mode and owner of a directory that is there; 1 when they had to change."""
        uid, gid = self.owner(path, entry["owner"])
        found = os.stat(self.machine.at(path))
        prior = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "uid": found.st_uid, "gid": found.st_gid}
        self.record["directories"].setdefault(path, {"prior": prior})
        if prior["mode"] == entry["mode"] and (uid < 0 or (prior["uid"], prior["gid"]) == (uid, gid)):
            return 0
        self.intend()
        self.tx["directories"].setdefault(path, {"prior": prior})
        self.save()
        self.set_directory(path, entry["mode"], uid, gid)
        return 1

    def owner(self, path, owner):
        ids = self.machine.ids(owner)
        if ids is None:
            fix = "name an account that exists, or list it under users"
            raise Failed(self.step, f"{path}: there is no {owner} on this machine", fix=fix)
        return ids

    def stage_files(self):
        """Writes every file that differs beside its place, then lets its checker read it there."""
        self.step = "stage files"
        machine = self.machine
        owners = {}
        for path, entry in self.wanted_files.items():
            uid, gid = owners[path] = self.owner(path, entry["owner"])
            found = machine.look(path)
            same = found["kind"] == "file" and found["mode"] == entry["mode"]
            same = same and (uid < 0 or (found["uid"], found["gid"]) == (uid, gid))
            if not (same and machine.read(path) == entry["content"]):
                self.changed.append(path)
        if self.changed:
            self.intend()
            self.tx["staged"] = sorted(set(self.tx.get("staged", [])) | set(self.changed))
            self.save()
        for path in self.changed:
            entry = self.wanted_files[path]
            machine.stage(path, entry["content"], entry["mode"], *owners[path])
        for path in self.changed:
            entry = self.wanted_files[path]
            if "check" in entry:
                self.step = "check " + path
                staged = machine.at(staged_name(path))
                code, text = machine.shell(entry["check"].replace("{}", quoted(staged)), 60)
                if code not in entry["checkOk"]:
                    text = text.replace(staged, path)
                    program = entry["check"].split()[0]
                    reason = f"{program} refuses the new {path} (exit code {code})"
                    raise Failed(
                        self.step, reason, text, "no live file was touched; correct the configuration"
                    )

    def disturbs(self):
        """Whether this run restarts, reloads or stops a unit that runs."""
        links, wanted = self.m["links"], self.m["units"]
        changed = [e["notify"] for p, e in self.wanted_files.items() if p in self.changed]
        changed += [e["notify"] for p, e in links.items() if self.differs(p, e)]
        for part in ("files", "links"):
            gone = [p for p in self.record[part] if p not in self.wanted_files and p not in links]
            changed += [self.record[part][p].get("notify", []) for p in gone]
        changed.append(self.pending())  # of a run that was killed
        due = {
            n.split(":", 1)[1] for notify in changed for n in notify if n.startswith(("reload:", "restart:"))
        }
        due |= {u for u, e in wanted.items() if e.get("started") is False}
        due |= {u for u in self.record["units"] if u not in wanted}
        return any(self.states[u]["active"] for u in due)

    def begin_around(self, entry):
        self.step = entry["name"]
        self.around = Around(self.machine, entry, quiet=self.m["secret"])
        self.around.begin()

    def drop_units(self):
        """Units that only the former manifest had: stopped while their unit files are still there."""
        self.step = "stop units that are no longer wanted"
        dropped = {u: e for u, e in self.record["units"].items() if u not in self.m["units"]}
        if not dropped:
            return
        self.intend()
        self.save()
        stopped = self.remove_unit_states(dropped)
        self.dropped_units = list(stopped)
        for unit in stopped:
            self.done.append(unit + " stopped")
        for unit in dropped:
            if unit not in stopped:
                self.done.append(unit + " let go")

    def replace_files(self):
        self.step = "put files in place"
        machine, files = self.machine, self.record["files"]
        dropped = [p for p, e in files.items() if p not in self.wanted_files and not e.get("keep")]
        dropped = [p for p in dropped if p not in self.m["links"]]
        for path in [p for p, e in files.items() if p not in self.wanted_files and e.get("keep")]:
            if machine.look(path)["kind"] == "absent":
                del files[path]  # a step has cleared it away
        for path, entry in self.wanted_files.items():
            held = files.get(path)
            if held is None and path not in self.changed:
                # Word for word ours already, by whomever: nothing of a stranger's would be lost on removal.
                files[path] = held = {"original": {"kind": "absent"}}
            elif held is None:
                former = self.record["links"].get(path)
                original = former["original"] if former else machine.keep(path, self.originals)
                files[path] = held = {"original": original}
            held.update(notify=entry["notify"], keep=entry["keep"])
        if self.changed or dropped:
            self.intend()
            for path in self.changed:
                self.remember_path(path, self.wanted_files[path]["notify"])
            for path in dropped:
                self.remember_path(path, files[path].get("notify", []))
            self.save()
        for path in self.changed:
            machine.commit(path)
        for directory in sorted({os.path.dirname(p) for p in self.changed}):
            machine.sync(directory)
        for path in dropped:
            machine.put_back(path, files[path]["original"])
        if self.changed:
            self.done.append("{} changed ({})".format(counted(len(self.changed), "file"), some(self.changed)))
        if dropped:
            self.done.append("{} taken back ({})".format(counted(len(dropped), "file"), some(dropped)))
        self.dropped_files = dropped

    def load_modules(self):
        self.step = "load kernel modules"
        missing = self.machine.missing_modules(self.m["modules"])
        if missing:
            code, text = self.machine.run(["modprobe", "-a", "--", *missing], 60)
            if code:
                fix = (
                    "install the package with the running kernel's modules, or reboot after a kernel upgrade"
                )
                raise Failed(
                    self.step, "modprobe -a {} exited with {}".format(" ".join(missing), code), text, fix
                )
        self.record["modules"] = self.m["modules"]

    def set_sysctls(self):
        machine, held = self.machine, self.record["sysctls"]
        todo = []
        for key, value in self.m["sysctls"].items():
            self.step = "set sysctl " + key
            now = machine.sysctl(key)
            if now is None:
                fix = "its kernel module or interface is missing; name the module under modules"
                raise Failed(self.step, "this kernel has no such key", fix=fix)
            if key not in held:
                holder = self.holder("sysctls", key)
                held[key] = {"prior": self.others[holder]["sysctls"][key]["prior"] if holder else now}
            held[key]["value"] = value
            if now != " ".join(value.split()):
                todo.append((key, value, now))
        dropped = {k: e for k, e in held.items() if k not in self.m["sysctls"]}
        if todo or dropped:
            self.intend()
            for key, _, now in todo:
                self.tx["sysctls"].setdefault(key, now)
            for key in dropped:
                now = machine.sysctl(key)
                if now is not None:
                    self.tx["sysctls"].setdefault(key, now)
            self.save()
        for key, value, _ in todo:
            self.step = f"set sysctl {key} = {value}"
            machine.set_sysctl(key, value)
            now = machine.sysctl(key)
            if now != " ".join(value.split()):
                raise Failed(
                    self.step, f"the kernel made {now} of it", fix="use a value that this kernel takes"
                )
        for key, entry in dropped.items():
            self.step = "restore sysctl " + key
            self.restore_sysctl(key, entry)
        if todo:
            self.done.append(counted(len(todo), "sysctl") + " set")
        if dropped:
            self.done.append(counted(len(dropped), "sysctl") + " restored")
        self.dropped_sysctls = dropped

    def run_steps(self):
        for entry in self.m["steps"]:
            self.step = entry["name"]
            if "unless" in entry and not self.machine.shell(entry["unless"], 60)[0]:
                continue
            if "unless" in entry:
                self.intend()
                self.save()
            code, text = self.machine.shell(entry["run"], entry.get("timeout", 1800))
            if code:
                raise Failed(self.step, f"exit code {code}", text)
            if "unless" in entry:
                self.done.append(entry["name"])

    def differs(self, path, entry):
        """Whether a link is not as it should be."""
        return self.machine.look(path) != {"kind": "link", "target": entry["target"]}

    def set_links(self):
        self.step = "set links"
        machine, links = self.machine, self.record["links"]
        wanted = self.m["links"]
        differ = [p for p, e in wanted.items() if self.differs(p, e)]
        others = [p for p in links if p not in wanted and p not in self.wanted_files]
        dropped = [p for p in others if not links[p].get("keep")]
        for path in others:
            if path not in dropped and machine.look(path)["kind"] == "absent":
                del links[path]  # a step has cleared it away
        for path, entry in wanted.items():
            if path not in links:
                former = self.record["files"].get(path)
                original = {"kind": "absent"}
                if former:
                    original = former["original"]
                elif path in differ:
                    original = machine.keep(path, self.originals)
                links[path] = {"original": original}
            links[path].update(notify=entry["notify"], keep=entry["keep"])
        if differ or dropped:
            self.intend()
            for path in differ:
                self.remember_path(path, wanted[path]["notify"])
            for path in dropped:
                self.remember_path(path, links[path].get("notify", []))
            self.save()
        for path in differ:
            machine.link(path, wanted[path]["target"])
            self.done.append("{} -> {}".format(path, wanted[path]["target"]))
        for path in dropped:
            machine.put_back(path, links[path]["original"])
            self.done.append(f"link {path} taken back")
        self.dropped_links = dropped

    def pending(self):
        return self.tx["notify"] if self.tx else []

    def enable_units(self):
        """Enables first and reloads systemd once: `enable` by itself would reload it a second time."""
        self.step = "enable units"
        wanted = self.m["units"]
        renewed = {os.path.basename(p) for p in self.changed if p.startswith(UNIT_DIRECTORIES)}
        enable = [u for u, e in wanted.items() if e.get("enabled") is True and not self.states[u]["enabled"]]
        again = [
            u for u, e in wanted.items() if e.get("enabled") is True and u not in enable and u in renewed
        ]
        disable = [u for u, e in wanted.items() if e.get("enabled") is False and self.states[u]["enabled"]]
        for unit, entry in wanted.items():
            self.record["units"][unit].update({k: entry[k] for k in ("enabled", "started") if k in entry})
        if enable or disable:
            self.intend()
            self.save()
        for verb, units in (("enable", enable), ("reenable", again), ("disable", disable)):
            if units:
                self.machine.systemctl(self.step, verb, "--no-reload", "--", *units)
        self.done += [u + " enabled" for u in enable] + [u + " disabled" for u in disable]
        stale = any(self.states[u]["stale"] for u in wanted)
        if enable or disable or stale or "daemon-reload" in self.pending():
            self.step = "daemon-reload"
            self.machine.systemctl(self.step, "daemon-reload")

    def start_units(self):
        self.step = "start units"
        wanted = self.m["units"]
        start = [u for u, e in wanted.items() if e.get("started") is True and not self.states[u]["active"]]
        stop = [u for u, e in wanted.items() if e.get("started") is False and self.states[u]["active"]]
        failed = [u for u in start if self.states[u]["state"] == "failed"]
        if start or stop:
            self.intend()
            self.save()
        if failed:
            self.machine.systemctl(self.step, "reset-failed", "--", *failed)
        if start:
            self.machine.systemctl(self.step, "start", "--no-block", "--", *start)
            self.done += [u + " started" for u in start]
        if stop:
            self.machine.systemctl("stop units", "stop", "--", *stop)
            self.done += [u + " stopped" for u in stop]
        self.just_started = start
        for unit, entry in wanted.items():
            if entry.get("started") is True:  # one that is starting since earlier is waited for as well
                self.awaited[unit] = entry["within"]

    def send_notifies(self, undoing=False):
        restarts = {n.split(":", 1)[1] for n in self.pending() if n.startswith("restart:")}
        stopped = [u for u, e in self.m["units"].items() if e.get("started") is False]
        if not undoing:
            stopped += self.dropped_units
        for item in list(self.pending()):
            verb, _, what = item.partition(":")
            self.step = item.replace(":", " ", 1)
            if verb == "run":
                code, text = self.machine.shell(what, SYSTEMCTL_TIMEOUT)
                if code and not undoing:  # on the way back its program may have gone with what brought it
                    raise Failed(self.step, f"exit code {code}", text)
                self.done.append("ran " + what)
            elif verb in ("reload", "restart") and what not in self.just_started and what not in stopped:
                if not self.states[what]["active"] or (verb == "reload" and what in restarts):
                    continue
                try:
                    if verb == "restart":
                        self.machine.systemctl(self.step, "restart", "--no-block", "--", what)
                        self.restarted.append(what)
                        self.awaited.setdefault(what, 600)
                    else:
                        self.machine.systemctl(self.step, "reload", "--", what)
                except Failed as failure:
                    failure.output += "\n" + self.machine.journal(what)
                    raise
                self.done.append(f"{what} {verb}ed")

    def wait_for_units(self):
        waiting = {u: w for u, w in self.awaited.items() if w > 0}
        began, pause, first = time.monotonic(), 0.1, None
        for unit in list(waiting):  # what runs and was not touched needs no asking
            if unit not in self.just_started + self.restarted and self.states[unit]["state"] == "active":
                del waiting[unit]
        while waiting:
            states = self.machine.units(waiting)
            first = first or states
            for unit, state in states.items():
                self.step = "wait for " + unit
                running = state["state"] in ("active", "reloading", "refreshing")
                ran = state["oneshot"] and state["state"] == "inactive" and state["result"] == "success"
                if not state["job"] and (running or ran):
                    del waiting[unit]
                    continue
                reason = ""
                if not state["job"] and state["state"] in ("failed", "inactive"):
                    reason = "it is {} ({})".format(state["state"], state["result"])
                elif state["restarts"] >= first[unit]["restarts"] + 3:
                    reason = "it keeps failing and being restarted"
                elif time.monotonic() - began > waiting[unit]:
                    reason = "not active after {:g} s ({})".format(waiting[unit], state["state"])
                if reason:
                    raise Failed(
                        self.step, reason, self.machine.journal(unit), f"journalctl -u {unit} says more"
                    )
            if waiting:
                time.sleep(pause)
                pause = min(pause * 1.5, 0.5)

    def run_checks(self):
        for entry in self.m["checks"]:
            self.step = "check: " + entry["name"]
            within = entry.get("within", 10)
            deadline = time.monotonic() + within
            while True:
                code, text = self.machine.shell(
                    entry["run"], max(5, min(60, deadline - time.monotonic() + 5))
                )
                if not code:
                    break
                if time.monotonic() >= deadline:
                    raise Failed(self.step, f"exit code {code} for {within:g} s", text)
                time.sleep(0.5)

    # -- the end

    def finish(self):
        """Everything holds: the record says so, and what was kept for putting back goes."""
        self.step = "write the record"
        record = self.record
        record.update(
            owner=self.m["owner"], state="applied", onRemove=self.m["onRemove"], secret=self.m["secret"]
        )
        record.pop("generation", None)  # of an older applier
        for part, dropped in (
            ("files", self.dropped_files),
            ("links", self.dropped_links),
            ("sysctls", self.dropped_sysctls),
        ):
            for key in dropped:
                record[part].pop(key, None)
        for path in self.m["links"]:
            record["files"].pop(path, None)
        for path in self.wanted_files:
            record["links"].pop(path, None)
        record["units"] = {u: e for u, e in record["units"].items() if u in self.m["units"]}
        self.drop_directories()
        if self.tx:
            record.pop("transaction")
            self.save()
            self.drop_copies(self.previous)
            copies = [e["original"].get("copy") for part in ("files", "links") for e in record[part].values()]
            self.drop_copies(self.originals, [c for c in copies if c])
        self.save()

    def drop_directories(self):
        """Directories that were made for what is no longer there."""
        held, mounts = self.record["directories"], self.machine.mount_points()
        needed = set(self.m["directories"]) | {p for p, e in held.items() if e.get("keep")}
        for path in list(self.record["files"]) + list(self.record["links"]) + sorted(needed):
            parent = os.path.dirname(path)
            while parent not in needed and parent != "/":
                needed.add(parent)
                parent = os.path.dirname(parent)
        for path in sorted(held, reverse=True):
            if path not in needed and path not in mounts:
                self.remove_directory(path, held[path], mounts)
                del held[path]

    def undo(self, failure):
        """Puts back what this run, or one that was killed before it, changed. Returns what to raise."""
        if self.tx is None:
            return failure
        problems = []

        def attempt(action, *arguments):
            try:
                return action(*arguments)
            except (Failed, OSError) as error:
                problems.append("{}\n{}".format(error, tail(getattr(error, "output", ""))))

        tx = self.tx
        for path in tx.get("staged", []):
            attempt(self.machine.unlink, staged_name(path))
        touched = bool(tx["paths"] or tx["sysctls"] or tx["directories"] or tx["users"])
        now = attempt(self.machine.units, set(tx["units"])) or {}
        ours = set(self.m["units"]) | set((tx["base"] or {}).get("units", {}))
        stop = [
            u
            for u, s in now.items()
            if u in ours and (s["active"] or s["job"]) and not tx["units"][u]["active"]
        ]
        disable = [u for u, s in now.items() if u in ours and s["enabled"] and not tx["units"][u]["enabled"]]
        if stop:
            attempt(self.machine.systemctl, "stop units", "stop", "--", *stop)
        if disable:
            attempt(self.machine.systemctl, "disable units", "disable", "--no-reload", "--", *disable)
        for path, kept in tx["paths"].items():
            attempt(self.machine.put_back, path, kept)
        for key, value in tx["sysctls"].items():
            if self.machine.sysctl(key) != value:
                attempt(self.machine.set_sysctl, key, value)
        enable = [u for u, s in now.items() if u in ours and not s["enabled"] and tx["units"][u]["enabled"]]
        if enable:
            attempt(self.machine.systemctl, "enable units", "enable", "--no-reload", "--", *enable)
        if enable or disable or "daemon-reload" in tx["notify"]:
            attempt(self.machine.systemctl, "daemon-reload", "daemon-reload")
        start = [u for u, s in now.items() if u in ours and tx["units"][u]["active"] and not s["active"]]
        failed = [u for u in start if now[u]["state"] == "failed"]
        if failed:
            attempt(self.machine.systemctl, "reset units", "reset-failed", "--", *failed)
        if start:
            attempt(self.machine.systemctl, "start units", "start", "--no-block", "--", *start)
        self.just_started, self.awaited, self.done = start, {}, []
        for unit, state in now.items():
            self.states[unit] = dict(state, active=tx["units"][unit]["active"])
        attempt(self.send_notifies, True)
        for name in tx["users"]:
            attempt(self.remove_user, name)
        for path in sorted(tx["directories"], reverse=True):
            attempt(self.remove_directory, path, tx["directories"][path], ())
        if problems:
            self.record["state"] = "applying"
            attempt(self.save)
            failure.reason += "; putting the machine back failed as well"
            failure.output += "\nputting back:\n" + "\n".join(problems)
            failure.fix = failure.fix or "correct the cause and run again: the next run goes on from here"
            return failure
        if touched or stop or disable or start:
            reloaded = " ({})".format(", ".join(self.done)) if self.done else ""
            failure.reason += "; the machine was put back to what it was" + reloaded
        self.record = tx["base"]
        if self.record is None:
            self.forget()
        else:
            self.save()
            self.drop_copies(self.previous)
        return failure

    def remove_user(self, name):
        remove_user(self.machine, name, self.record["users"].get(name, {"user": True, "group": True}))


def remove_user(machine, name, made):
    if made.get("user") and machine.number("/etc/passwd", name) is not None:
        code, text = machine.run(["userdel", name], 60)
        deadline = time.monotonic() + USER_TIMEOUT
        while code == USERDEL_IN_USE and time.monotonic() < deadline:
            time.sleep(0.2)
            code, text = machine.run(["userdel", name], 60)
        if code:
            raise Failed(
                "remove user " + name, f"userdel exited with {code}", text, f"stop what runs as {name}"
            )
    if made.get("group") and machine.number("/etc/group", name) is not None:
        code, text = machine.run(["groupdel", name], 60)
        if code:
            raise Failed("remove group " + name, f"groupdel exited with {code}", text)


class Around:
    """The program that stands around a change (manifest: around)."""

    def __init__(self, machine, entry, quiet):
        self.machine, self.entry, self.quiet = machine, entry, quiet
        self.text, self.said, self.pid = b"", [], None

    def failed(self, reason, fix=""):
        return Failed(self.entry["name"], reason, "\n".join(self.said[-TAIL_LINES:]), fix)

    def begin(self):
        """Returns when the change may begin. Failed: it may not."""
        self.start()
        deadline = time.monotonic() + self.entry.get("within", 86400)
        try:
            while True:
                word, text = self.hear(deadline, mind_caller=True)
                if word == "go":
                    return
                if word == "no":
                    raise self.failed(text)
                if word is None:
                    raise self.failed("its program ended without a word")
        except BaseException:
            self.kill()
            raise

    def end(self, line):
        """Tells how the change ended and waits for the program to end."""
        if self.pid is None:
            return
        try:
            os.write(self.input, line.encode("utf-8", "replace")[:4000] + b"\n")
        except BrokenPipeError:
            pass
        os.close(self.input)
        refusal = None
        try:
            word = ""
            while word is not None:
                word, text = self.hear(time.monotonic() + 300)
                if word == "no":
                    refusal = text
        except BaseException:
            self.kill()
            raise
        os.waitpid(self.pid, 0)
        self.pid = None
        if refusal and line == "done":
            raise self.failed(refusal, "the change itself is made; run again once that is mended")

    def start(self):
        there, self.input = os.pipe()
        self.output, here = os.pipe()
        actions = [
            (os.POSIX_SPAWN_DUP2, there, 0),
            (os.POSIX_SPAWN_DUP2, here, 1),
            (os.POSIX_SPAWN_DUP2, here, 2),
        ]
        self.pid = os.posix_spawnp(
            "/bin/sh",
            ["/bin/sh", "-c", self.entry["run"]],
            self.machine.environment,
            file_actions=actions,
            setsigdef=[signal.SIGPIPE, signal.SIGHUP],
            setsid=True,
        )
        os.close(there)
        os.close(here)

    def hear(self, deadline, mind_caller=False):
        """The next line as (word, rest); (None, "") at the end of all lines."""
        import select

        poll = select.poll()
        poll.register(self.output, select.POLLIN)
        if mind_caller:  # nobody is left to wait for the change, and the next run must not wait for this one
            poll.register(1, 0)
        while b"\n" not in self.text:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.failed("took longer than it may")
            ready = poll.poll(min(left, 60) * 1000)
            if any(number == 1 for number, _ in ready):
                raise self.failed("the connection of the caller is gone; nothing was changed")
            if ready:
                text = os.read(self.output, 65536)
                if not text:
                    return None, ""
                self.text += text
        line, _, self.text = self.text.partition(b"\n")
        line = line.decode("utf-8", "replace")
        word, _, rest = line.partition(" ")
        if word == "say" and not self.quiet:
            try:
                print(rest, flush=True)
            except OSError:
                pass
        elif word not in ("go", "no"):
            self.said.append(line)
        return word, rest

    def kill(self):
        """Ends a program whose turn has come to nothing; what it holds elsewhere goes with its connection."""
        if self.pid is not None:
            os.killpg(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + 5
            while not os.waitpid(self.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.05)
            self.pid = None


class Remove(Layer):
    """One run of `remove`: goes on past what fails, and keeps the record then, for another try."""

    def run(self, owner):
        machine, record = self.machine, self.record
        if record is None:
            return f"layer {self.name}: nothing to remove"
        if record["owner"] != owner:
            return 'layer {}: belongs to "{}" now; left alone'.format(self.name, record["owner"])
        record["state"] = "removing"
        self.save()
        self.problems = []
        self.attempt("clear up", self.clear_up, record)
        units = record.get("units", {})
        stopped = self.attempt("stop units", self.remove_unit_states, units) or []
        for command in record.get("onRemove", []):
            self.attempt("onRemove", self.command, command)
        reload = False
        notify = []
        for part in ("links", "files"):
            for path, entry in reversed(list(record.get(part, {}).items())):
                self.attempt("take back " + path, machine.unlink, staged_name(path))
                self.attempt("take back " + path, machine.put_back, path, entry["original"])
                reload = reload or path.startswith(UNIT_DIRECTORIES)
                notify += [n for n in entry.get("notify", []) if n not in notify]
        if reload or units:
            self.attempt("daemon-reload", machine.systemctl, "daemon-reload", "daemon-reload")
        if stopped:  # one that failed would be listed for ever; systemctl minds those that it has forgotten
            machine.run(["systemctl", "reset-failed", "--", *stopped], 60)
        for key, entry in record.get("sysctls", {}).items():
            self.attempt("restore sysctl " + key, self.restore_sysctl, key, entry)
        self.attempt("notify", self.renew_units, notify, stopped)
        for name, made in record.get("users", {}).items():
            self.attempt("remove user " + name, remove_user, machine, name, made)
        mounts = machine.mount_points()
        for path in sorted(record.get("directories", {}), reverse=True):
            self.attempt("remove " + path, self.remove_directory, path, record["directories"][path], mounts)
        if self.problems:
            reason = "{} left undone".format(counted(len(self.problems), "thing"))
            raise Failed(
                "remove", reason, "\n".join(self.problems), "correct that and remove the layer again"
            )
        self.forget()
        left = "; packages stay: " + " ".join(record["packages"]) if record.get("packages") else ""
        return f"layer {self.name}: removed{left}"

    def attempt(self, step, action, *arguments):
        try:
            return action(*arguments)
        except Failed as failure:
            self.problems.append(f"{failure.step}: {failure.reason}\n{tail(failure.output)}")
        except OSError as error:
            self.problems.append(f"{step}: {error}")
        return None

    def command(self, command):
        code, text = self.machine.shell(command, 600)
        if code:
            raise Failed("onRemove", f"{command}: exit code {code}", text)

    def renew_units(self, notify, stopped):
        """Units that ran before the layer came and go on running: they take up the restored files."""
        units = {n.split(":", 1)[1] for n in notify if n.startswith(("reload:", "restart:"))} - set(stopped)
        states = self.machine.units(units)
        for verb in ("restart", "reload"):
            names = sorted(u for u in units if states[u]["active"] and f"{verb}:{u}" in notify)
            if names:
                self.machine.systemctl(verb + " units", verb, "--", *names)
            units -= set(names)


class Compare(Layer):
    """What is not as a manifest says. It changes nothing."""

    def __init__(self, machine, manifest):
        super().__init__(machine, manifest["layer"])
        self.m = manifest
        self.found = []

    def differs(self, what, wanted, found):
        self.found.append({"what": what, "wanted": wanted, "found": found})

    def run(self):
        """The differences, in the order in which `apply` would mend them."""
        m, machine = self.m, self.machine
        if self.record is None:
            self.differs("the layer", "applied", "it was never applied here, or has been removed")
        elif self.record.get("transaction"):
            self.differs("the layer", "applied to its end", "a change was begun and has not ended")
        for name in machine.missing_packages(m["packages"]):
            self.differs("package " + name, "installed", "missing")
        for user in m["users"]:
            number = machine.number("/etc/passwd", user["name"])
            wanted = user.get("uid", number)
            if number is None or number != wanted:
                found = "missing" if number is None else f"number {number}"
                self.differs("user " + user["name"], "there" if wanted is None else f"number {wanted}", found)
        mounts = machine.mount_points()
        for path, entry in m["directories"].items():
            if path not in mounts:
                self.compare_path(path, "directory", entry)
        for path, entry in {**m["files"], **implied_files(m)}.items():
            if self.compare_path(path, "file", entry):
                self.compare_content(path, entry["content"])
        for name in machine.missing_modules(m["modules"]):
            self.differs("kernel module " + name, "loaded", "missing")
        for key, value in m["sysctls"].items():
            now, value = machine.sysctl(key), " ".join(value.split())
            if now != value:
                self.differs("sysctl " + key, value, "this kernel has no such key" if now is None else now)
        for step in m["steps"]:
            if "unless" in step and machine.shell(step["unless"], 60)[0]:
                self.differs("step: " + step["name"], "done", "not done, or undone")
        for path, entry in m["links"].items():
            now = machine.look(path)
            if now != {"kind": "link", "target": entry["target"]}:
                found = now.get("target") or ("missing" if now["kind"] == "absent" else "a " + now["kind"])
                self.differs("link " + path, entry["target"], found)
        self.compare_units()
        return self.found

    def compare_path(self, path, kind, entry):
        """Kind, mode and owner; whether there is content to compare."""
        now = self.machine.look(path)
        if now["kind"] != kind:
            self.differs(
                f"{kind} {path}", "there", "missing" if now["kind"] == "absent" else "a " + now["kind"]
            )
            return False
        if now["mode"] != entry["mode"]:
            self.differs(f"{kind} {path}", "mode " + entry["mode"], "mode " + now["mode"])
        ids = self.machine.ids(entry["owner"])
        if ids is None or (ids[0] >= 0 and ids != (now["uid"], now["gid"])):
            names = [
                self.machine.name(database, number) or str(number)
                for database, number in (("/etc/passwd", now["uid"]), ("/etc/group", now["gid"]))
            ]
            self.differs(f"{kind} {path}", "owner " + entry["owner"], "owner " + ":".join(names))
        return True

    def compare_content(self, path, content):
        now = self.machine.read(path)
        if now == content:
            return
        if self.m["secret"]:
            self.differs("file " + path, "the content of this stack", "another content")
            return
        wanted, found = (text.decode("utf-8", "replace").splitlines() for text in (content, now))
        number = next((i for i, pair in enumerate(zip(wanted, found)) if pair[0] != pair[1]), None)
        if number is None:
            number = min(len(wanted), len(found))
        lines = [text[number].strip() if number < len(text) else "no such line" for text in (wanted, found)]
        self.differs(f"file {path}, line {number + 1}", *lines)

    def compare_units(self):
        states = self.machine.units(self.m["units"])
        for unit, entry in self.m["units"].items():
            state = states[unit]
            if entry.get("started") is not None and entry["started"] != state["active"]:
                self.differs(unit, "running" if entry["started"] else "not running", state["state"])
            if entry.get("enabled") is not None and entry["enabled"] != state["enabled"]:
                words = ("enabled at boot", "not enabled at boot")
                self.differs(unit, *(words if entry["enabled"] else words[::-1]))


def stack_of(owner):
    return owner.rsplit("/", 1)[0]


def quoted(path):
    return path if re.fullmatch(r"[A-Za-z0-9_./%+@-]+", path) else "'" + path.replace("'", "'\\''") + "'"


def counted(number, one, many=None):
    return "{} {}".format(number, one if number == 1 else many or one + "s")


def some(paths):
    return " ".join(paths[:6]) + (" and %s more" % (len(paths) - 6) if len(paths) > 6 else "")


# -------------------------------------------------------------------------------------------------- the call


def lock(machine, what):
    """One applier at a time on a machine."""
    # A killed deployment leaves its applier running to the end of what it began, which is a restart at most.
    wait = float(os.environ.get("COSYVOICE_LVS_LOCK_WAIT", "600"))
    machine.make("/run")
    file = os.open(machine.at("/run/cosyvoice-lvs.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(file, 200, 0).decode("utf-8", "replace").strip()
                fix = "wait for it, or see what it hangs on"
                raise Failed(
                    "wait for other appliers", f"after {wait:g} s it is still busy: {holder}", fix=fix
                )
            time.sleep(0.1)
    os.ftruncate(file, 0)
    os.pwrite(file, (f"process {os.getpid()}, {what}\n").encode(), 0)
    return file


def stop_at_signal(number, _frame):
    raise Failed("signal", f"stopped by signal {number}")


def report(machine_name, layer, failure, secret):
    lines = [f"cosyvoice-lvs: {machine_name}: layer {layer}: step {failure.step} failed: {failure.reason}"]
    if failure.output.strip():
        lines.append("    (its output is withheld: the layer is secret)" if secret else tail(failure.output))
    if failure.fix:
        lines.append("to do: " + failure.fix)
    sys.stderr.write("\n".join(lines) + "\n")


USAGE = (
    "usage: apply apply < manifest.json | apply remove LAYER --owner OWNER | apply compare < manifest.json"
    " | apply version\n"
)


def main(arguments):
    if sys.version_info < (3, 9):
        sys.stderr.write(
            f"cosyvoice-lvs: Python {sys.version.split()[0]} is too old here: 3.9 or newer is needed\n"
        )
        return 2
    verb = arguments[0] if arguments else ""
    if verb == "version" and len(arguments) == 1:
        print(f"cosyvoice-lvs apply {VERSION}")
        return 0
    removes = verb == "remove" and len(arguments) == 4 and arguments[2] == "--owner"
    if not (verb in ("apply", "compare") and len(arguments) == 1) and not removes:
        sys.stderr.write(USAGE)
        return 2
    machine = Machine(os.environ.get("COSYVOICE_LVS_ROOT", ""))
    if not machine.root and not machine.privileged:
        sys.stderr.write(f"cosyvoice-lvs: this must run as root, and runs as number {os.geteuid()}\n")
        return 2
    os.umask(0o022)
    os.chdir("/")
    # A connection that breaks must not stop a change half-way.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop_at_signal)
    signal.signal(signal.SIGINT, stop_at_signal)
    reader = Reader()
    name, layer, secret = reader.machine, "?", False
    try:
        if verb in ("apply", "compare"):
            manifest = reader.read(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"))
            name, layer, secret = manifest["owner"].rsplit("/", 1)[1], manifest["layer"], manifest["secret"]
            if verb == "compare":
                # Not held up by a change under way: the record says that there is one.
                print(json.dumps(Compare(machine, manifest).run()))
                return 0
            held = lock(machine, "apply of layer " + layer)
            message = Apply(machine, manifest).run()
        else:
            layer = arguments[1]
            if not re.fullmatch(LABEL, layer):
                raise Wrong(f'"{layer}" is no name of a layer')
            owner = arguments[3]
            name = owner.rsplit("/", 1)[-1]
            held = lock(machine, "remove of layer " + layer)
            remove = Remove(machine, layer)
            secret = (remove.record or {}).get("secret", False)
            message = remove.run(owner)
        os.close(held)
    except Wrong as error:
        where = f"{reader.machine}: layer {reader.layer}: step read the manifest"
        sys.stderr.write(
            f"{error}\n{USAGE}" if verb == "remove" else f"cosyvoice-lvs: {where} failed: {error}\n"
        )
        return 2
    except Failed as failure:
        report(name, layer, failure, secret)
        return 1
    try:
        print(message, flush=True)
    except BrokenPipeError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
