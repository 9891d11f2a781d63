#!/usr/bin/python3 -IS
"""Keeps the engine cosyvoice on a real server: its source, its Python environment, and sets of these two and
of weights (host/weights.py). Installed as /usr/local/lib/cosyvoice-lvs/engine.

    engine check --memory GIB [--driver VERSION] [--disk NAME=GIB|FOLDER]...
                     the GPU, its driver and the disk are as they must be. NAME is a part below the engine's
                     folder, GIB what it takes, or FOLDER the one it is copied from; a part that is there
                     takes nothing
    engine source COMMIT FROM
                     makes sources/COMMIT. FROM is the URL of a git repository, or the path of a checkout
                     whose submodules are checked out as well
    engine environment NAME LOCK --python 3.11 --by auto|venv|conda|uv [--wheels FOLDER]
                     makes envs/NAME of what the lock file names. NAME begins with the first 16 digits of its
                     SHA-256
    engine assemble NAME --source COMMIT --environment NAME --model NAME --called NAME --user USER
                     makes sets/NAME of parts that are there, and sees that the source can be imported, as
                     USER
    engine mirror MODEL TARGET
                     a folder of links to a model's files that its owner may write to: upstream puts what it
                     builds for the GPU (TensorRT, vLLM) beside the weights. What a start that failed has left
                     there goes
    engine built TARGET
                     what is in it now has come up well on this GPU

    /opt/cosyvoice/engine/sources/COMMIT   files of the commit and of its submodules, without git's own
    /opt/cosyvoice/engine/envs/HASH        a Python environment
    /opt/cosyvoice/engine/pythons          interpreters of conda or uv
    /opt/cosyvoice/engine/sets/HASH        links: source, env, and the model under its own name

Every part is made under another name, or without .complete in it, which comes last: what was killed is made
anew. Of the sets stay the newest, the one that the service's environment file names, and KEEP more; parts
that no set uses go.

For tests: COSYVOICE_LVS_HOME stands for /opt/cosyvoice, COSYVOICE_LVS_SERVICE for
/etc/cosyvoice/cosyvoice.env; build-env is called from the program's own directory.
"""

import argparse
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile

HOME = os.environ.get("COSYVOICE_LVS_HOME", "/opt/cosyvoice") + "/engine"
SERVICE = os.environ.get("COSYVOICE_LVS_SERVICE", "/etc/cosyvoice/cosyvoice.env")
KEEP = 1
GIT_LIMIT = 1800  # s, one fetch
IMPORT_LIMIT = 900  # s; PyTorch from a cold and slow disk
GIB = 1 << 30


class Failed(Exception):
    """What went wrong, and what to do."""


