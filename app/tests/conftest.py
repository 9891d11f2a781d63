"""A real server process for tests, and the settings they share."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

#: Of the page's event `generate`: no instruction, no saved voice, no recording and no words of it.
NOTHING_MORE = ("", "", None, "")

APP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(APP))


@dataclass
class Server:
    """A running service. http: a client whose paths are relative to it."""

    process: subprocess.Popen[bytes]
    url: str
    outputs: Path
    http: httpx.Client
    log: Path

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/readyz").status_code == 200
        return False

    def wait_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.ready():
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            assert time.monotonic() < end, f"not ready within {seconds} s: {self.log.read_text()}"
            time.sleep(0.05)

    def say(self, text: str, **fields: object) -> httpx.Response:
        return self.http.post("/v1/audio/speech", json={"model": "tts-1", "input": text, **fields})

    def metric(self, name: str) -> float:
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def stop(self, limit: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


StartServer = Callable[..., Server]


@contextlib.contextmanager
def _starter(folder: Path) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(
        *flags: str,
        outputs: Path | None = None,
        wait: bool = True,
        prefix: tuple[str, ...] = (),
        **environment: str,
    ) -> Server:
        where = outputs or folder / f"outputs-{len(servers)}"
        where.mkdir(exist_ok=True)
        port = free_port()
        log = folder / f"log-{len(servers)}"
        env = {
            **os.environ,
            "COSYVOICE_NODE": f"node-{len(servers)}",
            "COSYVOICE_OUTPUTS": str(where),
            "COSYVOICE_DRAIN_DELAY": "0.2",
            "COSYVOICE_SHARED_HISTORY": "1",
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            **environment,
        }
        command = [*prefix, sys.executable, str(APP / "app.py"), "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as file:
            process = subprocess.Popen([*command, *flags], env=env, cwd=folder, stdout=file, stderr=file)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        server = Server(process, f"http://127.0.0.1:{port}", where, client, log)
        servers.append(server)
        if wait:
            server.wait_ready()
        return server

    try:
        yield start
    finally:
        for server in servers:
            server.http.close()
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of this test's own; they are gone after it."""
    with _starter(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with a queue for all tests that leave it as it is."""
    with _starter(tmp_path_factory.mktemp("server")) as start:
        yield start("--enable-queue", COSYVOICE_NODE="rs-1", COSYVOICE_MAX_CHARACTERS="300")


@pytest.fixture
def slow_espeak(tmp_path: Path) -> Path:
    """A program in place of espeak-ng that takes `sleep N` in the text at its word: it hangs for N seconds.

    It writes its process number to the file `pids` beside it first. It fails while there is a file `broken`
    beside it, and for each text with the word crash.
    """
    program = tmp_path / "slow-espeak"
    program.write_text(
        "#!/bin/bash\n"
        'if [[ $1 == --version ]]; then exec espeak-ng "$@"; fi\n'
        "text=$(cat)\n"
        f"echo $$ >> {tmp_path}/pids\n"
        'if [[ $text =~ sleep\\ ([0-9.]+) ]]; then sleep "${BASH_REMATCH[1]}"; fi\n'
        f"if [[ $text == *crash* || -e {tmp_path}/broken ]]; then echo it broke >&2; exit 3; fi\n"
        'printf "%s\\n" "$text" | espeak-ng "$@"\n'
    )
    program.chmod(0o755)
    return program
