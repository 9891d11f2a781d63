"""The results of all nodes, in the shared directory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .claims import Claims, refresh
from .errors import NotFound, OutputsUnavailable
from .share import Pending, Share
from .wav import WavError, read_summary

# So many results are remembered with what there is to know about them, which listings show.
_MOST_KNOWN = 2000

_NAME = re.compile(r"[0-9a-f]{32}\.wav")


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
        self.share = Share(directory, node=node, time_limit=time_limit, most_threads=most_threads)
        self._known: dict[str, Result] = {}
        #: Called with the name of a result that was found, so used.
        self.on_use: Callable[[str], object] = lambda name: None
        #: Called with the name of a result that this node has made and kept, in the thread that kept it.
        self.on_made: Callable[[str], object] = lambda name: None

    @property
    def problem(self) -> str | None:
        """Why the last operation on the share failed; None when it worked."""
        return self.share.problem

    async def probe(self) -> None:
        """Asks whether files can be made. `problem` tells afterwards; raises nothing."""
        with suppress(OutputsUnavailable):
            await self.share.call(self._probe)

    async def find(self, name: str, *, fresh: bool = False) -> bytes | None:
        """The file of that name, if it is there. fresh: also when another node has made it only just now,
        and this one has looked for it in vain before.
        """

        def work() -> bytes:
            if fresh:
                refresh(self.directory)
            return (self.directory / name).read_bytes()

        try:
            data = await self.share.call(work, missing_is_fine=True)
        except FileNotFoundError:
            # "Not there" and "the mount point is empty because the share is away" look alike here; begin()
            # tells.
            return None
        self.on_use(name)
        return data

    async def read(self, name: str) -> bytes:
        """The file of that name. Raises NotFound, also for a name that is not a result's."""
        data = await self.find(name) if is_result_name(name) else None
        if data is None:
            raise NotFound(
                f"there is no result {name[:80]!r}; GET /v1/results lists those that exist",
                zh=f"没有名为 {name[:80]!r} 的结果；GET /v1/results 会列出现有的结果",
            )
        return data

    async def begin(self, name: str) -> Pending:
        """Makes sure that a file can be made before the work for it is done."""
        return await self.share.begin(self.directory / name, shown=lambda: self._made(name))

    async def remove_stale(self) -> None:
        """Removes what this node's killed processes left. Raises nothing."""
        await self.share.remove_stale(self.directory)
        await Claims(self.share).remove_stale()

    # Below: in a thread.

    def describe(self, name: str) -> Result | None:
        """The result of that name, if it is there."""
        known = self._known.get(name)
        if known is not None:
            with suppress(FileNotFoundError):
                if (self.directory / name).stat().st_mtime == known.made:
                    return known
        found = self._describe(name)
        if found is not None:
            self._known[name] = found
            while len(self._known) > _MOST_KNOWN:
                with suppress(KeyError, RuntimeError):  # another thread is at it, too
                    del self._known[next(iter(self._known))]
        return found

    def _probe(self) -> None:
        if not os.access(self.directory, os.W_OK | os.X_OK):
            # Names the reason: not there, read-only, or not ours.
            os.stat(self.directory)
            read_only = os.statvfs(self.directory).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "")

    def _made(self, name: str) -> None:
        self._known.pop(name, None)
        self.on_made(name)

    def _describe(self, name: str) -> Result | None:
        try:
            with (self.directory / name).open("rb", buffering=4096) as file:
                state = os.fstat(file.fileno())
                seconds, parameters = read_summary(file)
        except (FileNotFoundError, WavError):
            return None  # removed meanwhile, or somebody else's file under such a name
        return Result(name, state.st_mtime, state.st_size, seconds, parameters)
