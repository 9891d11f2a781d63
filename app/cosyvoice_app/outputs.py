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
# What to look at, in English and in Chinese.
_SERVER_DOWN = ("is the share's server up?", "共享存储的服务器是否在运行？")
_NOT_WRITABLE = ("is the share mounted and writable?", "共享存储是否已挂载并且可写？")
# The C library names errors in the language of its locale, which is the machine's and not the reader's.
_REASONS_ZH = {
    errno.ENOENT: "目录不存在",
    errno.EACCES: "没有权限",
    errno.EPERM: "不允许此操作",
    errno.EROFS: "只读",
    errno.EIO: "读写出错",
    errno.ESTALE: "挂载已失效",
    errno.ENOSPC: "空间已满",
    errno.EDQUOT: "超出配额",
    errno.ETIMEDOUT: "连接超时",
}


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
        self._overdue = 0
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
            raise NotFound(
                f"there is no result {name[:80]!r}; GET /v1/results lists those that are there",
                zh=f"没有名为 {name[:80]!r} 的结果；GET /v1/results 会列出现有的结果",
            )
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

        A thread that the share holds cannot be ended, only left. While one is, further calls fail at once,
        save one every few seconds that tries again. late: called, in a thread, with a result that nobody
        waits for any more.
        """
        await self._thread_free()
        now = time.monotonic()
        if self._running >= self._most_threads or (self._overdue and now < self._next_trial):
            raise self._unavailable("does not answer", "没有应答", _SERVER_DOWN)
        if self._overdue:
            self._next_trial = now + 3 * self._time_limit
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        left = False

        def deliver(value: T | None, error: BaseException | None) -> None:
            self._running -= 1
            if left:
                self._overdue -= 1
            if answer.done():
                if error is None:
                    forget(value)  # type: ignore[arg-type]
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]

        def forget(value: T) -> None:
            if late is not None:
                threading.Thread(target=late, args=(value,), name="outputs-late", daemon=True).start()

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
            async with asyncio.timeout(limit) as timer:
                value = await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                forget(answer.result())  # it came in the same turn of the loop as the cancellation
            raise
        except OSError as error:
            # The limit's own TimeoutError is an OSError too, and so is the one that NFS gives for ETIMEDOUT.
            if isinstance(error, TimeoutError) and timer.expired():
                left = True
                self._overdue += 1
                self._next_trial = max(self._next_trial, time.monotonic() + 2 * self._time_limit)
                raise self._unavailable(
                    f"did not answer within {limit:g} s", f"在 {limit:g} 秒内没有应答", _SERVER_DOWN
                ) from None
            if isinstance(error, FileNotFoundError) and missing_is_fine:
                self.problem = None
                raise
            raise self._failed(error) from error
        self.problem = None
        return value

    async def _thread_free(self) -> None:
        """Waits, within the time limit, while all threads work on a share that answers: many requests at one
        moment are no fault of it.
        """
        end = time.monotonic() + self._time_limit
        while self._running >= self._most_threads and not self._overdue and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _failed(self, error: OSError) -> OutputsUnavailable:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        reason_zh = _REASONS_ZH.get(error.errno or 0, reason)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.problem = f"{self.directory}: {reason}"
            return OutputsFull(
                f"the result cannot be kept: {self.problem}; ask who runs this service to make room",
                zh=f"结果无法保存：{self.directory}：{reason_zh}；请联系本服务的管理员清理空间",
                retry_after=60,
            )
        return self._unavailable(f"cannot be used: {reason}", f"无法使用：{reason_zh}", _NOT_WRITABLE)

    def _unavailable(self, what: str, what_zh: str, advice: tuple[str, str]) -> OutputsUnavailable:
        self.problem = f"{self.directory} {what}"
        return OutputsUnavailable(
            f"results cannot be kept at the moment: {self.problem}, on {self._node}; {advice[0]}",
            zh=f"暂时无法保存结果：{self._node} 上的 {self.directory} {what_zh}；{advice[1]}",
            retry_after=5,
        )


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
        await self._outputs._call(work, extra=len(data) / _SLOWEST)

    async def discard(self) -> None:
        """Leaves nothing behind. Raises nothing."""
        with suppress(OutputsUnavailable):
            await self._outputs._call(lambda: _drop(self._handle, self._temporary))


def _drop(handle: int, path: Path) -> None:
    with suppress(OSError):
        os.close(handle)
    with suppress(OSError):
        path.unlink()
