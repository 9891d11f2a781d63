"""Voices that users saved: on the share, so that every node speaks with them.

One file is one voice, audio and facts together, made whole under its name or not at all. The name is a hash
of all that is inside: two nodes that save at once write two files, or the same one twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import text as texts
from .engines import Prompt
from .errors import BadRequest, NotFound
from .share import Share
from .wav import WavError, decode, encode, read_summary

#: Characters.
MAX_NAME = 40
MAX_TEXT = 400
#: Voices of one owner, and of all: as many as a list can show, and 1.5 MB each at the very most.
MOST_OF_ONE = 50
MOST_OF_ALL = 2000

_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIX = ".wav"


@dataclass(frozen=True)
class SavedVoice:
    """What a file says. owner: hash of who saved it. made: seconds since 1970, by the share's clock. digest:
    of the prompt's samples. text: what is said in the prompt; empty when nobody wrote it down.
    """

    id: str
    name: str
    text: str
    owner: str
    shared: bool
    digest: str
    seconds: float
    made: float

    def belongs_to(self, owner: str) -> bool:
        return self.owner == hash_owner(owner)

    def as_json(self, owner: str) -> dict[str, Any]:
        """What its reader may know. owner: the reader."""
        return {
            "id": self.id,
            "name": self.name,
            "prompt_text": self.text,
            "shared": self.shared,
            "mine": self.belongs_to(owner),
            "seconds": round(self.seconds, 3),
            "made": round(self.made, 3),
        }


class Voices:
    """The store. Its methods raise OutputsUnavailable (or OutputsFull) within the share's time limit.

    owner: an opaque string that only this user has; it may be a secret, since nothing but its hash is kept.
    """

    def __init__(self, share: Share) -> None:
        self.directory = share.directory / "voices"
        self._share = share
        #: By file name: its time when it was read, and what it said.
        self._known: dict[str, tuple[int, SavedVoice | None]] = {}

    async def save(
        self, name: str, prompt: Prompt, prompt_text: str, owner: str, *, shared: bool = False
    ) -> SavedVoice:
        """Keeps a voice; the same one again is kept once. Two voices may have one name.

        shared: whether all users may speak with it. Raises BadRequest.
        """
        facts = {
            "name": _clean(name, "name", ("the voice's name", "声音的名称"), MAX_NAME),
            "prompt_text": _clean(
                prompt_text, "prompt_text", ("the prompt's text", "录音的文字"), MAX_TEXT, empty=True
            ),
            "owner": hash_owner(owner),
            "shared": shared,
            "digest": prompt.digest,
        }
        id_ = _identify(facts)
        there = [voice for voice in await self._share.call(self._prepare) if voice.id != id_]
        mine = sum(voice.belongs_to(owner) for voice in there)
        if mine >= MOST_OF_ONE:
            raise BadRequest(
                f"you have saved {mine} voices, which is the limit; remove one and save this one again",
                zh=f"您已保存 {mine} 个声音，达到上限；请先删除一个再保存",
            )
        if len(there) >= MOST_OF_ALL:
            raise BadRequest(
                f"{len(there)} voices of all users are saved, which is the limit; "
                "ask the administrator of this service to remove some",
                zh=f"所有用户共保存了 {len(there)} 个声音，达到上限；请联系本服务的管理员清理",
            )
        pending = await self._share.begin(self._path(id_))
        try:
            data = encode(decode(prompt.data), facts)
        except BaseException:
            await asyncio.shield(pending.discard())
            raise
        await pending.commit(data)
        return await self.get(id_, owner)

    async def list(self, owner: str) -> Sequence[SavedVoice]:
        """The owner's voices and those that others share, the newest first."""
        found = [v for v in await self._share.call(self._list) if v.shared or v.belongs_to(owner)]
        return sorted(found, key=lambda v: (-v.made, v.id))

    async def get(self, id: str, owner: str) -> SavedVoice:
        """Raises NotFound, also for a voice that another user keeps to himself."""
        voice, _ = await self._open(id, owner, lambda file: b"")
        return voice

    async def read(self, id: str, owner: str) -> tuple[SavedVoice, bytes]:
        """A voice and its prompt, as WAV. Raises NotFound."""
        return await self._open(id, owner, lambda file: file.read())

    async def remove(self, id: str, owner: str) -> None:
        """Raises NotFound; BadRequest for a voice that somebody else shares."""
        voice = await self.get(id, owner)
        if not voice.belongs_to(owner):
            raise BadRequest(
                f"the voice {voice.name!r} was saved by another user, who alone can remove it",
                zh=f"声音 {voice.name!r} 是其他用户保存的，只有保存者本人可以删除",
            )

        def work() -> None:
            with suppress(FileNotFoundError):  # another node was quicker
                self._path(id).unlink()

        await self._share.call(work)

    async def remove_stale(self) -> None:
        """Removes what this node's killed processes left. Raises nothing."""
        await self._share.remove_stale(self.directory)

    async def _open(
        self, id: str, owner: str, take: Callable[[io.BufferedReader], bytes]
    ) -> tuple[SavedVoice, bytes]:
        found: tuple[SavedVoice, bytes] | None = None
        if _ID.fullmatch(id):
            with suppress(FileNotFoundError, WavError):
                found = await self._share.call(lambda: self._read(id, take), missing_is_fine=True)
        if found is None or not (found[0].shared or found[0].belongs_to(owner)):
            raise NotFound(
                f"there is no voice {id[:40]!r} that you can use; choose one from the list",
                zh=f"没有您可以使用的声音 {id[:40]!r}；请从列表中选择",
                param="voice",
            )
        return found

    # Below: in a thread.

    def _path(self, id: str) -> Path:
        return self.directory / f"{id}{_SUFFIX}"

    def _prepare(self) -> Sequence[SavedVoice]:
        with suppress(FileExistsError):
            self.directory.mkdir(mode=0o755)  # not its parents: that the share is not mounted must come out
        return self._list()

    def _read(self, id: str, take: Callable[[io.BufferedReader], bytes]) -> tuple[SavedVoice, bytes]:
        path = self._path(id)
        try:
            file = path.open("rb", buffering=4096)
        except FileNotFoundError:
            # An NFS client may remember for a minute that a name was not there. To open the directory makes
            # it ask the server, and another node may have saved the voice a moment ago.
            os.scandir(self.directory).close()
            file = path.open("rb", buffering=4096)
        with file:
            voice = _describe(id, file, os.fstat(file.fileno()).st_mtime)
            file.seek(0)
            return voice, take(file)

    def _list(self) -> Sequence[SavedVoice]:
        seen: dict[str, tuple[int, SavedVoice | None]] = {}
        try:
            # On NFS too this tells what the server has now: a directory is revalidated when it is opened.
            entries = os.scandir(self.directory)
        except FileNotFoundError:
            os.stat(self.directory.parent)  # the share is there, and no voice was ever saved
            return []
        with entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and _ID.fullmatch(entry.name[: -len(_SUFFIX)]):
                    with suppress(FileNotFoundError):
                        made = entry.stat(follow_symlinks=False).st_mtime_ns
                        known = self._known.get(entry.name)
                        seen[entry.name] = known if known and known[0] == made else (made, None)
        for name, (made, voice) in seen.items():
            if voice is None:
                with suppress(FileNotFoundError, WavError):
                    seen[name] = made, self._read(name[: -len(_SUFFIX)], lambda file: b"")[0]
        self._known = seen
        return [voice for _, voice in seen.values() if voice is not None]


