"""The poller, run as a program, against real servers that it can reach over the loopback interface."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import AS_NOBODY, NOBODY, needs_root

POLLER = pathlib.Path(__file__).resolve().parent.parent / "health-poller.py"
DRAIN = "-1000000"
NUMBERS = {"interval": 1, "timeout": 1, "failures": 1, "silence": 1, "trackDirectory": "/x"}


class Server:
    """A real server that answers as told: with an HTTP status, "silent" (accepts and no more) or "text"."""

    def __init__(self):
        self.answer, self.headers, self.paths, self.starts, self.held = 200, "", [], [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.starts.append(time.monotonic())
                if self.answer == "silent":
                    self.held.append(connection)
                    continue
                with connection, contextlib.suppress(OSError):
                    self.paths.append(connection.recv(4096).decode().split("\r\n")[0])
                    if self.answer == "text":
                        connection.sendall(b"hello\r\n")
                    else:
                        text = f"HTTP/1.1 {self.answer} X\r\n{self.headers}Content-Length: 2\r\n\r\nok"
                        for piece in text.partition("X\r\n"):  # in pieces, as a server may
                            connection.sendall(piece.encode())

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Poller:
    def __init__(self, folder):
        self.folder, self.track = folder, folder / "track"
        self.config = folder / "health.json"
        self.process, self.notified = None, []
        self.bus = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bus.bind(str(folder / "notify"))
        self.bus.settimeout(0.05)

    def configure(self, servers, **more):
        entries = [
            {
                "name": n,
                "address": "127.0.0.1",
                "port": s if isinstance(s, int) else s.port,
                "path": "/readyz",
                "weight": 2,
            }
            for n, s in servers.items()
        ]
        numbers = {"interval": 0.1, "timeout": 0.2, "failures": 2, "silence": 1.5, **more}
        self.config.write_text(json.dumps({**numbers, "trackDirectory": str(self.track), "servers": entries}))

    def start(self, before=()):
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "400000"}
        self.log = open(self.folder / "log", "a+")  # noqa: SIM115
        command = [*before, sys.executable, "-IS", str(POLLER), str(self.config)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(10)

    def files(self):
        found = {}
        for path in self.track.iterdir() if self.track.exists() else ():
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.read_text().strip()
        return {n: v for n, v in found.items() if not n.startswith(".")}

    def wait(self, within=10.0, **wanted):
        """Until the files say so: name="0/0" is what NAME and NAME.down hold, "0/0/0" those and NAME.door."""
        expected = {}
        for name, value in wanted.items():
            ends = ("", ".down", ".door")
            expected |= {name + end: number for end, number in zip(ends, value.split("/"))}
        deadline = time.monotonic() + within
        while self.files() != expected:
            assert time.monotonic() < deadline, (self.files(), expected, self.said())
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)

    def said(self):
        return (self.folder / "log").read_text()

    def hear(self, text, within=10.0):
        """Waits until systemd was told something."""
        deadline = time.monotonic() + within
        while not any(text in message for message in self.notified):
            assert time.monotonic() < deadline, self.notified
            with contextlib.suppress(socket.timeout):
                self.notified.append(self.bus.recv(4096).decode())


@pytest.fixture
def poller(tmp_path):
    poller = Poller(tmp_path)
    yield poller
    if poller.process and poller.process.poll() is None:
        poller.process.kill()
        poller.process.wait()


@needs_root
def test_as_a_user_of_its_own_it_goes_on_with_what_root_left(poller):
    a, b = Server(), Server()
    poller.track.mkdir()
    for name, number in (("a", 0), ("a.down", 0), ("b", DRAIN), ("b.down", 1), ("a.drain", "")):
        (poller.track / name).write_text(f"{number}\n")
    os.chown(poller.track, NOBODY, NOBODY)
    poller.configure({"a": a, "b": b})
    poller.start(AS_NOBODY)
    deadline = time.monotonic() + 10
    while not {("a", DRAIN), ("a.down", "0"), ("b", "0"), ("b.down", "0")} <= set(poller.files().items()):
        assert time.monotonic() < deadline, (poller.files(), poller.said())
        time.sleep(0.01)
    (poller.track / "a.drain").unlink()
    poller.wait(a="0/0", b="0/0")
    assert (poller.track / "a").stat().st_uid == NOBODY


def test_serve_drain_dead_and_back(poller):
    a, b = Server(), Server()  # the last that serves would not be drained for being slow
    poller.configure({"a": a, "b": b})
    poller.start()
    poller.wait(a="0/0", b="0/0")
    a.answer = 503
    poller.wait(a=f"{DRAIN}/0", b="0/0")
    a.answer = 500
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    a.answer = 503  # alive again, and not for new work: no moment with its full weight
    poller.wait(a=f"{DRAIN}/0", b="0/0")
    a.answer = 200
    poller.wait(a="0/0", b="0/0")
    a.answer = "silent"
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    a.answer = 200
    poller.wait(a="0/0", b="0/0")
    a.answer = "text"
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    a.answer = 200
    poller.wait(a="0/0", b="0/0")
    a.stop()
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    assert a.paths[0] == "GET /readyz HTTP/1.1"
    transitions = [line for line in poller.said().splitlines() if line.startswith("a: ")]
    assert [t.split(" (")[0] for t in transitions] == [
        "a: dead -> serve",
        "a: serve -> drain",
        "a: drain -> dead",
        "a: dead -> drain",
        "a: drain -> serve",
        "a: serve -> drain",
        "a: drain -> dead",
        "a: dead -> serve",
        "a: serve -> dead",
        "a: dead -> serve",
        "a: serve -> dead",
    ]
    assert "(no answer within 0.2 s, 2 in a row)" in transitions[5]


def test_one_failure_is_not_death(poller):
    a = Server()
    poller.configure({"a": a}, failures=3)
    poller.start()
    poller.wait(a="0/0")
    for _ in range(3):
        a.answer = 500
        time.sleep(0.12)
        a.answer = 200
        time.sleep(0.25)
    assert "serve -> dead" not in poller.said()


def test_a_slow_server_is_drained_and_only_a_silent_one_is_dead(poller):
    a, b = Server(), Server()  # the last that serves would not be drained for being slow
    poller.configure({"a": a, "b": b}, silence=1.5)
    poller.start()
    poller.wait(a="0/0", b="0/0")
    a.answer = "silent"
    poller.wait(a=f"{DRAIN}/0", b="0/0")
    time.sleep(0.5)
    a.answer = 200  # it was only slow: what it had open is still open
    poller.wait(a="0/0", b="0/0")
    a.answer = "silent"
    poller.wait(a=f"{DRAIN}/0", b="0/0")
    drained = time.monotonic()
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    assert 0.8 < time.monotonic() - drained < 2.5
    a.answer = 200
    poller.wait(a="0/0", b="0/0")
    a.stop()  # a refused connection is no slowness
    poller.wait(a=f"{DRAIN}/1", b="0/0")
    assert "a: serve -> dead (Connection refused" in poller.said()


def test_the_last_that_serves_is_not_drained_for_being_slow(poller):
    a, b = Server(), Server()
    poller.configure({"a": a, "b": b}, silence=0.5)
    poller.start()
    poller.wait(a="0/0", b="0/0")
    a.answer = b.answer = "silent"  # as all may be when the machine under them is starved
    time.sleep(2.5)
    serving = [name for name in "ab" if poller.files()[name] == poller.files()[name + ".down"] == "0"]
    assert len(serving) == 1
    a.stop()
    b.stop()  # but one that is gone is gone
    poller.wait(a=f"{DRAIN}/1", b=f"{DRAIN}/1")


def test_polls_keep_their_pace_while_nobody_answers(poller):
    a = Server()
    a.answer = "silent"
    poller.configure({"a": a}, interval=0.1, timeout=1.0)
    poller.start()
    time.sleep(2.5)
    assert len(a.starts) >= 12  # one poll a second, if each had waited for the one before


def test_a_server_is_dead_until_it_has_answered_and_ready_is_said_after_the_first_round(poller):
    a, b = Server(), Server()
    b.answer = "silent"
    poller.configure({"a": a, "b": b}, timeout=1.0)
    poller.start()
    poller.wait(a="0/0", b=f"{DRAIN}/1")
    poller.hear("READY=1\nSTATUS=1 serve, 1 dead")
    poller.hear("WATCHDOG=1\nREADY=1")
    assert poller.stop() == 0
    assert poller.files()["a.down"] == "0"  # its end moves nobody


def test_a_restart_believes_what_is_there(poller):
    a, b = Server(), Server()  # the last that serves would not be drained for being slow
    a.answer = "silent"
    poller.track.mkdir()
    (poller.track / "a").write_text("0\n")
    (poller.track / "a.down").write_text("0\n")
    poller.configure({"a": a, "b": b}, timeout=1.5)
    poller.start()
    time.sleep(1)
    assert (poller.files()["a"], poller.files()["a.down"]) == ("0", "0")
    poller.wait(a=f"{DRAIN}/1", b="0/0")


def test_files_are_written_only_when_they_change_and_never_in_place(poller):
    a = Server()
    poller.configure({"a": a})
    poller.start()
    poller.wait(a="0/0")
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in poller.track.iterdir()}
    time.sleep(0.5)
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in poller.track.iterdir()} == before
    a.answer = 503
    poller.wait(a=f"{DRAIN}/0")
    assert (poller.track / "a").stat().st_ino != before["a"][0]
    assert (poller.track / "a.down").stat().st_ino == before["a.down"][0]


def test_a_new_configuration_is_taken_up_and_a_wrong_one_is_not(poller):
    a, b = Server(), Server()
    poller.configure({"a": a})
    poller.start()
    poller.wait(a="0/0")
    poller.configure({"a": a, "b": b})
    poller.process.send_signal(signal.SIGHUP)
    poller.wait(a="0/0", b="0/0")
    poller.config.write_text("{")
    poller.process.send_signal(signal.SIGHUP)
    a.answer = 503
    poller.wait(a=f"{DRAIN}/0", b="0/0")
    assert "the configuration is as before: " in poller.said()
    # One that is taken out keeps its files for a while: without them keepalived would serve it.
    poller.configure({"b": b})
    poller.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    polls = len(a.starts)
    time.sleep(0.3)
    assert len(a.starts) == polls
    poller.wait(a=f"{DRAIN}/0", b="0/0")


def test_a_dead_server_has_no_weight_either_and_goes_before_its_weight_does(poller):
    a = Server()
    poller.configure({"a": a})
    poller.start()
    poller.wait(a="0/0")
    a.stop()
    poller.wait(a=f"{DRAIN}/1")
    assert (poller.track / "a.down").stat().st_mtime_ns <= (poller.track / "a").stat().st_mtime_ns


def load(poller):
    return int(poller.files()["a"])


def test_weights_follow_the_queue(poller):
    a = Server()
    a.headers = "X-Queue: 4\r\n"
    poller.configure({"a": a}, weights={"base": 100, "rampUp": 0})
    poller.start()
    poller.wait(a="-160/0")  # 200 / (1 + 4) is 40
    a.headers = "x-queue:0\r\n"
    poller.wait(a="0/0")
    changed = (poller.track / "a").stat().st_mtime_ns
    a.headers = "X-Queue: 1\r\n"
    poller.wait(a="-100/0")
    assert (poller.track / "a").stat().st_mtime_ns - changed > 0.9e9  # once a second at most
    a.headers = "X-Queue: 100000\r\n"
    poller.wait(a="-199/0")  # 1 is the least: 0 is a drain
    a.headers = "X-Queue: many\r\n"
    poller.wait(a="0/0")
    assert "->" not in poller.said().split("first round")[1]  # these are no changes of state


def test_a_small_change_of_the_queue_changes_nothing(poller):
    a = Server()
    a.headers = "X-Queue: 19\r\n"
    poller.configure({"a": a}, weights={"base": 100, "rampUp": 0})
    poller.start()
    poller.wait(a="-190/0")
    a.headers = "X-Queue: 20\r\n"
    time.sleep(1.5)
    assert load(poller) == -190


def test_a_server_that_comes_back_ramps_up(poller):
    a = Server()
    poller.configure({"a": a}, weights={"base": 100, "rampUp": 3})
    poller.start()
    poller.wait(a="-180/0")
    seen = []
    deadline = time.monotonic() + 8
    while load(poller) != 0 and time.monotonic() < deadline:
        if not seen or seen[-1] != load(poller):
            seen.append(load(poller))
        time.sleep(0.02)
    assert load(poller) == 0
    assert seen == sorted(seen)
    assert 2 <= len(seen) <= 4  # about once a second
    poller.stop()
    poller.start()
    time.sleep(0.6)
    assert load(poller) == 0  # a restart of the poller is none of the server's
    a.answer = 503
    poller.wait(a=f"{DRAIN}/0")
    a.answer = 200
    poller.wait(a="-180/0")


def test_a_dead_nginx_closes_its_door_and_nothing_else(poller):
    a, nginx = Server(), Server()
    poller.configure({"a": a}, door={"port": nginx.port, "path": "/"})
    poller.start()
    poller.wait(a="0/0/0")
    assert set(nginx.paths) == {"GET / HTTP/1.1"}
    nginx.answer = 500
    poller.wait(a="0/0/1")
    nginx.answer = 200
    poller.wait(a="0/0/0")
    nginx.stop()
    poller.wait(a="0/0/1")
    # Without HTTPS nobody asks, and the file goes.
    poller.configure({"a": a})
    poller.process.send_signal(signal.SIGHUP)
    a.answer = 503
    poller.wait(a=f"{DRAIN}/0/1")
    assert "a: its nginx is closed" in poller.said()


def test_a_slow_nginx_is_open_until_it_was_silent_for_long(poller):
    a, nginx = Server(), Server()
    poller.configure({"a": a}, door={"port": nginx.port, "path": "/"})
    poller.start()
    poller.wait(a="0/0/0")
    nginx.answer, began = "silent", time.monotonic()
    poller.wait(a="0/0/1")
    assert time.monotonic() - began >= 1.5


def test_keepalived_starts_when_there_is_a_word_about_every_nginx(poller):
    a, nginx = Server(), Server()
    nginx.answer = "silent"
    poller.configure({"a": a}, door={"port": nginx.port, "path": "/"})
    poller.start()
    poller.wait(a="0/0/1")
    poller.hear("READY=1")
    poller.stop()
    nginx.answer = 200
    poller.start()
    poller.wait(a="0/0/0")


def test_headers_without_an_end_are_no_failure(poller):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                held[-1].sendall(b"HTTP/1.1 200 OK\r\nX-Queue: 1\r\n")

    held = []
    threading.Thread(target=serve, daemon=True).start()
    poller.configure({"a": listener.getsockname()[1]}, weights={"base": 100, "rampUp": 0})
    poller.start()
    poller.wait(a="-100/0")
    listener.close()


def endless(connection, piece):
    while True:
        connection.sendall(piece)


def drop_by_drop(connection, text):
    for letter in text:
        connection.sendall(bytes([letter]))
        time.sleep(0.05)


@pytest.mark.parametrize(
    "answer",
    [
        # Python refuses to read a number of so many digits.
        lambda c: c.sendall(b"HTTP/1.1 " + b"2" * 60000 + b" OK\r\n\r\n"),
        lambda c: c.sendall(b"HTTP/1.1 200\xc2\xb2 OK\r\n\r\n"),
        lambda c: c.sendall(bytes(range(256)) * 400),
        lambda c: c.sendall(b"\n" * 100000),
        lambda c: endless(c, b"A" * 65536),
        lambda c: endless(c, b"HTTP/1.1 "),
        lambda c: drop_by_drop(c, b"HTTP/1.1 200 OK\r\n" * 10),
        lambda c: None,
    ],
    ids=["digits", "no digits", "garbage", "lines", "no end", "no status", "slowly", "nothing"],
)
def test_a_real_server_in_other_hands_harms_itself_only(poller, answer):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            answer(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    good = Server()
    poller.configure(
        {"bad": listener.getsockname()[1], "good": good}, weights={"base": 100, "rampUp": 0}, silence=0.5
    )
    poller.start()
    poller.wait(bad="-1000000/1", good="0/0")
    started = len(good.starts)
    time.sleep(1)
    assert len(good.starts) - started >= 4  # of the ten that are due
    poller.wait(bad="-1000000/1", good="0/0")
    # What it sends is not kept: of the poller's memory, in KiB, a fraction.
    status = pathlib.Path(f"/proc/{poller.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) < 64 * 1024
    assert poller.said().count("bad: ") <= 2
    good.stop()
    listener.close()


@pytest.mark.parametrize(
    ("queue", "weight"),
    [(b"1", "-100"), (b"-1", "0"), (b"9" * 5000, "0"), (b"1e9", "0"), (b"\xb2", "0"), (b"999999", "-199")],
)
def test_what_a_queue_says_of_itself_is_a_number_or_nothing(poller, queue, weight):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Queue: " + queue + b"\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    poller.configure({"a": listener.getsockname()[1]}, weights={"base": 100, "rampUp": 0})
    poller.start()
    poller.wait(a=f"{weight}/0")
    listener.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            json.dumps(
                {
                    **NUMBERS,
                    "weights": {"base": 100, "rampUp": 30},
                    "servers": [{"name": "a", "address": "192.0.2.1", "port": 1, "weight": 0}],
                }
            ),
            "the full weight of a is 0 and must be from 1 to 999999",
        ),
        ("{", "JSONDecodeError"),
        ("{}", "KeyError: 'interval'"),
        (json.dumps({**NUMBERS, "interval": 0, "servers": []}), "interval is 0"),
        (json.dumps({**NUMBERS, "servers": [{"name": "../x"}]}), "a server cannot be called '../x'"),
    ],
)
def test_wrong_configurations(poller, text, expected):
    poller.config.write_text(text)
    poller.start()
    assert poller.process.wait(10) == 1
    assert expected in poller.said()
    assert "Traceback" not in poller.said()


def test_a_poller_that_cannot_write_says_so_and_ends(poller):
    a = Server()
    poller.configure({"a": a})
    poller.start()
    poller.wait(a="0/0")
    for path in poller.track.iterdir():
        path.unlink()
    poller.track.rmdir()
    a.answer = 503
    assert poller.process.wait(10) == 1  # and systemd starts it anew
    assert "starting anew: FileNotFoundError" in poller.said()
