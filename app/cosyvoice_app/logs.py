"""What happened, for programs to read: a line a job and a line a request, and never what anybody said.

The files are in one directory that the nodes share: the outputs, unless COSYVOICE_LOG_DIRECTORY names
another.

    jobs.<node>.log              one line for each request for speech, written when that has ended
    gradio.access.<node>.log     one line for each HTTP request, written when its answer has ended
    <either>.1, .2, ...          older ones; .1 is the newest of them

So `*.log` is what all nodes write now, `jobs.*.log` and `gradio.access.*.log` are the two kinds, and no
pattern meets an old file twice. A file has one writer, its node: appending over NFS is safe only so, since
each of its clients knows the end of a file by itself. A reader on the same node (a log shipper) sees a line
within a second, one on another node when its NFS client looks again, a few seconds later.

A line is one JSON object in UTF-8. Its keys are always there, in the order of `JOB` and `ACCESS` below; null
is "does not apply". Lines that could not be written are counted (tts_log_lines_dropped_total), and when
writing works again a line `{"time", "log": "lost", "node", "lines", "reason"}` says how many are missing at
that place.

Clients appear as a hash under a key that only the process knows and changes daily: it tells one client's
requests from another's on one node and day, and leads nobody back to an address.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
import os
import re
import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("cosyvoice")

#: Keys of a job's line.
JOB = (
    "time",  # when it ended: RFC 3339, UTC, milliseconds
    "log",  # "job"
    "node",
    "request_id",  # as in the X-Request-Id of the answer, and in the access log
    "client",
    "outcome",  # ok, cached, cancelled, or the code of the error
    "status",  # HTTP status of that; 499 for cancelled
    "wait_s",  # from its arrival until its turn; null: it never got as far
    "synthesis_s",  # in the engine; null: it never got there
    "audio_s",
    "bytes",  # of the audio
    "characters",  # of the text
    "engine",
    "voice",
    "mode",
    "speed",
    "seed",
    "cached",
    "result",  # file name
    "text",  # null unless COSYVOICE_LOG_TEXT=1
)
#: Keys of a request's line.
ACCESS = (
    "time",  # when the answer ended
    "log",  # "access"
    "node",
    "request_id",
    "client",
    "method",
    "path",  # without the query, which may hold secrets; at most 200 characters
    "status",  # 500 when the answer never began
    "complete",  # false: the answer broke off
    "bytes_in",
    "bytes_out",  # of the bodies
    "first_byte_s",  # until the answer began
    "seconds",
)

#: Not logged unless COSYVOICE_LOG_HEALTH=1: directors and nodes ask every second or two, each of them.
HEALTH_PATHS = ("/healthz", "/readyz", "/metrics", "/peer/condition", "/peer/turn", "/peer/release")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


# Who asks.


@dataclass(frozen=True)
class Caller:
    """The request that is being served.

    client: as it appears in the logs. waited: seconds before the service heard of it (in gradio's own queue).
    """

    request_id: str
    client: str | None = None
    waited: float = 0.0


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def caller() -> Caller:
    """Whom this task works for."""
    return _caller.get() or Caller("")


def enter(headers: Any) -> None:
    """From here on this task works for the request of these headers.

    gradio runs an event in a task of its own, later than the request that brought it; that request's headers
    are what its `gr.Request` still has, and `Recorder` has put there who it is.
    """
    waited = time.monotonic() - float(headers.get(_CAME_HEADER, time.monotonic()))
    _caller.set(Caller(headers.get("x-request-id", ""), headers.get(_CLIENT_HEADER) or None, waited))


# Set by `Recorder` and by nobody else: what a client sends under these names is taken away.
_CLIENT_HEADER = "x-cosyvoice-client"
_CAME_HEADER = "x-cosyvoice-came"

ClientStyle = Literal["hash", "address", "none"]


class Clients:
    """How clients are named in the logs."""

    def __init__(self, style: ClientStyle = "hash", clock: Callable[[], float] = time.time) -> None:
        self._style = style
        self._clock = clock
        self._day = -1
        self._key = b""

    def name(self, scope: MutableMapping[str, Any]) -> str | None:
        address = client_address(scope)
        if address is None or self._style == "none":
            return None
        if self._style == "address":
            return address
        day = int(self._clock() // 86400)
        if day != self._day:
            self._day, self._key = day, secrets.token_bytes(16)
        return hashlib.blake2b(address.encode(), key=self._key, digest_size=6).hexdigest()


def client_address(scope: MutableMapping[str, Any]) -> str | None:
    """The client's address. What X-Forwarded-For says counts when it comes from this machine (its nginx)."""
    client = scope.get("client")
    if not client:
        return None
    address = str(client[0])
    if _is_loopback(address):
        said = next((v for k, v in scope["headers"] if k == b"x-forwarded-for"), b"")
        last = said.decode("latin-1").split(",")[-1].strip()
        with suppress(ValueError):
            return str(ipaddress.ip_address(last))
    return address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


# Writing lines.


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC with milliseconds. seconds since 1970. Default: now."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LineFile:
    """A file of lines that anything may be wrong with, and nobody who writes to it ever waits or fails.

    Lines go through a bounded queue to a thread of its own. When the share hangs, that thread hangs with it;
    when it gives an error, the lines of that moment are lost, and it is tried again later. Either way the
    rest goes on.
    """

    def __init__(
        self,
        path: Path,
        *,
        node: str,
        on_drop: Callable[[int], None] = lambda lines: None,
        most_bytes: int = 16 << 20,
        most_files: int = 5,
        most_queued: int = 10_000,
        gather: float = 0.5,
        pause: float = 5.0,
    ) -> None:
        """most_bytes: size at which the file is put aside. most_files: this one and the older ones that are
        kept. most_queued: lines that may wait. gather: seconds in which lines collect before they are written
        together. pause: seconds until a failed file is tried again.
        """
        self.path = path
        self._node = node
        self._on_drop = on_drop
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._most_queued = most_queued
        self._gather = gather
        self._pause = pause
        self._lines: deque[bytes] = deque()
        self._lost = 0
        self._reason = ""
        self._closing = False
        self._change = threading.Condition()
        self._handle = -1
        self._size = 0
        # Started by the first line.
        self._thread: threading.Thread | None = None

    def write(self, line: dict[str, Any]) -> None:
        """Takes a line. From any thread; returns at once; raises nothing."""
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        with self._change:
            if len(self._lines) >= self._most_queued or self._closing:
                self._lose(1, "more lines came than could be written")
                return
            self._lines.append(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"log {self.path.name}", daemon=True)
                self._thread.start()
            self._change.notify()

    def close(self, limit: float = 2.0) -> None:
        """Writes what waits, for `limit` seconds at most."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(limit)

    def _lose(self, lines: int, reason: str) -> None:
        """Counts lines that are not written. With the lock held."""
        if not self._lost:
            log.warning("%s: log lines are being lost: %s", self.path, reason)
        self._lost += lines
        self._reason = reason
        self._on_drop(lines)

    # Below: in the thread.

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._lines and not self._closing:
                    self._change.wait()
                if not self._lines:
                    break
                self._change.wait_for(lambda: self._closing, self._gather)
                batch = list(self._lines)
                lost, reason = self._lost, self._reason
            try:
                self._append(batch, lost, reason)
            except OSError as error:
                self._forget_file()
                with self._change:
                    # What came meanwhile stays: the next try may work. Of the batch some lines may be in the
                    # file all the same.
                    for _ in batch:
                        self._lines.popleft()
                    self._lose(len(batch), (os.strerror(error.errno) if error.errno else str(error)).lower())
                    self._change.wait_for(lambda: self._closing, self._pause)
                continue
            with self._change:
                for _ in batch:
                    self._lines.popleft()
                self._lost -= lost
            if lost:
                log.info("%s: log lines are written again; %d were lost", self.path, lost)
        self._forget_file()

    def _append(self, batch: list[bytes], lost: int, reason: str) -> None:
        if lost:
            note = {"time": timestamp(), "log": "lost", "node": self._node, "lines": lost, "reason": reason}
            batch = [json.dumps(note, separators=(",", ":")).encode() + b"\n", *batch]
        at = 0
        while at < len(batch):
            self._open()
            upto, size = at, self._size
            while upto < len(batch) and (upto == at or size + len(batch[upto]) <= self._most_bytes):
                size += len(batch[upto])
                upto += 1
            data = memoryview(b"".join(batch[at:upto]))
            while data:
                data = data[os.write(self._handle, data) :]
            # A share that is full may say so only here. What is not on it now counts as lost.
            os.fdatasync(self._handle)
            self._size = size
            at = upto
            if at < len(batch) or self._size >= self._most_bytes:
                self._put_aside()

    def _open(self) -> None:
        if self._handle >= 0 and os.fstat(self._handle).st_nlink == 0:
            self._forget_file()  # somebody removed it
        if self._handle >= 0:
            return
        # Readable, to see whether the last line is whole.
        self._handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._handle).st_size
        if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
            os.write(self._handle, b"\n")
            self._size += 1

    def _put_aside(self) -> None:
        self._forget_file()
        older = [
            self.path,
            *(self.path.with_name(f"{self.path.name}.{n}") for n in range(1, self._most_files)),
        ]
        for new, old in zip(reversed(older), reversed(older[:-1]), strict=False):
            with suppress(FileNotFoundError):
                os.replace(old, new)
        if self._most_files == 1:
            self.path.unlink(missing_ok=True)

    def _forget_file(self) -> None:
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
        self._handle = -1


# Jobs.


@dataclass
class Job:
    """One request for speech on its way. Durations in seconds."""

    caller: Caller
    text: str
    speed: float
    seed: int
    voice: str = ""
    mode: str | None = None
    wait: float | None = None
    synthesis: float | None = None
    audio: float | None = None
    size: int | None = None
    cached: bool = False
    result: str | None = None


_job: ContextVar[Job | None] = ContextVar("job", default=None)


def begin(request: Any) -> Job:
    """The job of a SpeechRequest; `note` in the same task adds to it."""
    job = Job(
        caller(),
        request.text,
        request.speed,
        request.seed,
        request.voice,
        getattr(request, "mode", None) or None,
    )
    _job.set(job)
    return job


def note(**facts: Any) -> None:
    """Adds to the job that this task works on, if it works on one, e.g. `note(wait=0.2)`."""
    job = _job.get()
    if job is not None:
        for name, value in facts.items():
            setattr(job, name, value)


class JobLog:
    def __init__(self, file: LineFile, *, node: str, engine: str, with_text: bool = False) -> None:
        """with_text: what users said is in the lines too."""
        self._file = file
        self._node = node
        self._engine = engine
        self._with_text = with_text

    def finish(self, job: Job, outcome: str, status: int) -> None:
        values = (
            timestamp(),
            "job",
            self._node,
            job.caller.request_id or None,
            job.caller.client,
            outcome,
            status,
            _rounded(None if job.wait is None else job.wait + job.caller.waited),
            _rounded(job.synthesis),
            _rounded(job.audio),
            job.size,
            len(job.text),
            self._engine,
            job.voice,
            job.mode,
            job.speed,
            job.seed,
            job.cached,
            job.result,
            job.text if self._with_text else None,
        )
        self._file.write(dict(zip(JOB, values, strict=True)))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# Requests.


class Recorder:
    """ASGI app around another: gives every request its id, and logs it when its answer has ended.

    A request id that the client sends (letters, digits, `.`, `_`, `-`; at most 64) is kept.
    """

    def __init__(
        self, app: App, file: LineFile, *, node: str, clients: Clients, health: bool = False
    ) -> None:
        """health: requests of HEALTH_PATHS are logged too."""
        self._app = app
        self._file = file
        self._node = node
        self._clients = clients
        self._health = health

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = known if _REQUEST_ID.fullmatch(known) else uuid.uuid4().hex[:16].encode()
        client = self._clients.name(scope)
        ours = {
            b"x-request-id": request_id,
            _CAME_HEADER.encode(): str(time.monotonic()).encode(),
            _CLIENT_HEADER.encode(): (client or "").encode(),
        }
        headers = [(name, value) for name, value in scope["headers"] if name not in ours] + list(ours.items())
        _caller.set(Caller(request_id.decode(), client))
        scope = {**scope, "headers": headers}
        if scope["path"] in HEALTH_PATHS and not self._health:
            await self._app(scope, receive, send)
            return

        began = time.monotonic()
        status = 500
        complete = False
        first: float | None = None
        bytes_in = bytes_out = 0

        async def receive_counted() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal status, complete, first, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                first = time.monotonic() - began
            await send(message)
            if message["type"] == "http.response.body":
                bytes_out += len(message.get("body", b""))
                complete = not message.get("more_body", False)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            values = (
                timestamp(),
                "access",
                self._node,
                request_id.decode(),
                client,
                scope["method"],
                scope["path"][:200],
                status,
                complete,
                bytes_in,
                bytes_out,
                _rounded(first),
                _rounded(time.monotonic() - began),
            )
            self._file.write(dict(zip(ACCESS, values, strict=True)))
