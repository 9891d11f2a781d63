"""The directory that all nodes share: whole files or none, and no request that hangs because the share does.

It is normally an NFS mount. Any call on it may block for as long as the server is away, so each runs in a
thread of its own, with a time limit, and the event loop never touches it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .errors import OutputsFull, OutputsUnavailable

T = TypeVar("T")

#: How the name of a file begins that is not whole yet, wherever on the share.
TEMPORARY = ".making-"
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


class Share:
    """Its methods raise OutputsUnavailable (or OutputsFull) within the time limit."""

    def __init__(self, directory: Path, *, node: str, time_limit: float, most_threads: int = 16) -> None:
        """time_limit: seconds for one operation. most_threads: operations under way at one time."""
        self.directory = directory
        self.node = node
        self._time_limit = time_limit
        self._most_threads = most_threads
        self._running = 0
        # Whether an operation was given up and none has been answered since.
        self._silent = False
        self._next_trial = 0.0
        #: Why the last operation failed; None when it worked.
        self.problem: str | None = None

    async def begin(self, target: Path, *, shown: Callable[[], object] = lambda: None) -> Pending:
        """Makes sure that a file can be made, beside where it will be, before the work for it is done.

        shown: called when the file is there, in the thread that put it there. An OSError of it is nothing to
        the file.
        """
        temporary = target.with_name(f"{TEMPORARY}{self.node}-{os.getpid()}-{uuid.uuid4().hex[:12]}")
        handle = await self.call(
            lambda: os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644),
            late=lambda opened: _drop(opened, temporary),
        )
        return Pending(self, handle, temporary, target, shown)

    async def remove_stale(self, directory: Path) -> None:
        """Removes what this node's killed processes left there. Raises nothing."""

        def work() -> None:
            mine = f"{TEMPORARY}{self.node}-"
            with suppress(FileNotFoundError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith(mine):
                        with suppress(FileNotFoundError):
                            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                                os.unlink(entry.path)

        with suppress(OutputsUnavailable):
            await self.call(work)

    async def call(
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
        await self.thread_free()
        now = time.monotonic()
        if self._running >= self._most_threads or (self._silent and now < self._next_trial):
            raise self._unavailable("does not answer", "没有应答", _SERVER_DOWN, _NotTried)
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
        threading.Thread(target=run, name="share", daemon=True).start()
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
            raise self._unavailable(
                f"did not answer within {limit:g} s", f"在 {limit:g} 秒内没有应答", _SERVER_DOWN
            )
        try:
            value = answer.result()
        except OSError as error:
            # ESTALE: another node removed it while it was being read.
            if error.errno in (errno.ENOENT, errno.ESTALE) and missing_is_fine:
                self.problem = None
                raise FileNotFoundError(error.errno, os.strerror(error.errno)) from error
            raise self._failed(error) from error
        self.problem = None
        return value

    async def thread_free(self) -> None:
        """Waits, within the time limit, while all threads work on a share that answers: many requests at one
        moment are no fault of it.
        """
        end = time.monotonic() + self._time_limit
        while self._running >= self._most_threads and not self._silent and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _failed(self, error: OSError) -> OutputsUnavailable:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        reason_zh = _REASONS_ZH.get(error.errno or 0, reason)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self.problem = f"{self.directory}: {reason}"
            return OutputsFull(
                f"nothing more can be kept: {self.problem}; ask who runs this service to make room",
                zh=f"无法再保存：{self.directory}：{reason_zh}；请联系本服务的管理员清理空间",
                retry_after=60,
            )
        return self._unavailable(f"cannot be used: {reason}", f"无法使用：{reason_zh}", _NOT_WRITABLE)

    def _unavailable(
        self,
        what: str,
        what_zh: str,
        advice: tuple[str, str],
        kind: type[OutputsUnavailable] = OutputsUnavailable,
    ) -> OutputsUnavailable:
        self.problem = f"{self.directory} {what}"
        return kind(
            f"results and voices cannot be kept or read at the moment: {self.problem}, on {self.node}; "
            f"{advice[0]}",
            zh=f"暂时无法保存或读取结果和声音：{self.node} 上的 {self.directory} {what_zh}；{advice[1]}",
            retry_after=5,
        )


class _NotTried(OutputsUnavailable):
    """Refused before the share was asked anything."""


class Pending:
    """A file in the making. `commit` or `discard` ends it; until then nobody sees it."""

    def __init__(
        self, share: Share, handle: int, temporary: Path, target: Path, shown: Callable[[], object]
    ) -> None:
        self._share = share
        self._handle = handle
        self._temporary = temporary
        self._target = target
        self._shown = shown

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
            with suppress(OSError):
                self._shown()

        try:
            await self._share.thread_free()
        except asyncio.CancelledError:
            _aside(lambda: _drop(self._handle, self._temporary))
            raise
        try:
            await self._share.call(work, extra=len(data) / _SLOWEST)
        except _NotTried:
            _aside(lambda: _drop(self._handle, self._temporary))
            raise

    async def discard(self) -> None:
        """Leaves nothing behind. Raises nothing."""
        try:
            await self._share.call(lambda: _drop(self._handle, self._temporary))
        except _NotTried:
            _aside(lambda: _drop(self._handle, self._temporary))
        except OutputsUnavailable:
            pass  # it goes on without anybody who waits


def _aside(work: Callable[[], object]) -> None:
    """`work` in a thread for which nobody waits."""
    threading.Thread(target=work, name="share-aside", daemon=True).start()


def _drop(handle: int, path: Path) -> None:
    with suppress(OSError):
        os.close(handle)
    with suppress(OSError):
        path.unlink()
