"""One synthesis for one result, although several nodes may be asked for it at the same moment.

Whoever makes a result first claims it by a file on the share, `.claim-<name>`, and the others wait for the
result. A claim is a courtesy: when it cannot be had, or its owner is gone, the result is made all the
same, since the same name means the same audio and files appear whole. So nothing here can fail a request.

The share is normally NFS, which keeps names and attributes in caches of the client. What is relied on:

- Creating with O_EXCL is decided by the server, whatever the client believes to know about the name: of two
  nodes one gets EEXIST. (For a name that is cached as "not there" Linux asks no cache before an exclusive
  create, which NFSv3 and v4 both have. For one that is cached as there it may say EEXIST although the claim
  has gone; `wait` then sees that, and it is tried again.)
- A name that was looked up in vain stays "not there" in the client's cache until it hears that the directory
  has changed, which may take a minute (acdirmax). Opening the directory asks the server for its change
  attribute (close-to-open consistency holds for directories too) and drops such names when it has moved;
  hence `refresh`. A file that is opened has its attributes fetched anew for the same reason, so the time of
  a claim is never an old one.
- The owner renames the result to its name before it takes the claim away. So whoever gets the claim after
  that, then refreshes and looks, finds the result; whoever finds none has been the first.

Clocks of nodes are not compared: the owner touches its claim every few seconds, by the server's clock, and
one that stands still for LEASE seconds of the watcher's own clock belongs to nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path

from .errors import OutputsUnavailable
from .share import Share

#: How the name of a claim begins; the rest is the result's.
CLAIM = ".claim-"
#: Seconds after which a claim that nobody touches is void.
LEASE = 10.0
# How often the owner touches its claim, and how often others look whether the result has come, in seconds.
_TOUCH_EVERY = 2.5
_LOOK_EVERY = 0.2
# Tells this process from those that had the node's name before.
_PROCESS = uuid.uuid4().hex


class Claims:
    def __init__(self, share: Share) -> None:
        self._share = share

    async def take(self, name: str) -> Claim | None:
        """The claim on that result; None: somebody else has it. When the share does not answer, a claim that
        is none: keeping the result will tell.
        """
        path = self._share.directory / f"{CLAIM}{name}"
        token = uuid.uuid4().hex
        text = json.dumps({"node": self._share.node, "process": _PROCESS, "token": token, "lease": LEASE})
        try:
            created = await self._share.call(
                lambda: _create(path, text), late=lambda done: done and _remove(path, token)
            )
        except OutputsUnavailable:
            return Claim(self._share, None, token)
        return Claim(self._share, path, token) if created else None

    async def wait(self, name: str, limit: float) -> None:
        """Returns when the result is there, when its claim is gone or void (a void one is removed), when the
        share does not answer, and after `limit` seconds.
        """
        path = self._share.directory / f"{CLAIM}{name}"
        result = self._share.directory / name
        end = time.monotonic() + limit
        last: tuple[str, int] | None = None
        since = time.monotonic()
        while (now := time.monotonic()) < end:
            try:
                seen = await self._share.call(lambda: _look(path, result))
                if seen is None:
                    return
                if seen != last:
                    last, since = seen, now
                elif now - since > LEASE:
                    # Two that find it void at once may take away what the other has just made. The worst that
                    # follows is a result that is made twice.
                    await self._share.call(partial(_remove, path, seen[0]))
                    return
            except OutputsUnavailable:
                return
            await asyncio.sleep(_LOOK_EVERY)

    async def remove_stale(self) -> None:
        """Takes away what this node claimed before it was killed. Raises nothing."""

        def work() -> None:
            with os.scandir(self._share.directory) as entries:
                for entry in entries:
                    if entry.name.startswith(CLAIM):
                        with suppress(OSError, ValueError, KeyError, TypeError):
                            claim = json.loads(Path(entry.path).read_bytes()[:4096])
                            if claim["node"] == self._share.node and claim["process"] != _PROCESS:
                                os.unlink(entry.path)

        with suppress(OutputsUnavailable):
            await self._share.call(work)


class Claim:
    """A result that this process makes. `release` ends it."""

    def __init__(self, share: Share, path: Path | None, token: str) -> None:
        self._share = share
        self._path = path
        self._token = token
        self._touching = asyncio.create_task(self._touch()) if path is not None else None

    async def release(self) -> None:
        """After the result has its name, or when there will be none. Raises nothing."""
        if self._touching is None or self._path is None:
            return
        self._touching.cancel()
        path = self._path
        with suppress(OutputsUnavailable):
            await self._share.call(lambda: _remove(path, self._token))

    async def _touch(self) -> None:
        path = self._path
        assert path is not None
        while True:
            await asyncio.sleep(_TOUCH_EVERY)
            with suppress(OutputsUnavailable):
                await self._share.call(lambda: _set_time(path))


def refresh(directory: Path) -> None:
    """Lets the client of a network share see what others have put into the directory. In a thread."""
    os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


# Below: in a thread.


def _create(path: Path, text: str) -> bool:
    """Whether the claim is ours now."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
    return True


def _look(path: Path, result: Path) -> tuple[str, int] | None:
    """A claim's token and time of its last touch; None: it is gone, or the result is there."""
    refresh(path.parent)
    if result.exists():
        return None
    with suppress(FileNotFoundError), path.open("rb") as file:
        return _token(file.read(4096)), os.fstat(file.fileno()).st_mtime_ns
    return None


def _token(text: bytes) -> str:
    """Empty for a claim whose owner was killed between making and writing it."""
    try:
        return str(json.loads(text)["token"])
    except (ValueError, KeyError, TypeError):
        return ""


def _remove(path: Path, token: str) -> None:
    """Removes the claim if it is still that one."""
    with suppress(FileNotFoundError):
        if _token(path.read_bytes()[:4096]) == token:
            path.unlink()


def _set_time(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.utime(path)
