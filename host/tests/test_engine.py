"""The engine's parts on a real server: whole or not there, never the wrong one pruned. Git, pip and HTTP are
real; nvidia-smi, conda and uv are stood in for."""

import functools
import hashlib
import http.server
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import threading

import pytest
from test_programs import wheel

HOST = pathlib.Path(__file__).resolve().parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ME = pwd.getpwuid(os.geteuid()).pw_name


class Node:
    """A folder in the place of /opt/cosyvoice, with the real programs."""

    def __init__(self, folder):
        self.folder, self.home, self.engine = folder, folder / "home", folder / "home" / "engine"
        self.programs, self.bin, self.service = folder / "programs", folder / "bin", folder / "service.env"
        self.programs.mkdir()
        self.bin.mkdir()
        shutil.copy(HOST / "engine.py", self.programs / "engine")
        shutil.copy(HOST / "build-env", self.programs / "build-env")
        self.path = os.environ["PATH"]

    def program(self, name, text):
        """A stand-in on the machine's PATH."""
        (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.bin / name).chmod(0o755)

    def gpu(self, driver="535.183.01", memory=16384, name="Made-up T4"):
        fields = f"name={name!r} driver={driver!r} memory={memory!r}"
        self.program(
            "nvidia-smi",
            f'{fields}\ncase $1 in *name,driver*) echo "$name, $driver, $memory" ;; *) echo "$name" ;; esac',
        )

    def run(self, *arguments, code=0):
        result = subprocess.run(
            [sys.executable, "-IS", self.programs / "engine", *map(str, arguments)],
            env={
                "COSYVOICE_LVS_HOME": str(self.home),
                "COSYVOICE_LVS_SERVICE": str(self.service),
                "PATH": f"{self.bin}:{self.path}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return (result.stdout if code == 0 else result.stderr).strip()

    def part(self, kind, name, **files):
        """A part that is there."""
        place = self.engine / kind / name
        place.mkdir(parents=True)
        for path, text in files.items():
            (place / path).write_text(text)
        (place / ".complete").touch()
        return place

    def names(self, kind):
        return set(os.listdir(self.engine / kind))


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


# -- check


def test_a_machine_with_all_that_is_needed_passes(node):
    node.gpu(driver="525.60.13", memory=8188)
    part = node.part("models", "there")
    weights = node.folder / "weights"
    weights.mkdir()
    (weights / "llm.pt").write_bytes(b"x" * 1000)
    said = node.run(
        *("check", "--memory", 8, "--driver", "525.60.13", "--disk", "envs/a=0.001"),
        *("--disk", f"models/b={weights}", "--disk", "models/there=9999999"),
    )
    assert said == "Made-up T4, driver 525.60.13: as it must be"
    assert part.exists()


def test_all_that_is_missing_is_named_at_once(node):
    node.gpu(driver="470.9", memory=4096)
    said = node.run(
        "check", "--memory", 8, "--driver", "525.60.13", "--disk", "envs/a=5000000", "--disk", "m/b=1", code=1
    )
    assert "driver is 470.9, and the CUDA in the engine's environment needs 525.60.13 or newer" in said
    assert "(Made-up T4) has 4.0 GiB of memory, and the engine needs 8" in said
    assert "the engine takes 5000001.0 GiB more, and " in said
    assert not node.engine.exists(), "nothing was touched"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "no GPU: nvidia-smi cannot be run: No such file"),
        ("echo couldn\\'t communicate with the driver; exit 9", "exited with 9:\ncouldn't communicate"),
        ("true", "nvidia-smi names no GPU"),
    ],
)
def test_a_machine_without_a_gpu_is_told_what_to_do(node, text, complaint):
    if text:
        node.program("nvidia-smi", text)
    said = node.run("check", "--memory", 8, code=1)
    assert complaint in said
    assert "To do: " in said


