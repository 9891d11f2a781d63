"""The other nodes: who they are, requests to them and from them that nobody else can make, and how they are.

Nodes share nothing but the directory of results. Each knows the others by a file and a key, both read again
when they change, so that a new real server or a new key restarts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from .metrics import Metrics

T = TypeVar("T")

log = logging.getLogger("cosyvoice")

#: The header of a request from node to node. Whatever a client sends under this name is taken off.
HEADER = b"x-cosyvoice-peer"
#: How far the clocks of two nodes may be apart, in seconds; a request that is older is a replay, and so is
#: one that comes twice within it (`Seen`).
WINDOW = 30.0
#: Stands for the digest of a body that is passed on as it comes, which only uploads are.
STREAMED = "streamed"
#: How long a node may take to answer a small question, in seconds. One that is off answers nothing at all.
ASK_LIMIT = 2.0
# How long a connection to a node may take to be made, in seconds.
_CONNECT_LIMIT = 1.0
# How often the others are asked how they are, in seconds: for 20 nodes or fewer; a tenth of a second more for
# each beyond, so that a fleet does not talk about itself all day.
_WATCH_EVERY = 2.0
# The least a key must have; 32 hexadecimal digits are 128 bits.
_SHORTEST_KEY = 32


class PeerError(Exception):
    """Another node cannot be reached, or does not do what it was asked for."""


@dataclass(frozen=True)
class Peer:
    """Another node. url: scheme, host and port, without a path."""

    name: str
    url: str


@dataclass
class Condition:
    """How a node is, by what was heard last. waiting, running, room: as in /readyz's `queue`."""

    up: bool = True
    late: bool = False
    ready: bool = False
    waiting: int = 0
    running: int = 0
    room: int = 0

    @classmethod
    def read(cls, told: Any) -> Condition:
        """Raises ValueError for anything but what `as_json` makes."""
        try:
            numbers = [int(told[name]) for name in ("waiting", "running", "room")]
            return cls(True, False, bool(told["ready"]), *numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the condition of a node: {str(told)[:80]}") from error

    def as_json(self) -> dict[str, Any]:
        return {"ready": self.ready, "waiting": self.waiting, "running": self.running, "room": self.room}


@dataclass(frozen=True)
class Caller:
    """Who sent a signed request. client: address of the client for whom a request is passed on, "" for one of
    the node's own. body: hexadecimal SHA-256 of the body, or STREAMED.
    """

    name: str
    client: str
    body: str


@dataclass(frozen=True)
class _List:
    me: str = ""
    peers: tuple[Peer, ...] = ()


def read_list(text: str) -> _List:
    """The peers file: `{"self": name, "peers": [{"name": ..., "url": "http://host:port"}, ...]}`. `self` may
    be among the peers. Raises ValueError.
    """
    told = json.loads(text)
    if not isinstance(told, dict) or not isinstance(told.get("peers"), list):
        raise ValueError('is not {"self": name, "peers": [...]}')
    me = told.get("self")
    peers: dict[str, Peer] = {}
    for entry in told["peers"]:
        name, url = (entry.get("name"), entry.get("url")) if isinstance(entry, dict) else (None, None)
        for value in (me, name):
            if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", value):
                raise ValueError(f"has the name {value!r}; names are letters, digits, '.', '_' and '-'")
        parts = urlsplit(url) if isinstance(url, str) else None
        # Between the nodes there is no TLS: what they say is signed, and the rest is theirs alone to see or
        # is sent to clients in clear anyway.
        if parts is None or parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"has the url {url!r} for {name}; write http://address:port")
        peers[name] = Peer(name, f"http://{parts.netloc}")
    return _List(me or "", tuple(peer for name, peer in peers.items() if name != me))


def read_keys(text: str) -> tuple[bytes, ...]:
    """One key a line, at most two: the first signs, both are accepted. Raises ValueError."""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(keys) <= 2:
        raise ValueError(f"has {len(keys)} keys; write one a line, at most two")
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise ValueError(f"has a key of less than {_SHORTEST_KEY} characters")
    return tuple(key.encode() for key in keys)


def read_addresses(text: str) -> frozenset[str]:
    """Addresses, one a line. Raises ValueError."""
    lines = (line.strip() for line in text.splitlines())
    return frozenset(str(ipaddress.ip_address(line)) for line in lines if line)


