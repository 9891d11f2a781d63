"""How long users wait when all of them reach one node of three: measured, against one shared queue.

100 users behind one address are one client to a balancer that hashes addresses, so all their requests meet
the same node. Three real nodes run on this computer, with a stand-in for espeak-ng that takes a known time
for each request and no processor. What each user waited beyond that time is compared with a simulation of one
queue for three engines that is given the same arrivals and the same times. For comparison, with syntheses of
one second: the same without peers, and with a balancer that takes turns.

Prints a JSON object a line, as scripts/bench peers reads it.

Usage: app/test --python $PWD/bench/app_peers.py [--users 100] [--seconds 1.0 ...] [--over 5] [--rounds 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

APP = Path(__file__).resolve().parent.parent / "app"

# The text of a request says how long it takes; its number makes it another result.
_ENGINE = """#!/bin/bash
if [[ $1 == --version ]]; then echo "eSpeak NG text-to-speech: 1.51"; exit; fi
read -r text
if [[ $text =~ takes\\ ([0-9.]+) ]]; then sleep "${{BASH_REMATCH[1]}}"; fi
exec cat {sound}
"""


@dataclass(frozen=True)
class Arrangement:
    """Whether the nodes hand over to each other, and whether the users meet all of them or one."""

    name: str
    peers: bool
    in_turn: bool


ARRANGEMENTS = (
    Arrangement("one address, peers", peers=True, in_turn=False),
    Arrangement("in turn, peers", peers=True, in_turn=True),
    Arrangement("one address, alone", peers=False, in_turn=False),
)


@dataclass(frozen=True)
class Request:
    """One user's request, in seconds: when it was sent, what its synthesis takes, when it was done."""

    sent: float
    takes: float
    done: float

    @property
    def waited(self) -> float:
        return self.done - self.sent - self.takes


def shared_queue(requests: list[Request], engines: int) -> list[float]:
    """What each would have waited in one queue, first come, first served, with nothing in between."""
    free = [0.0] * engines
    waits = []
    for request in sorted(requests, key=lambda r: r.sent):
        begin = max(request.sent, heapq.heappop(free))
        heapq.heappush(free, begin + request.takes)
        waits.append(begin - request.sent)
    return waits


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@contextlib.contextmanager
def nodes(folder: Path, count: int, *, peers: bool, room: int) -> Iterator[list[str]]:
    """Addresses of running nodes that are ready."""
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(bytes(22050))
    engine = folder / "engine"
    engine.write_text(_ENGINE.format(sound=folder / "sound.wav"))
    engine.chmod(0o755)
    ports = []
    for _ in range(count):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
    (folder / "key").write_text(secrets.token_hex(32))
    others = [{"name": f"rs-{n + 1}", "url": f"http://127.0.0.1:{port}"} for n, port in enumerate(ports)]
    processes = []
    try:
        for index, port in enumerate(ports):
            name = f"rs-{index + 1}"
            (folder / f"{name}.json").write_text(json.dumps({"self": name, "peers": others}))
            environment = {
                **os.environ,
                "COSYVOICE_NODE": name,
                "COSYVOICE_ESPEAK": str(engine),
                "COSYVOICE_OUTPUTS": str(folder / "outputs"),
                "COSYVOICE_QUEUE_LENGTH": str(room),
                "COSYVOICE_DRAIN_FILE": str(folder / "no-drain"),
                "GRADIO_TEMP_DIR": str(folder / f"uploads-{index}"),
            }
            if peers:
                environment["COSYVOICE_PEERS"] = str(folder / f"{name}.json")
                environment["COSYVOICE_PEER_KEY_FILE"] = str(folder / "key")
            command = [sys.executable, str(APP / "app.py"), "--port", str(port), "--enable-queue"]
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
                )
        urls = [entry["url"] for entry in others]
        end = time.monotonic() + 180
        for url in urls:
            while not is_ready(url, count - 1 if peers else 0):
                if time.monotonic() > end:
                    raise SystemExit(f"{url} is not ready after 180 s; its log is in {folder}")
                time.sleep(0.2)
        yield urls
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait()


def is_ready(url: str, peers: int) -> bool:
    try:
        if httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
            return False
        text = httpx.get(f"{url}/metrics", trust_env=False).text
    except httpx.TransportError:
        return False
    return peers == 0 or f"tts_peers_up {float(peers)}" in text


async def visit(urls: list[str], users: int, seconds: float, over: float, seed: int) -> list[Request]:
    """Every user speaks once, at some moment of the first `over` seconds, to the next of `urls`."""
    rng = random.Random(seed)
    plan = sorted((rng.uniform(0, over), rng.uniform(0.5, 1.5) * seconds) for _ in range(users))
    began = time.monotonic()

    async def one(number: int, at: float, takes: float) -> Request:
        await asyncio.sleep(at)
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=False) as client:
            sent = time.monotonic() - began
            body = {"input": f"number {number} takes {takes:.3f}"}
            answer = await client.post(f"{urls[number % len(urls)]}/v1/audio/speech", json=body)
        if answer.status_code != 200:
            raise SystemExit(f"a request was refused: {answer.status_code} {answer.text[:300]}")
        return Request(sent, takes, time.monotonic() - began)

    return await asyncio.gather(*(one(n, at, takes) for n, (at, takes) in enumerate(plan)))


def measure(options: argparse.Namespace, seconds: float, number: int, how: Arrangement) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="app-peers-") as directory:
        folder = Path(directory)
        (folder / "outputs").mkdir()
        with nodes(folder, options.nodes, peers=how.peers, room=options.users) as urls:
            targets = urls if how.in_turn else urls[:1]
            requests = asyncio.run(visit(targets, options.users, seconds, options.over, seed=number))
    waited = [request.waited for request in requests]
    ideal = shared_queue(requests, options.nodes)
    return {
        "name": how.name,
        "seconds": seconds,
        "round": number,
        "users": options.users,
        "p50": round(percentile(waited, 0.5), 3),
        "p95": round(percentile(waited, 0.95), 3),
        "shared_p50": round(percentile(ideal, 0.5), 3),
        "shared_p95": round(percentile(ideal, 0.95), 3),
        "p95_ratio": round(percentile(waited, 0.95) / max(percentile(ideal, 0.95), 0.01), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0], help="mean time of a synthesis")
    parser.add_argument("--over", type=float, default=5.0, help="the users come within so many seconds")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    for number in range(1, options.rounds + 1):
        for seconds in options.seconds:
            # What is compared with is measured once: it differs by much more than rounds do.
            for how in ARRANGEMENTS if number == 1 and seconds == 1 else ARRANGEMENTS[:1]:
                print(json.dumps({"note": f"{how.name}, {seconds} s, round {number}"}), flush=True)
                print(json.dumps(measure(options, seconds, number, how)), flush=True)


if __name__ == "__main__":
    main()
