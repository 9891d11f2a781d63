"""The directory of results: whole files or none, and never a request that hangs because the share does.

The directory is normally an NFS mount shared by all nodes. Any call on it may block for as long as the server
is away, so each runs in a thread of its own, with a time limit, and the event loop never touches it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import NotFound, OutputsFull, OutputsUnavailable
from .wav import WavError, read_summary

T = TypeVar("T")

_NAME = re.compile(r"[0-9a-f]{32}\.wav")
_TEMPORARY = ".making-"
# After this many seconds a temporary file can only be what a killed process left.
_STALE = 3600.0
# Bytes a second that a share in use gives at the very least: longer files get longer to be written or read.
_SLOWEST = 1 << 20


def is_result_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name))


def result_name(parameters: dict[str, Any]) -> str:
    """File name of the result of these parameters: the same on every node."""
    text = json.dumps(parameters, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32] + ".wav"


@dataclass(frozen=True)
class Result:
    """A finished file. made: seconds since 1970, by the share's clock. size in bytes."""

    name: str
    made: float
    size: int
    seconds: float
    parameters: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "url": f"/v1/results/{self.name}",
            "made": round(self.made, 3),
            "size": self.size,
            "seconds": round(self.seconds, 3),
            **{k: self.parameters.get(k) for k in ("text", "voice", "speed", "seed", "engine")},
        }


class Outputs:
    """The store. Its methods raise OutputsUnavailable (or OutputsFull) within the time limit."""

    def __init__(self, directory: Path, *, node: str, time_limit: float, most_threads: int = 16) -> None:
        """time_limit: seconds for one operation. most_threads: operations under way at one time."""
        self.directory = directory
        self._node = node
        self._time_limit = time_limit
        self._most_threads = most_threads
        self._running = 0
        # Whether an operation was given up and none has been answered since.
        self._silent = False
        self._next_trial = 0.0
        self._known: dict[str, Result] = {}
        #: Why the last operation failed; None when it worked.
        self.problem: str | None = None

    async def probe(self) -> None:
        """Asks whether files can be made. `problem` tells afterwards; raises nothing."""
        with suppress(OutputsUnavailable):
            await self._call(self._probe)

    async def find(self, name: str) -> bytes | None:
        """The file of that name, if it is there."""
        try:
            return await self._call(lambda: (self.directory / name).read_bytes(), missing_is_fine=True)
        except FileNotFoundError:
            # "Not there" and "the mount point is empty because the share is away" look alike here; begin()
            # tells.
            return None

    async def read(self, name: str) -> bytes:
        """The file of that name. Raises NotFound, also for a name that is not a result's."""
        data = await self.find(name) if is_result_name(name) else None
        if data is None:
            raise NotFound(f"there is no result {name[:80]!r}; GET /v1/results lists those that are there")
        return data

    async def begin(self, name: str) -> Pending:
        """Makes sure that a file can be made before the work for it is done."""
        temporary = self.directory / f"{_TEMPORARY}{self._node}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        handle = await self._call(
            lambda: os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644),
            late=lambda opened: _drop(opened, temporary),
        )
        return Pending(self, handle, temporary, self.directory / name)

    async def latest(self, count: int) -> list[Result]:
        """The newest results of all nodes, newest first."""
        return await self._call(lambda: self._list(count))

    async def remove_stale(self) -> None:
        """Removes what this node's killed processes left. Raises nothing."""
        with suppress(OutputsUnavailable):
            await self._call(self._remove_stale)

    # Below: in a thread.

    def _probe(self) -> None:
        if not os.access(self.directory, os.W_OK | os.X_OK):
            # Names the reason: not there, read-only, or not ours.
            os.stat(self.directory)
            read_only = os.statvfs(self.directory).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "")

    def _list(self, count: int) -> list[Result]:
        seen: dict[str, Result | None] = {}
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if is_result_name(entry.name):
                    seen[entry.name] = self._known.get(entry.name)
        for name, known in seen.items():
            if known is None:
                seen[name] = self._describe(name)
        self._known = {name: result for name, result in seen.items() if result is not None}
        return sorted(self._known.values(), key=lambda r: (-r.made, r.name))[:count]

    def _describe(self, name: str) -> Result | None:
        try:
            with (self.directory / name).open("rb", buffering=4096) as file:
                state = os.fstat(file.fileno())
                seconds, parameters = read_summary(file)
        except (FileNotFoundError, WavError):
            return None  # removed meanwhile, or somebody else's file under such a name
        return Result(name, state.st_mtime, state.st_size, seconds, parameters)

    def _remove_stale(self) -> None:
        mine = f"{_TEMPORARY}{self._node}-"
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(mine):
                    with suppress(FileNotFoundError):
                        if time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                            os.unlink(entry.path)

    # Above: in a thread.

    async def _call(
        self,
        work: Callable[[], T],
        *,
        extra: float = 0.0,
        missing_is_fine: bool = False,
        late: Callable[[T], object] | None = None,
    ) -> T:
        """`work` in a thread, for the time limit and `extra` seconds at most.

        A thread that the share holds cannot be ended, only left. From then on calls fail at once, save one
        every few seconds that tries again, until one of any age is answered. late: called, in a thread, with
        a result that nobody waits for any more.
        """
        now = time.monotonic()
        if self._running >= self._most_threads or (self._silent and now < self._next_trial):
            raise self._unavailable("does not answer", "is the share's server up?", _NotTried)
        if self._silent:
            self._next_trial = now + 3 * self._time_limit
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def deliver(value: T | None, error: BaseException | None) -> None:
            self._running -= 1
            if error is None:
                self._silent = False
            if answer.cancelled():
                if error is None:
                    forget(value)  # type: ignore[arg-type]
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]

        def forget(value: T) -> None:
            if late is not None:
                _aside(lambda: late(value))

        def run() -> None:
            value: T | None = None
            error: BaseException | None = None
            try:
                value = work()
            except BaseException as caught:  # noqa: BLE001 - whatever it is belongs to the one who waits
                error = caught
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(deliver, value, error)

        self._running += 1
        threading.Thread(target=run, name="outputs", daemon=True).start()
        limit = self._time_limit + extra
        try:
            # By the answer and not by the clock: where this process stood still past the limit (stopped,
            # swapped out), both may be there at once.
            await asyncio.wait({answer}, timeout=limit)
        except asyncio.CancelledError:
            if not answer.done():
                answer.cancel()
            elif answer.exception() is None:
                forget(answer.result())
            raise
        if not answer.done():
            answer.cancel()
            self._silent = True
            self._next_trial = max(self._next_trial, time.monotonic() + 2 * self._time_limit)
            raise self._unavailable(f"did not answer within {limit:g} s", "is the share's server up?")
        try:
            value = answer.result()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and missing_is_fine:
                self.problem = None
                raise
            raise self._failed(error) from error
        self.problem = None
        return value

    def _failed(self, error: OSError) -> OutputsUnavailable:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.problem = f"{self.directory}: {reason}"
            return OutputsFull(
                f"the result cannot be kept: {self.problem}; ask who runs this service to make room",
                retry_after=60,
            )
        return self._unavailable(f"cannot be used: {reason}", "is the share mounted and writable?")

    def _unavailable(
        self, what: str, advice: str, kind: type[OutputsUnavailable] = OutputsUnavailable
    ) -> OutputsUnavailable:
        self.problem = f"{self.directory} {what}"
        return kind(
            f"results cannot be kept at the moment: {self.problem}, on {self._node}; {advice}", retry_after=5
        )


