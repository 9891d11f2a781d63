"""Any node answers for any session of the page.

One interaction with the page is several connections, and what they are about (a job in gradio's queue, an
upload under way) lives in one process. Behind a balancer they meet different nodes, so a node that is asked
about something it does not have passes the request on to the node that has it.

Where a thing lives is kept nowhere. It is where it is active; a new one goes to the first node that is ready
in an order which every node works out alike from the thing's name. So nodes are asked before anything is
decided, and it does not matter that one of them came, went or was drained in between. A session that has
nothing under way lives nowhere: the page keeps no state between two clicks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import httpx

from .errors import Forbidden, NotReady
from .metrics import Metrics
from .peers import STREAMED, Caller, Peer, PeerError, Peers, ranked

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("cosyvoice")

# Of a large fleet so many nodes are asked who has a session: it began on the first one that was ready in the
# order of its name, and so many are not missing at once.
_ASKED = 8
# Largest file, in bytes, that a node fetches from another because a request names it.
_LARGEST_FILE = 64 << 20
# How many files one request may name.
_MOST_FILES = 16
# How long the answer of another node may be silent, in seconds: gradio's streams say something every 15. One
# that has lost its power would be waited for without an end.
_SILENCE = 60.0
# How long fetching one may take, in seconds.
_FETCH_LIMIT = 30.0
# How gradio names an uploaded file below its folder: the hash of the content, then the file's own name.
_UPLOADED = re.compile(r"[0-9a-f]{64}/[^/\0]{1,255}")

# Those concern one connection, RFC 9110 section 7.6.1; `date` this node writes itself.
_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"date", b"expect"),
    )
)

# What gradio's clients understand as: what you wait for is lost, everything else goes on.
_LOST = {
    "msg": "unexpected_error",
    "message": "Server stopped unexpectedly.",
    "session_not_found": True,
    "success": False,
}


@dataclass(frozen=True)
class _Asked:
    """What a request of the page is about. key: name of the session, job or upload; "" for a request that any
    node can answer. starts: it may be the first about that key. everywhere: the key says nothing about the
    place.
    """

    kind: str
    key: str = ""
    starts: bool = False
    everywhere: bool = False


# Paths below /gradio_api whose JSON body names a session. `run`, `api` and `component_server` work on what
# gradio keeps for a session between two clicks, which for our page is nothing.
_BY_BODY = re.compile(r"/(queue/)?(?P<kind>join|cancel|call(?=/))(/v2)?(/[^/]+)?/?")
# Paths that name the job itself.
_BY_JOB = re.compile(
    r"/call/(?:v2/)?[^/]+/(?P<call>[0-9a-f]{32})/?|/stream/(?P<stream>[0-9a-f]{32})(?:/close)?"
)
# What clients make is shorter and of hexadecimal digits, letters or '-'.
_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}")
_BY_SESSION = re.compile(r"/stream/(?P<key>[^/]+)/[^/]+/[0-9]+/[^/]+")
_BY_FILE = re.compile(r"/file[=/](?P<path>.+)")
_WITH_FILES = re.compile(r"/(?:queue/join|call|run|api)(?:/|$)")


class Sessions:
    """Stands before the page's app and decides for each request which node answers it."""

    def __init__(self, peers: Peers, metrics: Metrics, uploads: Path) -> None:
        """uploads: gradio's folder for uploaded files."""
        self.peers = self._peers = peers
        self._metrics = metrics
        self._uploads = uploads
        self._receiving: dict[str, int] = {}
        self._active: Callable[[str], bool] = lambda key: False
        #: How many answers of other nodes are on their way through this one.
        self.passing = 0

    def follow_page(self, active: Callable[[str], bool]) -> None:
        """active: whether the page has work under way or an answer to give for that session or job."""
        self._active = active

    def has(self, key: str) -> bool:
        """Whether what this key names is here."""
        return key in self._receiving or self._active(key)

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, page: App, caller: Caller | None
    ) -> None:
        """Answers a request for the page, here or elsewhere. caller: the node that passed it on, which nobody
        does a second time.
        """
        if not self._peers.all() and caller is None:
            await page(scope, receive, send)
            return
        path = scope["path"].removeprefix("/gradio_api")
        body: bytes | None = None
        told: Any = None
        if scope["method"] == "POST" and not is_streamed(scope):
            body = await _whole(receive)
            receive = _replay(body, receive)
            with contextlib.suppress(ValueError, RecursionError):
                told = json.loads(body)
        asked = _understand(scope, path, told)
        if not _KEY.fullmatch(asked.key):
            asked = replace(asked, key="")  # of no client's making
        if asked.key and caller is None:
            peer = await self._locate(asked)
            if peer is not None:
                try:
                    await self._pass_on(peer, asked, scope, body, receive, send)
                    return
                except PeerError:
                    pass  # nothing has been sent yet: this node does what it can
        await self._fetch_missing(path, told)
        if asked.kind == "data" and not self.has(asked.key):
            await _say_lost(send)
            return
        if asked.kind != "upload":
            await page(scope, receive, send)
            return
        self._receiving[asked.key] = self._receiving.get(asked.key, 0) + 1
        try:
            await page(scope, receive, send)
        finally:
            self._receiving[asked.key] -= 1
            if not self._receiving[asked.key]:
                del self._receiving[asked.key]

    async def _locate(self, asked: _Asked) -> Peer | None:
        """The other node that has it or is to have it; None: this one."""
        if self.has(asked.key):
            return None
        peers = {peer.name: peer for peer in self._peers.up()}
        order = ranked(asked.key, (*peers, self._peers.me))
        asking = [name for name in order if name in peers]
        if not asked.everywhere:
            asking = asking[:_ASKED]
        answers = await asyncio.gather(*(self._ask(peers[name], asked.key) for name in asking))
        said = dict(zip(asking, answers, strict=True))
        for name in asking:
            if said[name] == "here":
                return peers[name]
        if asked.starts:
            for name in order:
                if name == self._peers.me and self._peers.condition().ready:
                    return None
                if said.get(name) == "ready":
                    return peers[name]
        return None

    async def _ask(self, peer: Peer, key: str) -> str:
        """here: it has what this key names. ready: it has not, and could. no: neither, or no answer."""
        try:
            answer = await self._peers.ask(peer, "GET", f"/peer/has?key={quote(key, safe='')}")
            word = answer.json()["has"] if answer.status_code == 200 else "no"
        except (PeerError, ValueError, LookupError, TypeError):
            return "no"
        return str(word)

    # Passing a request on.

    async def _pass_on(
        self, peer: Peer, asked: _Asked, scope: Scope, body: bytes | None, receive: Receive, send: Send
    ) -> None:
        """Raises PeerError when the node cannot be reached and nothing has been said to the client yet."""
        target = scope["raw_path"].decode("ascii")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("ascii")
        content: bytes | AsyncIterator[bytes] = body or b""
        taken = _Taken()
        if body is None and scope["method"] not in ("GET", "HEAD"):
            content = _stream(receive, taken)
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in _HOP_BY_HOP and not (name == b"content-length" and isinstance(content, bytes))
        ]
        client = (scope.get("client") or ("",))[0]
        request = self._peers.request(
            peer, scope["method"], target, body=content, headers=headers, client=client, silence=_SILENCE
        )

        async def relay() -> None:
            async with request as answer:
                kept = [(n.lower(), v) for n, v in answer.headers.raw if n.lower() not in _HOP_BY_HOP]
                by = (b"x-forwarded-by", self._peers.me.encode())
                start = {"type": "http.response.start", "status": answer.status_code}
                self._metrics.forwarded.labels(asked.kind).inc()
                await send({**start, "headers": [*kept, by]})
                try:
                    async for part in answer.aiter_raw():
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                except httpx.TransportError as error:
                    self._peers.lost(peer, error)
                    if asked.kind != "data":
                        log.warning("%s went away in the middle of its answer to %s", peer.name, asked.kind)
                        return  # the client sees a broken connection, as if it had been that node's own
                    await send({"type": "http.response.body", "body": _event(_LOST), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        self.passing += 1
        try:
            await _while_there(receive, taken if isinstance(content, AsyncIterator) else None, relay())
        except PeerError:
            if not taken.any:
                raise
            # What the client sent is gone, so nobody else can be asked.
            raise NotReady(
                f"{peer.name} disconnected while receiving the request; send it again",
                zh=f"{peer.name} 在接收时断开；请重新发送",
                retry_after=1,
            ) from None
        finally:
            self.passing -= 1

    # Files that were uploaded to another node.

    async def _fetch_missing(self, path: str, told: Any) -> None:
        """Gets the files that a request names and that are on another node, as far as there are any."""
        if by_path := _BY_FILE.fullmatch(path):
            named = [by_path["path"]]
        elif told is not None and _WITH_FILES.match(path):
            named = [path for path in paths_in(told) if isinstance(path, str)][:_MOST_FILES]
        else:
            return
        for name in named:
            with contextlib.suppress(ValueError):
                relative = str(Path(name).relative_to(self._uploads))
                if is_upload(relative) and not await asyncio.to_thread(self._there, relative):
                    await self._fetch(relative)

    def _there(self, relative: str) -> bool:
        return (self._uploads / relative).is_file()

    async def _fetch(self, relative: str) -> None:
        target = f"/peer/file?path={quote(relative, safe='')}"
        for peer in self._peers.up():
            with contextlib.suppress(PeerError, TimeoutError, httpx.TransportError):
                async with asyncio.timeout(_FETCH_LIMIT), self._peers.request(peer, "GET", target) as answer:
                    if answer.status_code != 200:
                        continue
                    parts: list[bytes] = []
                    size = 0
                    async for part in answer.aiter_raw():
                        size += len(part)
                        if size > _LARGEST_FILE:
                            break
                        parts.append(part)
                    else:
                        await asyncio.to_thread(self._keep, relative, b"".join(parts))
                        return

    def _keep(self, relative: str, data: bytes) -> None:
        folder = self._uploads / relative.split("/")[0]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".fetching-{uuid.uuid4().hex}"
        temporary.write_bytes(data)
        os.replace(temporary, self._uploads / relative)

    def read_file(self, relative: str) -> bytes | None:
        """An uploaded file, for another node. None for anything that is not one."""
        if not is_upload(relative):
            return None
        try:
            handle = os.open(self._uploads / relative, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(handle, "rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError:
            return None
        return data if len(data) <= _LARGEST_FILE else None


def _understand(scope: Scope, path: str, told: Any) -> _Asked:
    query = parse_qs(scope["query_string"].decode("latin-1"))

    def parameter(name: str) -> str:
        return query.get(name, [""])[0]

    session = told.get("session_hash") if isinstance(told, dict) else None
    if scope["method"] == "POST" and (found := _BY_BODY.fullmatch(path)):
        kind = found["kind"]
        # Without a session a job is its own, and lives where it is begun.
        return _Asked(kind, session if isinstance(session, str) else "", starts=kind != "cancel")
    if path == "/queue/data":
        return _Asked("data", parameter("session_hash"))
    if path == "/upload":
        return _Asked("upload", parameter("upload_id"), starts=True)
    if path == "/upload_progress":
        # It is asked for beside the upload, and may be there first.
        return _Asked("upload_progress", parameter("upload_id"), starts=True)
    if found := _BY_JOB.fullmatch(path):
        return _Asked("call", found["call"] or found["stream"], everywhere=True)
    if found := _BY_SESSION.fullmatch(path):
        return _Asked("stream", found["key"])
    return _Asked("page")


def is_streamed(scope: Scope) -> bool:
    """Whether this is a request whose body is passed on as it comes, and therefore not signed."""
    return scope["method"] == "POST" and scope["path"] == "/gradio_api/upload"


async def check_body(caller: Caller, scope: Scope, receive: Receive) -> Receive:
    """`receive` for a request from a node, once its body is known to be what was signed. Raises Forbidden
    when it is not.
    """
    if caller.body == STREAMED and is_streamed(scope):
        return receive
    body = await _whole(receive)
    if hashlib.sha256(body).hexdigest() != caller.body:
        raise Forbidden("the request body does not match its signature", zh="请求正文与签名不符")
    return _replay(body, receive)


async def _whole(receive: Receive) -> bytes:
    """The body. Raises what `receive` raises for one that is too large or too slow."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


class _Taken:
    """How far the body of a request that is passed on has been read."""

    def __init__(self) -> None:
        self.any = False
        self.complete = asyncio.Event()


async def _stream(receive: Receive, taken: _Taken) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        taken.any = True
        if message["type"] == "http.disconnect":
            raise PeerError("the client went away while it sent")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            taken.complete.set()
            return


async def _while_there(receive: Receive, taken: _Taken | None, work: Any) -> None:
    """Runs `work` until it ends or the client is gone. taken: the body is being read elsewhere."""

    async def gone() -> None:
        if taken is not None:
            await taken.complete.wait()
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


async def _say_lost(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _event(_LOST), "more_body": False})


def _event(told: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(told)}\n\n".encode()


def is_upload(relative: str) -> bool:
    """Whether gradio names an uploaded file so, below its folder."""
    return bool(_UPLOADED.fullmatch(relative)) and relative.split("/")[1] not in (".", "..")


def paths_in(told: Any) -> Iterator[Any]:
    """What stands where the path of a file does, anywhere in a request's data."""
    rest = [told]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)