def hash_owner(owner: str) -> str:
    return hashlib.sha256(b"owner of a voice: " + owner.encode()).hexdigest()[:32]


def _identify(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _describe(id: str, file: io.BufferedReader, made: float) -> SavedVoice:
    """Raises WavError for a file that no node has written under this name."""
    seconds, facts = read_summary(file)
    if _identify(facts) != id:
        raise WavError("its name does not belong to its content")
    return SavedVoice(
        id=id,
        name=facts["name"],
        text=facts["prompt_text"],
        owner=facts["owner"],
        shared=facts["shared"],
        digest=facts["digest"],
        seconds=seconds,
        made=made,
    )


def _clean(value: str, param: str, what: tuple[str, str], most: int, *, empty: bool = False) -> str:
    """Free text without what is not seen. what: what it is, in English and in Chinese."""
    cleaned = texts.cleaned(value, param, what)
    # Marks that turn the direction of writing round make a list show something else; joiners make emoji.
    cleaned = "".join(c for c in cleaned if c == "\u200d" or unicodedata.category(c) != "Cf").strip()
    if len(cleaned) > most:
        raise BadRequest(
            f"{what[0]} is {len(cleaned)} characters long; at most {most} are accepted: shorten it",
            zh=f"{what[1]}有 {len(cleaned)} 个字符，最多 {most} 个：请缩短",
            param=param,
        )
    if not empty and not any(c.isprintable() and not c.isspace() for c in cleaned):
        raise BadRequest(
            f"{what[0]} is empty; give at least one character",
            zh=f"{what[1]}是空的；请至少输入一个字符",
            param=param,
        )
    return cleaned
