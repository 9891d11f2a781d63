"""Who made which results: a user's own history, from all nodes.

An owner is whoever holds a secret: a browser the random number in its cookie, a program its API key. On the
share there is, for each result that an owner made, one empty file:

    <outputs>/history/<2 digits>/<hash of the secret>/<milliseconds>-<name of the result>

Why so. Nodes write at the same time, and an NFS client appends where it believes the end to be, so two that
append to one file lose lines; making a file of a new name is one operation of the server, which two can do at
once and neither half. What there is to know stands in the name, so no entry is ever half written, and the
rest (text, voice, duration) in the result itself, so nothing can contradict it. A listing reads one folder of
at most `MOST` names and then as many results as it shows, however many there are in the outputs. The hash
keeps who reads the share from using the secrets.

Where everybody is shown what everybody made, all of them together are one more owner, `history/all`, whose
entries bear the time at which the result was made, by the share's clock. A result comes to be there without
an entry when the node that made it dies between the two, when an older version made it, or a person copied
it; so a node that starts looks once through all results, and gives entries to the newest. Two that do that at
once make the same ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import os
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .claims import refresh
from .errors import NotFound, OutputsUnavailable
from .outputs import Outputs, Result, is_result_name

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: So many results of an owner are remembered, the newest.
MOST = 500
#: API keys shorter than this make no owner: what clients send where no key is needed (sk-no-key-required) is
#: the same for many.
SHORTEST_KEY = 20

# An owner that does not come back leaves entries whose results are removed one day; a sweep removes those. It
# takes so many seconds at most, since a call that takes too long counts as "the share is away".
_SWEEP_SECONDS = 1.0
_FOLDERS = 256
# Likewise for a listing: what has not been read by then is left out.
_LISTING_SECONDS = 2.0
# What a list of all results may take longer than other operations, in seconds, and how many of them are
# looked at in one operation.
_NAMES_SECONDS = 60.0
_AT_ONCE = 100
# Pause, in seconds, after the share was away while they were.
_ADOPT_AGAIN = 60.0
# So many entries without a result are removed at a time, and none that is younger than so many seconds: this
# node may only not see yet what another one has made.
_MOST_REMOVED = 50
_SETTLED = 300.0

_ENTRY = re.compile(r"([0-9]{13})-([0-9a-f]{32}\.wav)")


class History:
    def __init__(self, outputs: Outputs, *, shared: bool = False) -> None:
        """shared: everybody is shown what everybody made."""
        self._outputs = outputs
        self._directory = outputs.directory / "history"
        self._everybody = self._directory / "all"
        self._shared = shared
        if shared:
            outputs.on_made = self._made

    async def recent(self, owner: str, count: int) -> list[Result]:
        """What this owner is to see, newest first: their own results, or everybody's where that is set."""
        if not self._shared:
            return await self.latest(owner, count)
        return await self._outputs.share.call(lambda: self._latest(self._everybody, count))

    async def add(self, owner: str, name: str) -> None:
        """Remembers that an owner made a result, or found it made. Raises nothing.

        Without an owner there is nothing to remember. When the share is away it is forgotten: the audio is
        worth more than its place in a list.
        """
        if owner and is_result_name(name):
            with suppress(OutputsUnavailable):
                now = int(time.time() * 1000)
                await self._outputs.share.call(lambda: self._add(self._folder(owner), [(now, name)]))

    async def latest(self, owner: str, count: int) -> list[Result]:
        """An owner's newest results that are still there, each once. Raises OutputsUnavailable."""
        if not owner:
            return []
        return await self._outputs.share.call(lambda: self._latest(self._folder(owner), count))

    async def remove(self, owner: str, name: str) -> None:
        """Forgets that an owner made a result, which stays. Raises NotFound, OutputsUnavailable."""
        removed = owner and await self._outputs.share.call(lambda: self._remove(self._folder(owner), name))
        if not removed:
            raise NotFound(
                f"{name[:80]!r} is not in this history; GET /v1/history lists what it has",
                zh=f"这份历史记录中没有 {name[:80]!r}；GET /v1/history 会列出其中的内容",
            )

    async def adopt(self) -> None:
        """Sees to it that the newest results are among everybody's. It waits for a share that is away."""
        while self._shared:
            try:
                await self._adopt()
                return
            except OutputsUnavailable:
                await asyncio.sleep(_ADOPT_AGAIN)

    async def _adopt(self) -> None:
        share = self._outputs.share
        names = await share.call(self._without_entry, extra=_NAMES_SECONDS)
        newest: list[tuple[int, str]] = []
        for at in range(0, len(names), _AT_ONCE):
            part = names[at : at + _AT_ONCE]
            newest = heapq.nlargest(MOST, newest + await share.call(lambda part=part: self._times(part)))
        for at in range(0, len(newest), _AT_ONCE):
            entries = newest[at : at + _AT_ONCE]
            await share.call(lambda entries=entries: self._add(self._everybody, entries))

    async def sweep(self) -> None:
        """Removes entries without results in one part of the owners, chosen by chance. Raises nothing."""
        with suppress(OutputsUnavailable):
            await self._outputs.share.call(self._sweep)

    def _folder(self, owner: str) -> Path:
        digest = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return self._directory / digest[:2] / digest

    # Below: in a thread.

    def _add(self, folder: Path, entries: Iterable[tuple[int, str]]) -> None:
        """entries: milliseconds since 1970, and name of the result."""
        for at, name in entries:
            entry = folder / f"{at:013d}-{name}"
            for _ in range(3):
                folder.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # another node's sweep took the empty folder away meanwhile
                    os.close(os.open(entry, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
                    break
        seen: set[str] = set()
        for older, result in _entries(folder):
            if result in seen or len(seen) >= MOST:
                (folder / older).unlink(missing_ok=True)
            else:
                seen.add(result)

    def _made(self, name: str) -> None:
        self._add(self._everybody, self._times([name]))

    def _times(self, names: Iterable[str]) -> list[tuple[int, str]]:
        """When those that are still there were made, in milliseconds since 1970."""
        found = []
        for name in names:
            with suppress(FileNotFoundError):
                state = os.stat(self._outputs.directory / name, follow_symlinks=False)
                found.append((state.st_mtime_ns // 1_000_000, name))
        return found

    def _without_entry(self) -> list[str]:
        """Results that are not among everybody's."""
        listed = {result for _, result in _entries(self._everybody)}
        with os.scandir(self._outputs.directory) as entries:
            return [e.name for e in entries if is_result_name(e.name) and e.name not in listed]

    def _latest(self, folder: Path, count: int) -> list[Result]:
        until = time.monotonic() + _LISTING_SECONDS
        found: dict[str, Result] = {}
        gone = []
        # That a folder or a result was not there is remembered by this node's NFS client for half a minute,
        # and the first one may come from another node meanwhile. To open what is above it is to ask again: of
        # a new share also the folder of all histories.
        for above in reversed(folder.relative_to(self._outputs.directory).parents):
            with suppress(FileNotFoundError):
                refresh(self._outputs.directory / above)
        for entry, name in _entries(folder):
            if len(found) >= count or time.monotonic() > until:
                break
            if name in found:
                continue
            result = self._outputs.describe(name)
            if result is not None:
                found[name] = result
            elif _is_settled(entry):
                gone.append(folder / entry)
        _remove_all(gone)
        return list(found.values())

    def _remove(self, folder: Path, name: str) -> bool:
        mine = [folder / entry for entry, result in _entries(folder) if result == name]
        for entry in mine:
            entry.unlink(missing_ok=True)
        return bool(mine)

    def _sweep(self) -> None:
        until = time.monotonic() + _SWEEP_SECONDS
        part = self._directory / f"{random.randrange(_FOLDERS):02x}"
        with suppress(FileNotFoundError):
            owners = os.listdir(part)
            random.shuffle(owners)  # a part too large for one sweep is not always begun at the same end
            for owner in owners:
                folder = part / owner
                for entry, name in _entries(folder):
                    if time.monotonic() > until:
                        return
                    if _is_settled(entry) and not (self._outputs.directory / name).exists():
                        (folder / entry).unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _entries(folder: Path) -> list[tuple[str, str]]:
    """File name and result of each entry, newest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [(match[0], match[2]) for match in map(_ENTRY.fullmatch, names) if match]
    return sorted(found, reverse=True)


def _is_settled(entry: str) -> bool:
    """Whether an entry has been there so long that every node must see what it is of."""
    return time.time() - int(entry[:13]) / 1000 > _SETTLED


def _remove_all(entries: Iterable[Path]) -> None:
    for entry in list(entries)[:_MOST_REMOVED]:
        with suppress(OSError):
            entry.unlink()


# Who asks.

#: What `Owners` tells the API and the page by; a client cannot set it.
HEADER = "x-cosyvoice-owner"

# Where the page is reached by HTTPS its cookie has a name that no browser takes from plain HTTP: whoever can
# write into a connection could otherwise choose the number, and read along.
_PLAIN, _SECURE = "cosyvoice-owner", "__Host-cosyvoice-owner"
_YEAR = 365 * 86400


def owner_of(headers: Any) -> str:
    """The owner that `Owners` found, by the headers of the request as the app got it; empty: none."""
    return str(headers.get(HEADER, ""))


class Owners:
    """ASGI app around another: finds each request's owner, and gives pages a cookie that makes one."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        forwarded = headers.get(b"x-forwarded-proto", "").split(",")[0].strip()
        secure = (forwarded or scope.get("scheme")) == "https"
        cookie = _SECURE if secure else _PLAIN
        found = re.search(rf"(?:^|;)\s*{cookie}=([0-9a-f]{{32}})\s*(?:;|$)", headers.get(b"cookie", ""))
        number = found[1] if found else ""
        key = re.fullmatch(r"(?i:bearer)\s+(\S+)\s*", headers.get(b"authorization", ""))
        owner = f"cookie {number}" if number else ""
        if key and len(key[1]) >= SHORTEST_KEY:
            owner = f"key {key[1]}"
        # Hashed at once, so that no secret stands where a log or a page could show it.
        known = hashlib.sha256(owner.encode()).hexdigest() if owner else ""
        kept = [(name, value) for name, value in scope["headers"] if name != HEADER.encode()]
        scope = {**scope, "headers": [*kept, (HEADER.encode(), known.encode())]}
        if scope["method"] != "GET" or "text/html" not in headers.get(b"accept", ""):
            await self._app(scope, receive, send)
            return

        # The same number again, so that the year begins anew.
        given = f"{cookie}={number or secrets.token_hex(16)}; Path=/; Max-Age={_YEAR}; HttpOnly; SameSite=Lax"
        given += "; Secure" if secure else ""

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", given.encode())]
            await send(message)

        await self._app(scope, receive, send_with_cookie)