class Watched(Generic[T]):
    """What a small file says, read again when it changes. A file that cannot be read or is wrong counts as
    what it said before, and that is told once.
    """

    def __init__(self, path: Path | None, read: Callable[[str], T], nothing: T) -> None:
        self._path = path
        self._read = read
        self._value = nothing
        self._state: object = None
        self._next_look = 0.0

    @property
    def value(self) -> T:
        now = time.monotonic()
        if self._path is None or now < self._next_look:
            return self._value
        self._next_look = now + 1.0
        try:
            found = self._path.stat()
            state: object = (found.st_ino, found.st_mtime_ns, found.st_size)
            if state != self._state:
                self._value = self._read(self._path.read_text("utf-8"))
                log.info("read %s", self._path)
        except (OSError, ValueError) as error:
            state = str(error)
            if state != self._state:
                log.error("%s %s; what was read before counts on", self._path, error)
        self._state = state
        return self._value


class Seen:
    """Signatures of the last minute, each of which counts once.

    Nodes talk in clear, so whoever listens on the segment could send what was sent again for as long as its
    time is right. Most of it would gain nothing (a turn is used once, a forwarded request is what any client
    may ask), but each copy of a question for a turn would hold the engine for a moment. Only signatures that
    are right are remembered, so nobody else can fill this; a process that starts anew has forgotten them.
    """

    def __init__(self, most: int = 50_000) -> None:
        """most: so many are remembered, beyond that the newest."""
        self._most = most
        self._until: OrderedDict[str, float] = OrderedDict()

    def add(self, mac: str) -> bool:
        """False: it was there."""
        now = time.monotonic()
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)
        if mac in self._until:
            return False
        if len(self._until) >= self._most:
            self._until.popitem(last=False)
        # A clock that is WINDOW ahead makes a time that is right for twice as long.
        self._until[mac] = now + 2 * WINDOW
        return True