def test_a_folder_of_weights_that_is_not_there_is_named(node):
    node.gpu()
    said = node.run("check", "--memory", 8, "--disk", "models/b=/nowhere/at/all", code=1)
    assert "there is no folder /nowhere/at/all" in said


# -- source


def git(where, *arguments):
    identity = ("-c", "user.name=made up", "-c", "user.email=made@up", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=where, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class Upstream:
    """Two repositories, one a submodule of the other by a relative address, and a checkout of both."""

    def __init__(self, folder):
        self.folder, self.checkout = folder, folder / "checkout"
        for name, file in (("matcha", "matcha.py"), ("cosyvoice", "cosyvoice/x.py")):
            work = folder / name
            (work / file).parent.mkdir(parents=True)
            git(folder, "init", "--quiet", "--initial-branch=main", name)
            (work / file).write_text(f"# {name} 1\n")
            git(work, "add", ".")
            git(work, "commit", "--quiet", "-m", "one")
        work = folder / "cosyvoice"
        git(work, "submodule", "--quiet", "add", "../matcha", "third_party/Matcha-TTS")
        git(work, "commit", "--quiet", "-m", "two")
        self.first = git(work, "rev-parse", "HEAD")
        (work / "cosyvoice/x.py").write_text("# cosyvoice 2\n")
        git(work, "commit", "--quiet", "-am", "three")
        self.second = git(work, "rev-parse", "HEAD")
        git(folder, "clone", "--quiet", "--recurse-submodules", str(work), str(self.checkout))

    def serve(self):
        """As plain files over HTTP, of which git can fetch whole branches only."""
        for name in ("cosyvoice", "matcha"):
            git(self.folder, "clone", "--quiet", "--bare", name, f"served/{name}.git")
            git(self.folder / "served" / f"{name}.git", "update-server-info")
            os.symlink(f"{name}.git", self.folder / "served" / name)
        handler = functools.partial(Quiet, directory=self.folder / "served")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    return Upstream(tmp_path_factory.mktemp("upstream"))


def contents(tree):
    return {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}


def expected(upstream, number):
    return {
        ".complete": "",
        ".gitmodules": (upstream.folder / "cosyvoice/.gitmodules").read_text(),
        "cosyvoice/x.py": f"# cosyvoice {number}\n",
        "third_party/Matcha-TTS/matcha.py": "# matcha 1\n",
    }


def test_a_commit_comes_with_its_submodules_from_a_checkout(node, upstream):
    if os.geteuid() == 0:  # whoever put it there
        subprocess.run(["chown", "-R", "nobody", upstream.checkout], check=True)
    for number, commit in ((1, upstream.first), (2, upstream.second)):
        assert node.run("source", commit, upstream.checkout) == f"source {commit} is staged"
        assert contents(node.engine / "sources" / commit) == expected(upstream, number)
    assert "there already" in node.run("source", upstream.first, "/nowhere")


def test_a_commit_comes_with_its_submodules_over_http(node, upstream):
    server = upstream.serve()
    half = node.engine / "sources" / f".{upstream.first}.new"  # of a run that was killed
    half.mkdir(parents=True)
    (half / "stray").touch()
    try:
        node.run("source", upstream.first, f"http://127.0.0.1:{server.server_port}/cosyvoice")
    finally:
        server.shutdown()
    assert contents(node.engine / "sources" / upstream.first) == expected(upstream, 1)
    assert node.names("sources") == {upstream.first}


def test_a_commit_that_cannot_be_had_leaves_nothing_that_counts(node, upstream):
    said = node.run("source", "0" * 40, upstream.checkout, code=1)
    assert f"commit {'0' * 40} cannot be had from {upstream.checkout}" in said
    assert "To do: see that the real servers reach it" in said
    commit = git(upstream.folder / "matcha", "rev-parse", "HEAD")
    said = node.run("source", commit, upstream.folder / "matcha", code=1)
    assert "has no folder cosyvoice" in said
    assert not any(complete.is_file() for complete in node.engine.glob("sources/*/.complete"))


# -- environment


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_an_environment_comes_from_a_folder_of_wheels(node):
    lock = node.folder / "lock"
    lock.write_text(wheel(node.folder))
    name = f"{digest(lock)}-{VERSION}"
    options = ("--python", VERSION, "--by", "venv", "--wheels", node.folder)
    assert f"environment {name} is staged, with " in node.run("environment", name, lock, *options)
    python = node.engine / "envs" / name / "bin/python"
    subprocess.run([python, "-c", "import demo_package"], check=True)
    assert node.names("") == {"envs", "models", "sets", "sources"}, "nothing is left beside it"
    lock.write_text("other\n")
    assert "there already" in node.run("environment", name, lock, *options)
    said = node.run("environment", f"{'0' * 16}-{VERSION}", lock, *options, code=1)
    assert f"has the hash {digest(lock)}, and should have {'0' * 16}" in said
    said = node.run(
        "environment", "b", lock, "--python", VERSION, "--by", "venv", "--wheels", "/nowhere", code=1
    )
    assert "there is no folder /nowhere. To do: fill it with scripts/wheelhouse" in said


def test_the_interpreter_comes_from_what_is_on_the_machine(node):
    node.path = "/usr/bin:/bin"
    (node.programs / "build-env").write_text('#!/bin/sh\necho "$PYTHON" >"$2.python"\n')
    lock = node.folder / "lock"
    lock.write_text("x\n")

    def made(by, wanted="3.19", code=0):
        name = f"{digest(lock)}-{by}"
        said = node.run("environment", name, lock, "--python", wanted, "--by", by, code=code)
        return said if code else (node.engine / "envs" / f"{name}.python").read_text().strip()

    said = made("auto", code=1)
    assert "venv: python3.19 is not on this machine" in said
    assert "conda: none of conda, mamba and micromamba" in said
    assert "uv: uv is not on this machine" in said
    assert "To do: install one of Debian's python3.19" in said
    node.program(
        "uv", 'case "$*" in "python install 3.19") ;; "python find 3.19") echo /uv/python ;; *) exit 1; esac'
    )
    assert made("auto") == "/uv/python"
    node.program("mamba", 'touch "$0.called"; mkdir -p "$5/bin"')
    assert made("auto") == str(node.engine / "pythons/conda-3.19/bin/python")
    (node.bin / "mamba.called").unlink()
    assert made("conda") == str(node.engine / "pythons/conda-3.19/bin/python")
    assert not (node.bin / "mamba.called").exists(), "made once"
    assert made("uv") == "/uv/python"
    node.program("python3.19", "exit 0")
    assert made("auto") == str(node.bin / "python3.19")
    assert "venv: python3.20" in made("venv", wanted="3.20", code=1)


# -- sets


class Parts:
    """Parts with a source that can be imported by the tests' own Python."""

    def __init__(self, node):
        self.node = node

    def make(self, number, text="import json\n"):
        package = self.node.part("sources", f"{number:040}") / "cosyvoice/cli"
        package.mkdir(parents=True)
        (package / "cosyvoice.py").write_text(text)
        env = self.node.part("envs", f"e{number}")
        (env / "bin").mkdir()
        (env / "bin/python").symlink_to(sys.executable)
        self.node.part("models", f"m{number}", **{"llm.pt": str(number)})
        return self.assemble

    def assemble(self, number, code=0, **other):
        parts = {"source": f"{number:040}", "environment": f"e{number}", "model": f"m{number}", **other}
        options = [f"--{kind}={name}" for kind, name in parts.items()]
        said = self.node.run(
            "assemble", f"{number:016x}", *options, "--called=Model-3", f"--user={ME}", code=code
        )
        place = self.node.engine / "sets" / f"{number:016x}"
        if code == 0:
            os.utime(place, (1000 + number, 1000 + number))
        return said

    def run_by_service(self, number):
        self.node.service.write_text(f"COSYVOICE_SOURCE={self.node.engine}/sets/{number:016x}/source\n")


@pytest.fixture
def parts(node):
    return Parts(node)


def test_a_set_is_made_of_parts_that_are_there(node, parts):
    parts.make(1)
    assert parts.assemble(1) == "engine 0000000000000001 is staged"
    place = node.engine / "sets/0000000000000001"
    assert (place / "Model-3/llm.pt").read_text() == "1"
    assert {entry.name for entry in place.iterdir()} == {"source", "env", "Model-3", ".complete"}
    assert "there already" in parts.assemble(1)
    one = {"source": f"{1:040}", "environment": "e1", "model": "m1"}
    assert "models/m9 is not there, or not whole" in parts.assemble(2, code=1, **{**one, "model": "m9"})
    (node.engine / "envs/e1/.complete").unlink()
    assert "envs/e1 is not there" in parts.assemble(3, code=1, **one)


def test_a_source_that_lacks_a_package_is_found_before_anything_runs_it(node, parts):
    parts.make(1, "import no_such_package\n")
    said = parts.assemble(1, code=1)
    assert "No module named 'no_such_package'" in said
    assert "To do: see that the lock file has what this commit of the source needs" in said
    assert node.names("sets") == set()


def test_old_sets_go_with_their_parts_and_what_runs_stays(node, parts):
    for number in range(1, 4):
        parts.make(number)
        parts.assemble(number)
    assert node.names("sets") == {f"{n:016x}" for n in (2, 3)}, "the newest and one more"
    assert node.names("models") == {"m2", "m3"}
    parts.run_by_service(2)
    for number in range(4, 7):
        parts.make(number)
        parts.assemble(number)
    assert node.names("sets") == {f"{n:016x}" for n in (2, 5, 6)}
    assert node.names("sources") == {f"{n:040}" for n in (2, 5, 6)}
    assert node.names("envs") == {"e2", "e5", "e6"}


def test_what_a_killed_staging_left_goes_with_the_next(node, parts):
    parts.make(1)
    parts.assemble(1)
    (node.engine / "models/.m7.new").mkdir()
    node.part("sources", "orphan")
    parts.make(2)
    parts.assemble(2)
    assert node.names("models") == {"m1", "m2"}
    assert node.names("sources") == {f"{n:040}" for n in (1, 2)}


# -- what is built for the GPU


def test_what_was_built_is_believed_after_a_good_start_on_the_same_gpu_only(node):
    node.gpu()
    model = node.part("models", "m", **{"llm.pt": "weights"})
    target = node.folder / "state" / "set-1" / "Model-3"

    def entries():
        return {path.name for path in target.iterdir()}

    node.run("mirror", model, target)
    assert (target / "llm.pt").read_text() == "weights"
    (target / "x.plan").write_text("half of it")
    (target / "vllm").mkdir()
    node.run("mirror", model, target)
    assert entries() == {"llm.pt"}, "that start had failed"
    (target / "x.plan").write_text("built")
    node.run("built", target)
    node.run("mirror", model, target)
    assert entries() == {"llm.pt", "x.plan", ".built"}
    node.gpu(name="Made-up L4")
    assert node.run("mirror", model, target).endswith("is for Made-up L4, and nothing is built yet")
    assert entries() == {"llm.pt"}


def test_what_engines_before_the_last_one_built_goes(node):
    node.gpu()
    model = node.part("models", "m")
    for number in range(4):
        node.run("mirror", model, node.folder / "state" / f"set-{number}" / "Model-3")
        os.utime(node.folder / "state" / f"set-{number}", (1000 + number, 1000 + number))
    assert set(os.listdir(node.folder / "state")) == {"set-2", "set-3"}


def test_called_wrongly_it_says_how(node):
    for words in ((), ("stage",), ("source", "x"), ("environment", "a", "b", "--python", "3", "--by", "pip")):
        assert "usage: engine" in node.run(*words, code=2)