class _NotTried(OutputsUnavailable):
    """Refused before the share was asked anything."""


class Pending:
    """A file in the making. `commit` or `discard` ends it; until then nobody sees it."""

    def __init__(self, outputs: Outputs, handle: int, temporary: Path, target: Path) -> None:
        self._outputs = outputs
        self._handle = handle
        self._temporary = temporary
        self._target = target

    async def commit(self, data: bytes) -> None:
        """Writes, then shows the file under its name; after that it survives a power cut of client and
        server.
        """

        def work() -> None:
            try:
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[os.write(self._handle, rest) :]
                    os.fsync(self._handle)
                finally:
                    os.close(self._handle)  # NFS may tell of a failed write only here
                os.replace(self._temporary, self._target)
            except BaseException:
                with suppress(OSError):
                    self._temporary.unlink()
                raise
            directory = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

        self._outputs._known.pop(self._target.name, None)
        try:
            await self._outputs._call(work, extra=len(data) / _SLOWEST)
        except _NotTried:
            _aside(lambda: _drop(self._handle, self._temporary))
            raise

    async def discard(self) -> None:
        """Leaves nothing behind. Raises nothing."""
        try:
            await self._outputs._call(lambda: _drop(self._handle, self._temporary))
        except _NotTried:
            _aside(lambda: _drop(self._handle, self._temporary))
        except OutputsUnavailable:
            pass  # it goes on without anybody who waits


def _aside(work: Callable[[], object]) -> None:
    """`work` in a thread for which nobody waits."""
    threading.Thread(target=work, name="outputs-aside", daemon=True).start()


def _drop(handle: int, path: Path) -> None:
    with suppress(OSError):
        os.close(handle)
    with suppress(OSError):
        path.unlink()
