"""What the speech app itself costs: time and memory of requests whose result is there already.

The real app with the cpu engine runs on this computer, kept to one core with everything that it starts; the
client has another one. Nothing of it is emulated, and nothing is left out but the network and the synthesis:
what is asked for has been made before. A request comes with an API key, as those of OpenAI's clients do, so
it is remembered in a history, too.

Usage: app/test --python $PWD/bench/app_speed.py [--rounds 5] [--seconds 4] [--requests 10000]
           [--results 100000]
A JSON line for every measurement goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

APP = Path(__file__).resolve().parent.parent / "app"
# As many connections as ask at one time when it is about requests/s.
CONNECTIONS = 8
# Requests between two looks at the memory.
SAMPLE = 250
# Of ten requests while the memory is looked at.
_MIX = ["cached", "cached", "refused", "cached", "made", "cached", "cached", "refused", "cached", "cached"]
_KEY = "benchmark-of-the-speech-app"
_TEXT = "What was said before is not said again: it lies on the share, and every node finds it there."


def request(method: str, path: str, body: object = None) -> bytes:
    """The bytes of a request on a connection that is kept."""
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def speech(text: str, **fields: object) -> bytes:
    return request("POST", "/v1/audio/speech", {"model": "tts-1", "input": text, **fields})


class Connection:
    """One that is kept, without a library in between: what the client takes is not to be measured."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = self.body = b""

    def send(self, message: bytes) -> None:
        self._got = b""
        self.socket.sendall(message)

    def take(self) -> int | None:
        """The status once the whole answer is there; None: it is not yet."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise SystemExit("the app closed a connection")
        self._got += part
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" in fields:
            complete = len(body) >= int(fields[b"content-length"])
        else:
            complete = body.endswith(b"\r\n0\r\n\r\n")
        self.body = body
        return int(head.split(b" ", 2)[1]) if complete else None

    def ask(self, message: bytes) -> int:
        """The status of the answer, whose body is `body` then."""
        self.send(message)
        while (status := self.take()) is None:
            pass
        return status


def start(folder: Path, port: int, core: int, **settings: str) -> subprocess.Popen[bytes]:
    """The app, on that core alone. settings: more of its environment."""
    environment = {
        **os.environ,
        "COSYVOICE_NODE": "rs-1",
        "COSYVOICE_OUTPUTS": str(folder / "outputs"),
        "COSYVOICE_DRAIN_FILE": str(folder / "no-drain"),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        **settings,
    }
    command = [sys.executable, str(APP / "app.py"), "--port", str(port), "--enable-queue"]
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # which the app inherits, with each of its threads and processes
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    os.sched_setaffinity(0, own)
    end = time.monotonic() + 180
    while not is_ready(port):
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the app is not ready: {(folder / 'log').read_text()[-2000:]}")
        time.sleep(0.2)
    return process


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def processes(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # it has ended meanwhile
    return found


def resident(pid: int) -> int:
    """Bytes of memory; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def used(pid: int) -> float:
    """Seconds of processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def emit(**row: object) -> None:
    print(json.dumps(row), flush=True)


def ask_page(connection: Connection) -> int:
    """As a program that uses the page's API does: what is wanted, then the events until it is there."""
    data = [_TEXT, "auto", 1, 1, "", "", None, ""]
    connection.ask(request("POST", "/gradio_api/call/generate", {"data": data}))
    name = json.loads(connection.body)["event_id"]
    status = connection.ask(request("GET", f"/gradio_api/call/generate/{name}"))
    return status if b"event: complete" in connection.body else 500


def latency(
    port: int, pid: int, what: str, ask: Callable[[Connection], int], seconds: float, number: int
) -> None:
    """One after the other on one connection. Milliseconds."""
    connection = Connection(port)
    for _ in range(20):  # what is done at first only is none of this
        ask(connection)
    times = []
    before, end = used(pid), time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        status = ask(connection)
        times.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise SystemExit(f"{what}: answered with {status}")
    spent = used(pid) - before
    times.sort()

    def share(part: float) -> float:
        return round(times[max(0, math.ceil(part * len(times)) - 1)], 3)

    emit(
        event="latency",
        what=what,
        round=number,
        requests=len(times),
        p50=share(0.5),
        p95=share(0.95),
        p99=share(0.99),
        max=round(times[-1], 3),
        cpu_ms=round(spent / len(times) * 1000, 3),
    )


def throughput(port: int, pid: int, what: str, message: bytes, seconds: float, number: int) -> None:
    """As fast as it goes on a few connections."""
    connections = {c.socket.fileno(): c for c in (Connection(port) for _ in range(CONNECTIONS))}
    poll = select.poll()
    for fd, connection in connections.items():
        poll.register(fd, select.POLLIN)
        connection.send(message)
    done = errors = 0
    before, begin = used(pid), time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        for fd, _ in poll.poll(1000):
            if (status := connections[fd].take()) is not None:
                done += 1
                errors += status != 200
                connections[fd].send(message)
    emit(
        event="throughput",
        what=what,
        round=number,
        connections=CONNECTIONS,
        per_second=round(done / (now - begin), 1),
        errors=errors,
        cpu_ms=round((used(pid) - before) / max(1, done) * 1000, 3),
    )


