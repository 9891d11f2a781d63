"""A machine in a folder: the real applier, with a root of its own and stand-ins for the programs it calls."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

HOST = pathlib.Path(__file__).resolve().parent.parent
APPLY = HOST / "apply.py"


def allowed(option):
    """Whether this computer lets us have namespaces of our own: by an option of unshare, such as -rn."""
    return subprocess.run(["unshare", option, "true"], capture_output=True, check=False).returncode == 0


namespaces = allowed("-rnm")
needs_mounts = pytest.mark.skipif(not allowed("-rm"), reason="this computer forbids mount namespaces")
needs_network = pytest.mark.skipif(not allowed("-rn"), reason="this computer forbids network namespaces")
needs_network_and_mounts = pytest.mark.skipif(
    not namespaces, reason="this computer forbids network and mount namespaces"
)
# Of tests that run the real keepalived, in a network of their own.
needs_keepalived = pytest.mark.skipif(
    not namespaces or shutil.which("keepalived", path="/usr/sbin:/usr/bin") is None,
    reason="no keepalived here, or no namespaces",
)

# In front of a program: its user may read everything here, and write what is its own or its group's.
NOBODY = 65534
AS_NOBODY = [
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]
needs_root = pytest.mark.skipif(
    shutil.which("setpriv") is None
    or subprocess.run([*AS_NOBODY, "true"], capture_output=True, check=False).returncode != 0,
    reason="only root may give files away and become somebody else",
)

# One stand-in under many names. It keeps what it is told in $FAKE and does to the machine's root what the
# program of that name would do. $FAKE/log has every call; $FAKE/fail/VERB-UNIT makes one fail.
STAND_IN = r"""
import os, pathlib, signal, sys
fake, root = pathlib.Path(os.environ["FAKE"]), pathlib.Path(os.environ["COSYVOICE_LVS_ROOT"])
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
with open(fake / "log", "a") as log:
    log.write(" ".join([name] + arguments).replace("\n", " ") + "\n")

def fails(key):
    return (fake / "fail" / key).exists()

def get(unit, key, default):
    file = fake / "units" / unit / key
    return file.read_text() if file.exists() else default

def put(unit, **values):
    (fake / "units" / unit).mkdir(parents=True, exist_ok=True)
    for key, value in values.items():
        (fake / "units" / unit / key).write_text(value)

def exists(unit):
    return any((root / d / unit).exists() for d in ("etc/systemd/system", "lib/systemd/system"))

def systemctl(verb, rest):
    units = rest[rest.index("--") + 1:] if "--" in rest else []
    if verb == "show":
        blocks = []
        for u in units:
            state = {"Id": u, "LoadState": "loaded" if exists(u) else "not-found", "Job": "",
                     "NRestarts": "0", "NeedDaemonReload": "no", "Result": get(u, "result", "success"),
                     "ActiveState": get(u, "active", "inactive"),
                     "UnitFileState": get(u, "enabled", "disabled")}
            blocks.append("\n".join(f"{k}={v}" for k, v in state.items()))
        print("\n\n".join(blocks))
        return 0
    for u in units:
        if verb != "reset-failed" and not exists(u) and get(u, "active", "inactive") == "inactive":
            sys.exit(f"Unit {u} not found.")
        if fails(f"{verb}-{u}") and verb in ("start", "restart"):
            put(u, active="failed", result="exit-code")
            continue
        if fails(f"{verb}-{u}"):
            sys.exit(f"{verb} of {u} failed")
        if verb in ("start", "restart"):
            put(u, active="active")
        elif verb == "stop":
            put(u, active="inactive")
        elif verb in ("enable", "reenable"):
            put(u, enabled="enabled")
        elif verb == "disable":
            put(u, enabled="disabled")
        elif verb == "reload" and get(u, "active", "inactive") != "active":
            sys.exit(f"{u} is not active, cannot reload.")
    return 0

def account(database, line):
    file = root / "etc" / database
    with open(file, "a") as f:
        f.write(line + "\n")

