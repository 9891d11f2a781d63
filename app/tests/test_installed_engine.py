"""The engine cosyvoice as a deployment installs it: staged by the programs that go to machines, of upstream's
stand-in, a small lock file and a model of a few bytes, and then spoken with by the real service.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import APP, StartServer

HOST = APP.parent / "host"
MODEL = {
    "cosyvoice3.yaml": "made: up\n",
    "llm.pt": "llm",
    "flow.pt": "flow",
    "hift.pt": "hift",
    "campplus.onnx": "campplus",
    "speech_tokenizer_v3.onnx": "tokens",
    "CosyVoice-BlankEN/config.json": "{}",
}


class Machine:
    """A folder in the place of /opt/cosyvoice, and a nvidia-smi that says what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.engine = folder, folder / "home" / "engine"
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name, file in (("engine", "engine.py"), ("weights", "weights.py"), ("build-env", "build-env")):
            shutil.copy(HOST / file, self.programs / name)
        smi = self.programs / "nvidia-smi"
        smi.write_text(
            "#!/bin/sh\ncase $1 in *driver*) echo 'Made-up T4, 535.1, 16384' ;; *) echo Made-up T4 ;; esac\n"
        )
        smi.chmod(0o755)

    def run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-IS", str(self.programs / program), *map(str, arguments)],
            env={
                **os.environ,
                "COSYVOICE_LVS_HOME": str(self.folder / "home"),
                "COSYVOICE_LVS_SERVICE": str(self.folder / "cosyvoice.env"),
                "PATH": f"{self.programs}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def checkout(self) -> str:
        """Upstream's stand-in as a git repository; its commit."""
        source = self.folder / "checkout"
        shutil.copytree(APP / "tests" / "standin", source, ignore=shutil.ignore_patterns("__pycache__"))
        identity = ("-c", "user.name=made up", "-c", "user.email=made@up")
        for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "one")):
            subprocess.run(["git", *identity, *words], cwd=source, check=True)
        head = ["git", "rev-parse", "HEAD"]
        return subprocess.run(head, cwd=source, check=True, capture_output=True, text=True).stdout.strip()

    def lock(self) -> Path:
        """numpy as the service has it: all that the stand-in imports."""
        packages = (APP / "requirements.txt").read_text()
        found = re.search(r"^numpy==.*(\n    --hash.*)+", packages, re.MULTILINE)
        assert found is not None
        lock = self.folder / "lock.txt"
        lock.write_text(found[0] + "\n")
        return lock

    def weights(self) -> Path:
        """A folder with a model, and beside it the hashes of its files."""
        folder = self.folder / "weights"
        lines = ""
        for name, text in MODEL.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
            lines += f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
        (self.folder / "model.sha256").write_text(lines)
        return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_a_deployment_installs_speaks(machine: Machine, start_server: StartServer) -> None:
    commit, lock, weights = machine.checkout(), machine.lock(), machine.weights()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = f"{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}-{version}"
    machine.run("engine", "check", "--memory", 8, "--disk", f"models/m={weights}")
    machine.run("engine", "source", commit, machine.folder / "checkout")
    machine.run("engine", "environment", environment, lock, "--python", version, "--by", "venv")
    machine.run("weights", "m", "--directory", weights, "--checksums", machine.folder / "model.sha256")
    parts = (f"--source={commit}", f"--environment={environment}", "--model=m", "--called=Model-3")
    user = pwd.getpwuid(os.geteuid()).pw_name
    machine.run("engine", "assemble", "feedfeedfeedfeed", *parts, f"--user={user}")
    for gone in ("checkout", "weights"):
        shutil.rmtree(machine.folder / gone)

    # As render/service.ts writes it, with TensorRT's folder of links.
    staged, mirror = machine.engine / "sets" / "feedfeedfeedfeed", machine.folder / "state" / "x" / "Model-3"
    machine.run("engine", "mirror", staged / "Model-3", mirror)
    for model in (staged / "Model-3", mirror):
        server = start_server(
            "--enable-queue",
            COSYVOICE_ENGINE="cosyvoice",
            COSYVOICE_SOURCE=str(staged / "source"),
            COSYVOICE_MODEL=str(model),
            COSYVOICE_PYTHON=str(staged / "env/bin/python"),
        )
        answer = server.say("Spoken by what was installed.")
        assert answer.status_code == 200, answer.text
        assert answer.content[:4] == b"RIFF"
        assert len(answer.content) > 24_000
        worker = next(
            command
            for command in map(_command, Path("/proc").glob("[0-9]*/cmdline"))
            if "cosyvoice_app.engines.worker_process" in command and str(staged) in command[0]
        )
        assert worker[0] == str(staged / "env/bin/python")
        server.stop()


def _command(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode().split("\0")
    except OSError:
        return [""]