class Peers:
    """The other nodes as one node sees them. Without a list or a key there are none."""

    def __init__(
        self,
        list_file: Path | None,
        key_file: Path | None,
        metrics: Metrics,
        condition: Callable[[], Condition] = Condition,
    ) -> None:
        """condition: how this node is, told to the others with every answer."""
        self._list = Watched(list_file, read_list, _List())
        self._keys: Watched[tuple[bytes, ...]] = Watched(key_file, read_keys, ())
        self._metrics = metrics
        self._conditions: dict[str, Condition] = {}
        self._complaint_due = 0.0
        self._seen = Seen()
        self.condition = condition
        metrics.peers_up.set_function(lambda: sum(peer.name in self._conditions for peer in self.up()))
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=10),
            trust_env=False,
            verify=False,  # there is no TLS here, and reading all certificates takes its time
        )
        # A cookie in an answer is some client's. Kept here, it would go out with the requests of all others.
        self._http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    @property
    def me(self) -> str:
        """This node's name among them."""
        return self._list.value.me

    def all(self) -> tuple[Peer, ...]:
        """Every other node that this one knows and can talk to."""
        return self._list.value.peers if self._keys.value else ()

    def up(self) -> tuple[Peer, ...]:
        """Those that answered lately, or were not asked yet."""
        return tuple(peer for peer in self.all() if self.of(peer).up)

    def of(self, peer: Peer) -> Condition:
        """How that node is, by what was heard last."""
        return self._conditions.get(peer.name) or Condition()

    def heard(self, peer: Peer, condition: Condition) -> None:
        self._conditions[peer.name] = condition

    def lost(self, peer: Peer, error: BaseException) -> PeerError:
        """Notes that a node does not answer; it is not asked again before `watch` has found it back. One that
        is merely late is given a second chance: its sessions cannot be found while it counts as gone.
        """
        before = self.of(peer)
        if isinstance(error, TimeoutError | httpx.TimeoutException) and before.up and not before.late:
            self._conditions[peer.name] = replace(before, late=True)
            return PeerError(f"{peer.name} is late")
        if before.up:
            log.warning("%s does not answer: %s", peer.name, error or type(error).__name__)
        self._conditions[peer.name] = Condition(up=False)
        return PeerError(f"{peer.name} does not answer: {error or type(error).__name__}")

    # Requests to them.

    def sign(self, peer: Peer, method: str, target: str, *, body: str, client: str = "") -> str:
        """The header's value. target: path and query as they are sent. body: digest, or STREAMED."""
        if not re.fullmatch(r"[0-9A-Fa-f.:]{2,45}", client):
            client = ""  # what stands before this node may have put in anything
        once = secrets.token_hex(8)  # or the same question twice in a millisecond would be taken for a replay
        told = f"from={self.me};to={peer.name};time={time.time():.3f};once={once};client={client};body={body}"
        return f"{told};mac={_mac(self._keys.value[0], method, target, told)}"

    @contextlib.asynccontextmanager
    async def request(
        self,
        peer: Peer,
        method: str,
        target: str,
        *,
        body: bytes | AsyncIterator[bytes] = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        client: str = "",
        silence: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """A signed request, whose answer comes as a stream. Raises PeerError when there is none.

        silence: how long nothing may come, in seconds. Default: whoever calls sets a limit of the whole.
        """
        digest = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) else STREAMED
        try:
            url = httpx.URL(peer.url).copy_with(raw_path=target.encode("ascii"))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise PeerError(f"no address that can be passed on: {error}") from error
        # As it goes over the wire, whatever was escaped on the way.
        signature = self.sign(peer, method, url.raw_path.decode("ascii"), body=digest, client=client)
        sent = [*(headers or ()), (HEADER, signature.encode())]
        timeout = httpx.Timeout(silence, connect=_CONNECT_LIMIT)
        request = self._http.build_request(method, url, headers=sent, content=body or None, timeout=timeout)
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.LocalProtocolError as error:
            raise PeerError(
                f"a request that cannot be passed on: {error}"
            ) from error  # not that node's fault
        except httpx.TransportError as error:
            raise self.lost(peer, error) from error
        try:
            yield answer
        finally:
            await answer.aclose()

    async def ask(
        self, peer: Peer, method: str, target: str, body: Any = None, limit: float | None = ASK_LIMIT
    ) -> httpx.Response:
        """A small question between nodes, with JSON, and the whole answer. Raises PeerError, also when that
        is not there within `limit` seconds.
        """
        content = b"" if body is None else json.dumps(body).encode()
        headers = [(b"content-type", b"application/json")] if content else []
        try:
            async with asyncio.timeout(limit):
                async with self.request(peer, method, target, body=content, headers=headers) as answer:
                    await answer.aread()
                    return answer
        except TimeoutError as error:
            raise self.lost(peer, error) from error
        except httpx.TransportError as error:
            raise self.lost(peer, error) from error

    async def watch(self) -> None:
        """Asks all of them how they are, again and again."""
        while True:
            peers = self.all()
            await asyncio.gather(*(self._look_at(peer) for peer in peers))
            await asyncio.sleep(max(_WATCH_EVERY, len(peers) / 10))

    async def _look_at(self, peer: Peer) -> None:
        with contextlib.suppress(PeerError, ValueError):
            answer = await self.ask(peer, "GET", "/peer/condition")
            if answer.status_code != 200:
                self.lost(peer, PeerError(f"it refuses us with {answer.status_code}: {answer.text[:200]}"))
                return
            if not self.of(peer).up:
                log.info("%s answers again", peer.name)
            self.heard(peer, Condition.read(answer.json()))

    async def close(self) -> None:
        await self._http.aclose()

    # Requests from them.

    def verify(self, headers: Mapping[bytes, bytes], method: str, target: str) -> Caller | None:
        """Who sent this, or None for a client. The body is still to be compared with `Caller.body`."""
        value = headers.get(HEADER)
        if value is None:
            return None
        told, _, mac = value.decode("latin-1").rpartition(";mac=")
        fields = dict(part.partition("=")[::2] for part in told.split(";"))
        known = False
        for key in self._keys.value:
            known |= hmac.compare_digest(_mac(key, method, target, told).encode(), mac.encode("latin-1"))
        if not known:
            self._complain("a request claims to come from a node and is signed with no key of ours")
            return None
        try:
            apart = abs(time.time() - float(fields["time"]))
        except (KeyError, ValueError):
            return None
        if not apart <= WINDOW:
            self._complain(
                f"a request of {fields.get('from')} is {apart:.0f} s old: are the clocks of both nodes right?"
            )
            return None
        if fields.get("to") != self.me:
            self._complain(f"a request for {fields.get('to')} came here; this is {self.me}")
            return None
        if not self._seen.add(mac):
            self._complain(f"a request of {fields.get('from')} came a second time: somebody replays it")
            return None
        return Caller(fields.get("from", ""), fields.get("client", ""), fields.get("body", ""))

    def _complain(self, what: str) -> None:
        now = time.monotonic()
        if now >= self._complaint_due:
            self._complaint_due = now + 10
            log.warning("%s", what)


def _mac(key: bytes, method: str, target: str, told: str) -> str:
    message = "\n".join(("cosyvoice-peer-1", method, target, told))
    return hmac.new(key, message.encode("latin-1", "replace"), hashlib.sha256).hexdigest()


def ranked(key: str, names: tuple[str, ...]) -> list[str]:
    """The nodes in the order in which they are to have `key`: the same on every node, and the going or coming
    of one changes nothing between the others (rendezvous hashing).
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{name}\n{key}".encode()).digest(), reverse=True)