def number(option):
    return arguments[arguments.index(option) + 1] if option in arguments else 990

def drop(database, who):
    file = root / "etc" / database
    lines = [l for l in file.read_text().splitlines() if l.split(":")[0] != who]
    file.write_text("".join(l + "\n" for l in lines))

if name == "systemctl":
    sys.exit(systemctl(arguments[0], arguments[1:]))
elif name == "journalctl":
    print("the journal of " + arguments[1])
elif name == "dpkg-query":
    installed = (fake / "packages").read_text().split() if (fake / "packages").exists() else []
    for package in arguments[arguments.index("--") + 1:]:
        if package in installed:
            print(package + "\tinstalled")
elif name == "apt-get":
    if arguments[0] == "update":
        (fake / "updated").touch()
    elif fails("apt") or fails("apt-once") or fails("apt-lists") and not (fake / "updated").exists():
        if fails("apt-once"):
            (fake / "fail" / "apt-once").unlink()
            sys.exit("E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct it.")
        sys.exit("E: Unable to locate package")
    else:
        (fake / "policy").write_text((root / "usr/sbin/policy-rc.d").read_text())
        with open(fake / "packages", "a") as f:
            f.write(" ".join(arguments[arguments.index("--") + 1:]) + "\n")
elif name == "groupadd":
    account("group", f"{arguments[-1]}:x:{number('--gid')}:")
elif name == "useradd":
    account("passwd", f"{arguments[-1]}:x:{number('--uid')}:{number('--uid')}::/:/usr/sbin/nologin")
elif name == "userdel":
    if fails("userdel-once"):
        (fake / "fail" / "userdel-once").unlink()
        print(f"userdel: user {arguments[-1]} is currently used by process 1")
        sys.exit(8)
    drop("passwd", arguments[-1])
elif name == "groupdel":
    drop("group", arguments[-1])
elif name == "modprobe":
    for module in arguments[arguments.index("--") + 1:]:
        if fails("modprobe"):
            sys.exit(f"modprobe: FATAL: Module {module} not found")
        (root / "sys/module" / module).mkdir(parents=True)
        if module == "ip_vs":
            (root / "proc/sys/net/ipv4/vs").mkdir(parents=True, exist_ok=True)
            (root / "proc/sys/net/ipv4/vs/sloppy_tcp").write_text("0\n")
