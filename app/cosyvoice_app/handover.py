"""Jobs that wait here and are done elsewhere, so that all nodes together are one queue.

A node with jobs in its line keeps a place in the lines of the others. When such a place is called, the other
node holds its turn for a moment, and this node sends the job that has waited longest. So a job is bound to a
node when that one is free for it and not before: no node is idle while a job waits anywhere, and nobody needs
to know how long other queues are. The connection is the job: when either end of it closes, the other one
knows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import logging
import random
import struct
import types
import typing
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, Union
from urllib.parse import quote

import httpx

from .errors import BadRequest, EngineError, NotReady, QueueFull, ServiceError
from .line import HomeTurn, Line, Turn
from .metrics import Metrics
from .peers import Condition, Peer, PeerError, Peers
from .wav import Audio, WavError, decode, encode, join

T = TypeVar("T")
#: Told of each piece of a speech while it is made.
Hear = Callable[[Audio], None]

log = logging.getLogger("cosyvoice")

# In so many other nodes' lines this node keeps a place at the same time, at most.
_MOST_PLACES = 16
# How long one request for a turn waits, in seconds; then it is made again, so that the place of a node that
# lost its power without a word does not stay for ever.
_PLACE_LIMIT = 25.0
# How long a turn is held for the node that was called, in seconds: two messages, also between busy machines.
_HOLD_LIMIT = 2.0
# Pause after a node that cannot give turns, in seconds.
_PAUSE = 1.0


class PeerTurn:
    """A turn that another node holds for one of this node's jobs."""

    def __init__(self, peer: Peer, token: str, forget: Callable[[Peer, str], None]) -> None:
        self.peer = peer
        self.token = token
        self._forget: Callable[[Peer, str], None] | None = forget

    def used(self) -> None:
        """The job was sent: that node ends the turn itself."""
        self._forget = None

    def release(self) -> None:
        forget, self._forget = self._forget, None
        if forget is not None:
            forget(self.peer, self.token)


