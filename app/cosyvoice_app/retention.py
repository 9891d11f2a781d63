"""What goes from the shared directory again: results that nobody asked for in a long time, if a limit is set.

Every node does this, without a lock. What stays is the same set whoever works it out: the most recently used
results that fit into the quota and are not too old. A node that looks while another one removes sees some of
the others gone already, and comes to the same end; to remove a file twice does nothing. Nodes that disagree
for some minutes about the last use of a file may remove one that should have stayed: it is made again when
somebody asks for it.

When a result was used cannot be kept in the file's own times: the modification time is when it was made, and
servers set the access time for anyone who looks. So each node keeps a file with the uses that it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .errors import OutputsUnavailable
from .metrics import Metrics
from .outputs import Outputs, is_result_name
from .share import TEMPORARY

log = logging.getLogger("cosyvoice")

DAY = 86_400.0
#: Seconds between two rounds, more or less by half: nodes that started together do not stay together.
ROUND = 600.0
#: A file younger than this, in seconds, stays whatever the limits say: somebody may be about to play it.
YOUNGEST = 3600.0
#: Files removed in one round at the most. The rest goes in the next one.
MOST_PER_ROUND = 1000

# Files in one operation on the share, which has to end within its time limit.
_AT_ONCE = 100
# What a list of names may take longer than other operations, in seconds.
_LISTING = 60.0
# Days after which the file of a node that is gone for good is removed.
_FORGOTTEN = 400
_FOLDER = ".uses"
_LINE = re.compile(r"([0-9a-f]{32}\.wav) ([0-9]{1,12})")


@dataclass(frozen=True)
class _Known:
    """A result. made: seconds since 1970, by the share's clock. size in bytes."""

    made: float
    size: int


@dataclass
class _Uses:
    """now: by the share's clock. own: what this node has seen, to be written again when `changed`. last: by
    any node. Seconds since 1970.
    """

    now: float
    own: dict[str, int]
    changed: bool = False
    last: dict[str, int] = field(default_factory=dict)


class Retention:
    """Without a limit it does nothing, and tts_outputs_bytes is not known."""

    def __init__(self, outputs: Outputs, metrics: Metrics, *, days: float, quota: int) -> None:
        """days: since the last use; 0: any number. quota: bytes of all results; 0: any number."""
        self._outputs = outputs
        self._share = outputs.share
        self._metrics = metrics
        self._days = days
        self._quota = quota
        self._used: set[str] = set()
        self._known: dict[str, _Known] = {}
        self._file = self._share.directory / _FOLDER / self._share.node
        metrics.outputs_bytes.set(float("nan"))
        if self.enabled:
            outputs.on_use = self._used.add

    @property
    def enabled(self) -> bool:
        return bool(self._days or self._quota)

    async def run(self) -> None:
        """One round after another, until it is cancelled."""
        while self.enabled:
            try:
                count, size = await self.round()
            except OutputsUnavailable as error:
                # The share's own watch logs what is wrong with it.
                log.debug("results were not looked through: %s", error.message)
            else:
                if count:
                    log.info("removed %d results, %.1f MB", count, size / 1e6)
            await asyncio.sleep(ROUND * random.uniform(0.5, 1.5))

    async def round(self) -> tuple[int, int]:
        """Removes what should not stay. How many, and how many bytes. Raises OutputsUnavailable."""
        used = set(self._used)
        uses = await self._share.call(lambda: self._read_uses(used))
        self._used -= used
        await self._look()
        count = size = 0
        for names in _parts(choose(self._known, uses.last, uses.now, days=self._days, quota=self._quota)):
            gone, others = await self._share.call(lambda names=names: self._remove(names))
            count += len(gone)
            size += sum(self._known[name].size for name in gone)
            self._metrics.outputs_removed.inc(len(gone))
            for name in names:
                self._known.pop(name)
            self._known.update(others)
        self._metrics.outputs_bytes.set(sum(known.size for known in self._known.values()))
        own = {name: at for name, at in uses.own.items() if name in self._known}
        if uses.changed or len(own) < len(uses.own):
            pending = await self._share.begin(self._file)
            await pending.commit("".join(f"{name} {at}\n" for name, at in sorted(own.items())).encode())
        return count, size

    async def _look(self) -> None:
        """Brings `_known` up to date. Each file is looked at once: it changes by being made anew only."""
        names = await self._share.call(self._list, extra=_LISTING)
        self._known = {name: known for name, known in self._known.items() if name in names}
        for part in _parts([name for name in names if name not in self._known]):
            self._known.update(await self._share.call(lambda part=part: self._stat(part)))

    # Below: in a thread.

    def _read_uses(self, used: set[str]) -> _Uses:
        folder = self._file.parent
        with suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.utime(handle)  # without a time it is the server that sets it
            now = os.fstat(handle).st_mtime
        finally:
            os.close(handle)
        uses = _Uses(now, {})
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN * DAY:
                        os.unlink(entry.path)
                    if entry.name.startswith(TEMPORARY):
                        continue
                    with open(entry.path, encoding="ascii", errors="replace") as file:
                        seen = {m[1]: int(m[2]) for line in file if (m := _LINE.fullmatch(line.strip()))}
                    if entry.name == self._file.name:
                        uses.own = seen
                    for name, at in seen.items():
                        uses.last[name] = max(at, uses.last.get(name, 0))
        for name in used:
            uses.last[name] = int(now)
            if now - uses.own.get(name, 0) > DAY:  # more exactly it need not be known
                uses.own[name] = int(now)
                uses.changed = True
        return uses

    def _list(self) -> set[str]:
        with os.scandir(self._share.directory) as entries:
            return {entry.name for entry in entries if is_result_name(entry.name)}

    def _stat(self, names: Sequence[str]) -> dict[str, _Known]:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                state = os.stat(self._share.directory / name, follow_symlinks=False)
                found[name] = _Known(state.st_mtime, state.st_size)
        return found

    def _remove(self, names: Sequence[str]) -> tuple[list[str], dict[str, _Known]]:
        """Those that are gone by this node's doing, and those that were made anew meanwhile, which stay."""
        gone = []
        found = self._stat(names)
        for name in [name for name in found if found[name] == self._known[name]]:
            del found[name]
            with suppress(FileNotFoundError):  # another node was quicker
                os.unlink(self._share.directory / name)
                gone.append(name)
        return gone, found


def choose(
    known: Mapping[str, _Known], last: Mapping[str, int], now: float, *, days: float, quota: int
) -> list[str]:
    """Which results go, the least recently used first."""
    by_use = sorted(known, key=lambda name: (max(known[name].made, last.get(name, 0)), name), reverse=True)
    going = []
    size = 0
    for name in by_use:
        size += known[name].size
        idle = now - max(known[name].made, last.get(name, 0))
        unwanted = (days and idle > days * DAY) or (quota and size > quota)
        if unwanted and now - known[name].made >= YOUNGEST:
            going.append(name)
    return going[::-1][:MOST_PER_ROUND]


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))