"""
NAMES = (
    "systemctl journalctl dpkg-query apt-get dpkg groupadd useradd userdel groupdel modprobe".split()  # noqa: SIM905
)


class Machine:
    """A root folder with what a fresh machine has, and the applier to run on it."""

    def __init__(self, folder):
        self.root, self.fake = folder / "root", folder / "fake"
        for path in (
            "etc/systemd/system",
            "proc/sys/net/ipv4/conf/all",
            "usr/sbin",
            "lib/systemd/system",
            "sys/module",
        ):
            (self.root / path).mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (self.root / "etc/group").write_text("root:x:0:\n")
        (self.root / "proc/sys/net/ipv4/conf/all/arp_ignore").write_text("0\n")
        (self.root / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
        (self.fake / "fail").mkdir(parents=True)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "stand-in").write_text(f"#!{sys.executable} -IS\n{STAND_IN}")
        (programs / "stand-in").chmod(0o755)
        for name in NAMES:
            (programs / name).symlink_to("stand-in")
        self.environment = {
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "COSYVOICE_LVS_ROOT": str(self.root),
            "COSYVOICE_LVS_LOCK_WAIT": "0.3",
        }
        # The applier hands only what it must to programs: the stand-in finds its folder in its own text.
        text = (programs / "stand-in").read_text()
        (programs / "stand-in").write_text(text.replace('os.environ["FAKE"]', repr(str(self.fake))))

    def copy_to(self, folder):
        """The same machine once more."""
        folder.mkdir()
        other = Machine(folder)
        for kind in ("root", "fake"):
            shutil.rmtree(folder / kind)
            shutil.copytree(getattr(self, kind), folder / kind, symlinks=True)
        return other

    def start(self, *arguments, stdin=""):
        return subprocess.run(
            [sys.executable, "-IS", str(APPLY), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )

    def run(self, manifest, code=0):
        """Applies a manifest, expects an exit code, and returns the message."""
        manifest = {"layer": "test", "owner": "lab/rs-1", **manifest}
        result = self.start("apply", stdin=json.dumps(manifest))
        assert result.returncode == code, result.stdout + result.stderr
        return (result.stdout if code == 0 else result.stderr).strip()

    def compare(self, manifest):
        """What differs, as "what: wanted: found"."""
        manifest = {"layer": "test", "owner": "lab/rs-1", **manifest}
        result = self.start("compare", stdin=json.dumps(manifest))
        assert result.returncode == 0, result.stdout + result.stderr
        return ["{what}: {wanted}: {found}".format(**each) for each in json.loads(result.stdout)]

    def remove(self, layer="test", owner="lab/rs-1", *more, code=0):
        result = self.start("remove", layer, "--owner", owner, *more)
        assert result.returncode == code, result.stdout + result.stderr
        return (result.stdout if code == 0 else result.stderr).strip()

    def killed_at(self, count, manifest):
        """Applies a manifest and kills the applier before its change number `count`. False: it was done."""
        manifest = {"layer": "test", "owner": "lab/rs-1", **manifest}
        result = subprocess.run(
            [sys.executable, "-IS", "-c", KILLER, str(APPLY), str(count), "apply"],
            input=json.dumps(manifest),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )
        assert result.returncode in (0, -signal.SIGKILL), result.stderr
        return result.returncode != 0

    def path(self, path):
        return self.root / path.lstrip("/")

    def write(self, path, text, mode=0o644):
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)
        self.path(path).chmod(mode)

    def read(self, path):
        return self.path(path).read_text()

    def unit(self, name, **state):
        """A unit that a package brought, and its state."""
        self.write("/lib/systemd/system/" + name, "[Unit]\n")
        (self.fake / "units" / name).mkdir(parents=True, exist_ok=True)
        for key, value in state.items():
            (self.fake / "units" / name / key).write_text(value)

    def state(self, unit):
        folder = self.fake / "units" / unit
        return {f.name: f.read_text() for f in folder.iterdir()} if folder.exists() else {}

    def fail(self, key, fails=True):
        file = self.fake / "fail" / key
        if fails:
            file.touch()
        else:
            file.unlink()

    def calls(self, forget=True):
        """What was called since the last time, without questions."""
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        if forget:
            log.write_text("")
        return [line for line in lines if not line.startswith(("systemctl show", "dpkg-query", "journalctl"))]

    def record(self, layer="test"):
        return json.loads(self.read(f"/var/lib/cosyvoice-lvs/layers/{layer}.json"))

    def tree(self, without=("var/lib/cosyvoice-lvs", "run")):
        """Everything below the root: path to mode and content."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            for name in folders + files:
                path = pathlib.Path(folder, name)
                relative = str(path.relative_to(self.root))
                if relative.startswith(without) or relative == "var" or relative == "var/lib":
                    continue
                if path.is_symlink():
                    found[relative] = os.readlink(path)
                elif path.is_dir():
                    found[relative] = oct(path.stat().st_mode)
                else:
                    found[relative] = oct(path.stat().st_mode), path.read_text()
        return found

    def leftovers(self):
        """Staged files that should not be there."""
        return list(self.root.rglob(".cosyvoice-lvs-new.*"))


# Runs the applier in this process, and kills the process before the Nth call that changes something.
KILLER = r"""
import os, runpy, signal, sys
program, left = sys.argv[1], int(sys.argv[2])
sys.argv = [program] + sys.argv[3:]

def counting(real):
    def call(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*arguments, **options)
    return call

for name in ("replace", "unlink", "mkdir", "rmdir", "symlink", "chmod", "posix_spawnp", "write"):
    setattr(os, name, counting(getattr(os, name)))
runpy.run_path(program, run_name="__main__")
"""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)