def run(argv, limit, **options):
    """Standard output of a program. Raises Failed with the end of what it said."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **options}
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=limit, check=False, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"{argv[0]} ran for more than {limit} s and was ended")
    except OSError as error:
        raise Failed(f"{argv[0]} cannot be run: {error.strerror}")
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        said = "\n".join(text.strip().splitlines()[-15:])
        raise Failed(f"{' '.join(argv[:3])} ... exited with {done.returncode}:\n{said}")
    return text


def sync(directory):
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def complete(place):
    return os.path.exists(place + "/.complete")


def finish(new, place):
    """Gives a part that is whole its name."""
    with open(new + "/.complete", "w", encoding="utf-8") as file:
        file.flush()
        os.fsync(file.fileno())
    os.sync()
    shutil.rmtree(place, ignore_errors=True)  # half of one, left by hand
    os.rename(new, place)
    sync(os.path.dirname(place))


# -- what must be there


def check(memory, driver, disk):
    gpus = ask_gpus("name,driver_version,memory.total")
    problems = []
    if driver and numbers(gpus[0][1]) < numbers(driver):
        problems.append(
            f"the GPU's driver is {gpus[0][1]}, and the CUDA in the engine's environment needs {driver} or "
            f"newer. "
            "To do: install a newer driver (Debian: nvidia-driver), and restart the machine"
        )
    largest = max(gpus, key=lambda gpu: float(gpu[2]))
    if float(largest[2]) < memory * 1024 * 0.95:  # a card of 8 GiB says a little less
        problems.append(
            f"the GPU ({largest[0]}) has {float(largest[2]) / 1024:.1f} GiB of memory, and the engine needs "
            f"{memory}. "
            "To do: use a larger one, or lower app.gpuMemory if you know that yours is enough"
        )
    needed = sum(space(*part.split("=", 1)) for part in disk)
    place = HOME
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    if needed > free:
        problems.append(
            f"the engine takes {needed / GIB:.1f} GiB more, and {place} has {free / GIB:.1f} GiB left. "
            "To do: free some, or mount a larger disk at /opt/cosyvoice"
        )
    if problems:
        raise Failed("\n".join(problems))
    return f"{largest[0]}, driver {gpus[0][1]}: as it must be"


def ask_gpus(fields):
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        lines = run(query, 45).strip().splitlines()
    except Failed as error:
        raise Failed(
            f"no GPU: {error}. To do: install the GPU's driver (Debian: nvidia-driver) and see that "
            f"nvidia-smi works, "
            "or set service.engine to cpu"
        )
    gpus = [[field.strip() for field in line.split(",")] for line in lines]
    if not gpus or any(len(gpu) != len(fields.split(",")) for gpu in gpus):
        raise Failed(f"nvidia-smi names no GPU: it says {lines!r}. To do: see why on the machine")
    return gpus


def numbers(version):
    """535.183.01 as what can be compared."""
    return [int(part) for part in re.findall("[0-9]+", version)]


def space(part, takes):
    """Bytes that a part will take."""
    if complete(f"{HOME}/{part}"):
        return 0
    if not takes.startswith("/"):
        return float(takes) * GIB
    if not os.path.isdir(takes):
        raise Failed(
            f"there is no folder {takes}. To do: put the weights there, or correct app.model.directory"
        )
    return sum(
        os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(takes) for name in names
    )


# -- source


def source(commit, origin):
    place = f"{HOME}/sources/{commit}"
    if complete(place):
        return f"source {commit} is there already"
    new = f"{HOME}/sources/.{commit}.new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as config:
        # A checkout on this machine may belong to whoever put it there.
        config.write("[safe]\n\tdirectory = *\n")
        config.flush()
        check_out(commit, origin, new, dict(os.environ, GIT_CONFIG_GLOBAL=config.name))
    if not os.path.isdir(new + "/cosyvoice"):
        raise Failed(
            f"commit {commit} of {origin} has no folder cosyvoice. "
            "To do: correct app.source and app.ref: it must be FunAudioLLM/CosyVoice or a fork of it"
        )
    finish(new, place)
    return f"source {commit} is staged"


def check_out(commit, origin, target, environment):
    """The files of a commit, and below them those of its submodules."""
    environment.update(GIT_TERMINAL_PROMPT="0", GIT_SSH_COMMAND="ssh -o BatchMode=yes -o ConnectTimeout=20")

    def git(*arguments):
        return run(["git", *arguments], GIT_LIMIT, cwd=target, env=environment)

    git("init", "--quiet")
    try:
        # Servers give single commits, or all that branches lead to.
        fetch = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        try:
            git(*fetch, "--depth=1", origin, commit)
        except Failed:
            git(*fetch, origin, "+refs/*:refs/fetched/*")
        git("-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
    except Failed as error:
        raise Failed(
            f"commit {commit} cannot be had from {origin}: {error}\n"
            "To do: see that the real servers reach it and that it has the commit; for real servers that "
            "reach nothing, put a "
            "checkout with its submodules on them and name its path in app.source"
        )
    addresses = {}
    if os.path.exists(target + "/.gitmodules"):
        listed = git("config", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.(path|url)$")
        fields = dict(line.split(" ", 1) for line in listed.splitlines())
        for key, path in fields.items():
            if key.endswith(".path"):
                addresses[path] = fields.get(key[: -len("path")] + "url", "")
    for line in git("ls-tree", "-r", commit).splitlines():
        about, path = line.split("\t", 1)
        mode, _, inner = about.split()
        if mode == "160000":
            address = (
                f"{origin}/{path}" if origin.startswith("/") else resolve(origin, addresses.get(path, ""))
            )
            check_out(inner, address, f"{target}/{path}", environment)
    shutil.rmtree(target + "/.git")


def resolve(origin, address):
    """A submodule's address, which may be relative to the repository's."""
    if not address.startswith(("./", "../")):
        return address
    base = origin.rstrip("/")
    while address.startswith(("./", "../")):
        if address.startswith("../"):
            base = base.rsplit("/", 1)[0]
        address = address.split("/", 1)[1]
    return f"{base}/{address}"


# -- environment


def environment(name, lock, version, by, wheels):
    place = f"{HOME}/envs/{name}"
    if complete(place):
        return f"environment {name} is there already"
    if wheels and not os.path.isdir(wheels):
        raise Failed(
            f"there is no folder {wheels}. To do: fill it with scripts/wheelhouse, or correct app.wheels"
        )
    with open(lock, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()[:16]
    if found != name.split("-")[0]:
        raise Failed(
            f"{lock} has the hash {found}, and should have {name.split('-')[0]}. To do: deploy again"
        )
    python = interpreter(version, by)
    build = os.path.join(os.path.dirname(os.path.abspath(__file__)), "build-env")
    scratch = f"{HOME}/.scratch"  # gigabytes pass through it, and /tmp may be memory
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    try:
        done = subprocess.run(
            [build, lock, place, *([wheels] if wheels else [])],
            env=dict(os.environ, PYTHON=python, TMPDIR=scratch),
            check=False,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode:
        raise Failed(f"build-env exited with {done.returncode}: see above")
    return f"environment {name} is staged, with {python}"


def interpreter(version, by):
    """The path of a Python of that version, from the first that has one."""
    sources = {"venv": own_python, "conda": conda_python, "uv": uv_python}
    tried = []
    for kind in sources if by == "auto" else [by]:
        try:
            return sources[kind](version)
        except Failed as error:
            tried.append(f"{kind}: {error}")
    raise Failed(
        f"there is no Python {version} for the engine's environment:\n  " + "\n  ".join(tried) + "\n"
        f"To do: install one of Debian's python{version} and python{version}-venv, conda (or mamba, "
        f"micromamba) and uv"
    )


def own_python(version):
    path = shutil.which(f"python{version}")
    if path is None:
        raise Failed(f"python{version} is not on this machine")
    run([path, "-c", "import ensurepip, venv"], 60)
    return path


def conda_python(version):
    tool = next(filter(None, map(shutil.which, ("conda", "mamba", "micromamba"))), None)
    if tool is None:
        raise Failed("none of conda, mamba and micromamba is on this machine")
    place = f"{HOME}/pythons/conda-{version}"
    if not complete(place):
        shutil.rmtree(place, ignore_errors=True)  # it knows its own path, so it is made in its place
        run([tool, "create", "--yes", "--quiet", "--prefix", place, f"python={version}"], 1800)
        with open(place + "/.complete", "w", encoding="utf-8"):
            pass
    return place + "/bin/python"


def uv_python(version):
    tool = shutil.which("uv")
    if tool is None:
        raise Failed("uv is not on this machine")
    setting = dict(
        os.environ, UV_PYTHON_INSTALL_DIR=f"{HOME}/pythons/uv", UV_PYTHON_PREFERENCE="only-managed"
    )
    run([tool, "python", "install", version], 1800, env=setting)
    return run([tool, "python", "find", version], 60, env=setting, stderr=None).strip()


# -- sets


def assemble(name, parts, called, user):
    """parts: kind of the part to its name."""
    place = f"{HOME}/sets/{name}"
    if complete(place):
        os.utime(place)  # the newest again, for `prune`
        prune(name)
        return f"engine {name} is there already"
    for kind, part in parts.items():
        if not complete(f"{HOME}/{kind}/{part}"):
            raise Failed(f"{kind}/{part} is not there, or not whole. To do: deploy again")
    try_import(f"{HOME}/sources/{parts['sources']}", f"{HOME}/envs/{parts['envs']}", user)
    new = f"{HOME}/sets/.{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    for link, kind in (("source", "sources"), ("env", "envs"), (called, "models")):
        os.symlink(f"{HOME}/{kind}/{parts[kind]}", f"{new}/{link}")
    finish(new, place)
    prune(name)
    return f"engine {name} is staged"


def try_import(tree, env, user):
    """What the worker imports can be imported: a package or a library that is missing shows here, and not on
    a node that has been taken out of the pool."""
    account = pwd.getpwnam(user)
    as_user = (
        {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    with tempfile.TemporaryDirectory() as caches:
        os.chown(caches, account.pw_uid, account.pw_gid)
        names = (
            "HOME",
            "XDG_CACHE_HOME",
            "NUMBA_CACHE_DIR",
            "MPLCONFIGDIR",
            "TRITON_CACHE_DIR",
            "MODELSCOPE_CACHE",
        )
        setting = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": f"{tree}:{tree}/third_party/Matcha-TTS",
            **dict.fromkeys(names, caches),
        }
        command = [f"{env}/bin/python", "-B", "-c", "import cosyvoice.cli.cosyvoice"]
        try:
            run(command, IMPORT_LIMIT, env=setting, cwd=caches, **as_user)
        except Failed as error:
            raise Failed(
                f"the source cannot be imported in its environment: {error}\n"
                "To do: see that the lock file has what this commit of the source needs (app.requirements, "
                "app.ref)"
            )


def prune(newest):
    """Removes old sets, and parts that no set uses."""
    kept = {newest}
    try:
        with open(SERVICE, encoding="utf-8") as file:
            kept.update(re.findall(r"/engine/sets/([0-9a-f]{16})/", file.read()))
    except FileNotFoundError:
        pass
    sets = HOME + "/sets"
    others = [n for n in os.listdir(sets) if re.fullmatch("[0-9a-f]{16}", n) and n not in kept]
    others.sort(key=lambda n: -os.stat(f"{sets}/{n}").st_mtime)
    for old in others[KEEP:]:
        shutil.rmtree(f"{sets}/{old}")
    used = {
        os.readlink(f"{sets}/{name}/{link}")
        for name in os.listdir(sets)
        for link in os.listdir(f"{sets}/{name}")
        if os.path.islink(f"{sets}/{name}/{link}")
    }
    for kind in ("sources", "envs", "models"):
        for part in os.listdir(f"{HOME}/{kind}"):
            if f"{HOME}/{kind}/{part}" not in used:
                shutil.rmtree(f"{HOME}/{kind}/{part}")


# -- what is built for the GPU


def mirror(model, target):
    gpu = ", ".join(ask_gpus("name")[0])
    try:
        with open(target + "/.built", encoding="utf-8") as file:
            built = file.read().strip()
    except FileNotFoundError:
        built = None
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(target):
        path = f"{target}/{name}"
        if os.path.islink(path) or (built != gpu and not os.path.isdir(path)):
            os.unlink(path)
        elif built != gpu:
            shutil.rmtree(path)
    for name in os.listdir(model):
        if not name.startswith("."):
            os.symlink(f"{model}/{name}", f"{target}/{name}")
    # Those of engines before this one: the one to go back to keeps its own.
    beside = os.path.dirname(os.path.dirname(target))
    others = [n for n in os.listdir(beside) if f"{beside}/{n}" != os.path.dirname(target)]
    others.sort(key=lambda n: -os.stat(f"{beside}/{n}").st_mtime)
    for old in others[KEEP:]:
        shutil.rmtree(f"{beside}/{old}")
    return f"{target} is for {gpu}" + ("" if built == gpu else ", and nothing is built yet")


def built(target):
    new = target + "/.built.new"
    with open(new, "w", encoding="utf-8") as file:
        file.write(", ".join(ask_gpus("name")[0]) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, target + "/.built")
    return f"what is built in {target} is good"


def arguments():
    parser = argparse.ArgumentParser(prog="engine")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, *positional):
        command = commands.add_parser(name)
        for word in positional:
            command.add_argument(word)
        return command

    checking = add("check")
    checking.add_argument("--memory", type=float, required=True)
    checking.add_argument("--driver", default="")
    checking.add_argument("--disk", action="append", default=[])
    add("source", "commit", "origin")
    making = add("environment", "name", "lock")
    making.add_argument("--python", required=True)
    making.add_argument("--by", choices=("auto", "venv", "conda", "uv"), required=True)
    making.add_argument("--wheels", default="")
    assembling = add("assemble", "name")
    for option in ("source", "environment", "model", "called", "user"):
        assembling.add_argument("--" + option, required=True)
    add("mirror", "model", "target")
    add("built", "target")
    return parser.parse_args()


def main():
    given = arguments()
    try:
        if given.command in ("source", "environment", "assemble"):
            for kind in ("sources", "envs", "models", "sets"):
                os.makedirs(f"{HOME}/{kind}", exist_ok=True)
        if given.command == "check":
            print(check(given.memory, given.driver, given.disk))
        elif given.command == "source":
            print(source(given.commit, given.origin))
        elif given.command == "environment":
            print(environment(given.name, given.lock, given.python, given.by, given.wheels))
        elif given.command == "assemble":
            parts = {"sources": given.source, "envs": given.environment, "models": given.model}
            print(assemble(given.name, parts, given.called, given.user))
        elif given.command == "mirror":
            print(mirror(given.model, given.target))
        else:
            print(built(given.target))
    except Failed as error:
        sys.stderr.write(f"engine: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"engine: {error}. To do: see to it on the machine, and deploy again\n")
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