def memory(port: int, pid: int, requests: int, cached: bytes) -> None:
    """A row for every `SAMPLE` requests: of ten, seven are cached, one is made, two are refused."""
    connection = Connection(port)
    errors = [speech("hi", voice="klingon"), request("GET", f"/v1/results/{'0' * 32}.wav")]
    expected = {"cached": (200,), "made": (200,), "refused": (400, 404)}
    row = {"event": "memory", "requests": 0}
    for number in range(requests + 1):
        if number % SAMPLE == 0:
            others = processes(pid)[1:]
            emit(
                **{**row, "requests": number},
                rss=resident(pid),
                children_rss=sum(resident(child) for child in others),
                children=len(others),
            )
        kind = _MIX[number % len(_MIX)]
        message = {"cached": cached, "made": speech(f"Number {number}."), "refused": errors[number // 5 % 2]}
        status = connection.ask(message[kind])
        if status not in expected[kind]:
            raise SystemExit(f"a request that was to be {kind} was answered with {status}")


def listing(folder: Path, port: int, core: int, results: int) -> None:
    """Everybody's newest results out of very many, after a start and later."""
    outputs = folder / "outputs"
    outputs.mkdir()
    for number in range(results):
        parameters = json.dumps({"text": f"Number {number}.", "seed": 1}).encode() + b"\0"
        parameters += b"\0" * (len(parameters) % 2)
        trailer = struct.pack("<4sI4s4sI", b"LIST", 12 + len(parameters), b"INFO", b"ICMT", len(parameters))
        wav = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", 36 + 100 + len(trailer + parameters), b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16),
            *(b"data", 100),
        )
        file = outputs / f"{number:032x}.wav"
        file.write_bytes(wav + bytes(100) + trailer + parameters)
        os.utime(file, (1e9 + number, 1e9 + number))
    began = time.monotonic()
    process = start(folder, port, core, COSYVOICE_SHARED_HISTORY="1")
    started = time.monotonic()
    try:
        connection = Connection(port)
        row: dict[str, object] = {"event": "listing", "results": results}
        question = request("GET", "/v1/results?limit=20")

        def newest() -> tuple[float, list[str]]:
            asked = time.monotonic()
            status = connection.ask(question)
            took = time.monotonic() - asked
            return took, [r["name"] for r in json.loads(connection.body)["data"]] if status == 200 else []

        row["first_s"], names = newest()
        while names[:1] != [f"{results - 1:032x}.wav"]:
            if time.monotonic() > started + 300:
                raise SystemExit("the newest results were not listed within 300 s")
            time.sleep(0.05)
            _, names = newest()
        row["complete_s"] = time.monotonic() - started
        row["again_s"] = min(newest()[0] for _ in range(5))
        connection.ask(speech("Something new."))
        row["after_a_new_one_s"] = newest()[0]
        row["rss"] = resident(process.pid)
        row["start_s"] = started - began
        emit(**{name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each measurement lasts")
    parser.add_argument("--requests", type=int, default=10_000, help="while the memory is looked at")
    parser.add_argument("--results", type=int, default=100_000, help="out of which the newest are listed")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two cores: one for the app and one for the client")
    os.sched_setaffinity(0, {cores[1]})
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="app-speed-") as directory:
        folder = Path(directory)
        (folder / "outputs").mkdir()
        process = start(folder, port, cores[0])
        try:
            cached = speech(_TEXT)
            with urllib.request.urlopen(  # makes it
                urllib.request.Request(
                    f"http://127.0.0.1:{port}/v1/audio/speech",
                    cached.partition(b"\r\n\r\n")[2],
                    {"Content-Type": "application/json"},
                )
            ) as answer:
                name = answer.headers["X-Result-Name"]
            what = {
                "speech": cached,
                "speech as mp3": speech(_TEXT, response_format="mp3"),
                "result": request("GET", f"/v1/results/{name}"),
            }
            asked = {
                name: lambda connection, message=message: connection.ask(message)
                for name, message in what.items()
            }
            for number in range(1, options.rounds + 1):
                for name, ask in {**asked, "page": ask_page}.items():
                    latency(port, process.pid, name, ask, options.seconds, number)
                for name in ("speech", "result"):
                    throughput(port, process.pid, name, what[name], options.seconds, number)
            memory(port, process.pid, options.requests, cached)
        finally:
            process.kill()
            process.wait()
    with tempfile.TemporaryDirectory(prefix="app-speed-") as directory:
        listing(Path(directory), port, cores[0], options.results)


if __name__ == "__main__":
    main()