class HandOver:
    """This node's side as the one that has too many jobs."""

    def __init__(self, peers: Peers, metrics: Metrics, line: Line[PeerTurn], limit: float) -> None:
        """limit: seconds that a job may take elsewhere, with all that belongs to it."""
        self._peers = peers
        self._limit = limit
        self._metrics = metrics
        self._line = line
        self._places: dict[str, asyncio.Task[None]] = {}
        self._late: set[asyncio.Task[None]] = set()

    @property
    def helpers(self) -> int:
        """How many other nodes could do a job now."""
        return sum(self._peers.of(peer).ready for peer in self._peers.up())

    def crowded(self, waiting: int, room: int) -> bool:
        """Whether the cluster as a whole has no place left for one more that waits here. waiting, room: this
        node's.
        """
        others = [told for peer in self._peers.up() if (told := self._peers.of(peer)).ready]
        everywhere = waiting + sum(told.waiting for told in others)
        return everywhere >= room + sum(told.room for told in others)

    def look(self) -> None:
        """To be called when somebody has joined the line: sees to it that places are kept at other nodes.

        They stay when nobody waits any more: a place that is called in vain costs one message, and a turn
        that is given just when its place is left would be held for nothing.
        """
        candidates = [p for p in self._peers.all() if p.name not in self._places]
        random.shuffle(candidates)  # or a large fleet would all turn to the same ones
        candidates.sort(key=lambda p: (not self._peers.of(p).ready, self._peers.of(p).waiting))
        for peer in candidates[: max(0, _MOST_PLACES - len(self._places))]:
            task = asyncio.get_running_loop().create_task(self._keep_place(peer))
            self._places[peer.name] = task
            task.add_done_callback(lambda done, name=peer.name: self._left(name, done))

    def _left(self, name: str, task: asyncio.Task[None]) -> None:
        if self._places.get(name) is task:
            del self._places[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("keeping a place at %s failed", name, exc_info=error)

    async def _keep_place(self, peer: Peer) -> None:
        """Takes turns of that node as long as jobs wait here. One that is lost is asked again once it
        is back, whether or not somebody joins the line then.
        """
        while self._line.movable and peer in self._peers.all():
            token = ""
            try:
                if not self._peers.of(peer).up:
                    raise PeerError(f"{peer.name} is not there")
                answer = await self._peers.ask(peer, "POST", "/peer/turn", {}, _PLACE_LIMIT + 5)
                if answer.status_code == 200:
                    token = str(answer.json()["turn"])
                    self._peers.heard(peer, Condition.read(answer.json()["condition"]))
            except (PeerError, ValueError, LookupError, TypeError):
                pass
            if token:
                turn = PeerTurn(peer, token, self._give_back)
                if not self._line.give(turn):
                    turn.release()
                    return
            else:
                await asyncio.sleep(_PAUSE)

    def _give_back(self, peer: Peer, token: str) -> None:
        async def tell() -> None:
            with contextlib.suppress(PeerError):
                await self._peers.ask(peer, "POST", f"/peer/release?turn={quote(token, safe='')}", {})

        task = asyncio.get_running_loop().create_task(tell())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def send(
        self, turn: PeerTurn, request: Any, *, name: str, request_id: str = "", hear: Hear | None = None
    ) -> bytes | Audio | None:
        """Lets the other node do the job: the file that it made, or, when it was heard meanwhile, the audio.
        None: it did not, for whatever reason, and the job is this node's again. Cancelling stops the work
        there. Raises EngineError when that node fails and a part has been heard already.

        name: of the result as this node would call it; a node of another version, to which the same words
        mean another result, does not do it. hear: called with each piece as it comes; whoever listens slowly
        keeps the pieces here and holds up neither this nor the other node's engine.
        """
        turn.used()
        body = {"turn": turn.token, "name": name, "request": to_json(request), "stream": hear is not None}
        heard: list[Audio] = []
        headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode("latin-1"))]
        outcome = "cancelled"
        try:
            content = json.dumps(body).encode()
            sending = self._peers.request(turn.peer, "POST", "/peer/speak", body=content, headers=headers)
            async with asyncio.timeout(self._limit), sending as answer:
                if hear is not None and answer.headers.get("content-type") == PIECES:
                    async for piece in read_pieces(answer.aiter_bytes()):
                        heard.append(piece)
                        hear(piece)
                    outcome = "ok"
                    return join(heard)
                data = await answer.aread()
            outcome = "ok" if answer.status_code == 200 else "refused"
            if outcome == "ok":
                return data
            log.warning(
                "%s did not do a job: %d %s",
                turn.peer.name,
                answer.status_code,
                data[:300].decode(errors="replace"),
            )
        except (PeerError, TimeoutError, httpx.TransportError, WavError) as error:
            outcome = "lost"
            said = error or type(error).__name__
            log.warning("%s was lost with a job: %s", turn.peer.name, said)
            if heard:
                raise EngineError(
                    f"{turn.peer.name} failed in the middle of the synthesis: {said}; send the request again",
                    zh=f"{turn.peer.name} 在合成中途中断：{said}；请重新提交",
                    retry_after=1,
                ) from error
        finally:
            self._metrics.handed_over.labels(outcome).inc()
        return None


# Pieces of a speech on the way between two nodes: each as a WAV behind its length, then a length of 0, and
# after that the reason when there are no more because something failed.

PIECES = "application/vnd.cosyvoice.pieces"
_LENGTH = struct.Struct(">I")
# Bytes of a piece at the most.
_LARGEST_PIECE = 64 << 20


async def write_pieces(pieces: AsyncIterator[Audio]) -> AsyncIterator[bytes]:
    """The bytes of an answer. Raises nothing of the service's: what fails is told at the end."""
    end = b""
    try:
        async for piece in pieces:
            data = encode(piece, {})
            yield _LENGTH.pack(len(data)) + data
    except ServiceError as error:
        end = error.message.encode()
    yield _LENGTH.pack(0) + end


async def read_pieces(parts: AsyncIterator[bytes]) -> AsyncIterator[Audio]:
    """The pieces out of such an answer. Raises PeerError when it ends before they do, or tells of a failure;
    WavError for anything else.
    """
    buffer = bytearray()
    length: int | None = None
    async for part in parts:
        buffer += part
        while length != 0:
            if length is None:
                if len(buffer) < _LENGTH.size:
                    break
                (length,) = _LENGTH.unpack_from(buffer)
                del buffer[: _LENGTH.size]
                if length > _LARGEST_PIECE:
                    raise WavError(f"a piece of {length} bytes")
            elif len(buffer) < length:
                break
            else:
                yield decode(bytes(buffer[:length]))
                del buffer[:length]
                length = None
    if length != 0:
        raise PeerError("its answer broke off")
    if buffer:
        raise PeerError(buffer[:1000].decode(errors="replace"))


class Turns:
    """This node's side as the one that has time."""

    def __init__(self, line: Line[Any], ready: Callable[[], bool]) -> None:
        self._line = line
        self._ready = ready
        self._held: dict[str, tuple[HomeTurn, asyncio.TimerHandle]] = {}

    async def wait(self) -> str:
        """Waits in this node's line and returns a word for the turn, which is held for a moment. Raises
        NotReady or QueueFull (no turn came).
        """
        if not self._ready():
            raise NotReady("this node accepts no work now", zh="本节点现在不接受任务")
        try:
            async with asyncio.timeout(_PLACE_LIMIT):
                turn = await self._line.turn()
        except TimeoutError:
            raise QueueFull("no turn came in time", zh="未能及时轮到") from None
        assert isinstance(turn, HomeTurn)
        if not self._ready():
            turn.release()
            raise NotReady("this node accepts no work now", zh="本节点现在不接受任务")
        token = uuid.uuid4().hex
        timer = asyncio.get_running_loop().call_later(_HOLD_LIMIT, self.release, token)
        self._held[token] = (turn, timer)
        return token

    def release(self, token: str) -> None:
        """Ends a turn that is not used. One that is gone already does no harm."""
        if (turn := self.take(token)) is not None:
            turn.release()

    def take(self, token: str) -> Turn | None:
        """The turn, which its taker ends. None: it was held for too long, or never given."""
        held = self._held.pop(token, None)
        if held is None:
            return None
        held[1].cancel()
        return held[0]


def to_json(value: Any) -> Any:
    """A dataclass of plain values as JSON types; bytes in base64."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(kind: type[T], told: Any) -> T:
    """The dataclass back, its fields checked against their types. Raises BadRequest, since the two nodes may
    run different versions.
    """
    try:
        made = _read(kind, told)
    except (TypeError, ValueError, KeyError, ServiceError) as error:
        raise BadRequest(
            f"the job is not one for this version of the service: {error}",
            zh=f"任务与本版本的服务不符：{error}",
        ) from error
    assert isinstance(made, kind)
    return made


def _read(kind: Any, told: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if told is None and type(None) in inner:
            return None
        (kind,) = (part for part in inner if part is not type(None))
        return _read(kind, told)
    if origin is typing.Literal:
        if told not in inner:
            raise ValueError(f"{told!r} is not one of {inner}")
        return told
    if dataclasses.is_dataclass(kind):
        types_of = typing.get_type_hints(kind)
        unknown = set(told) - {f.name for f in dataclasses.fields(kind)}
        if unknown:
            raise ValueError(f"it has {', '.join(sorted(unknown))}")
        return kind(**{name: _read(types_of[name], value) for name, value in told.items()})
    if origin in (tuple, list):
        return origin(_read(inner[0], item) for item in told)
    if kind is bytes:
        return base64.b64decode(told, validate=True)
    if kind is float and isinstance(told, int) and not isinstance(told, bool):
        return float(told)
    if isinstance(kind, type) and not isinstance(told, kind):
        raise TypeError(f"{str(told)[:40]!r} is no {kind.__name__}")
    return told
