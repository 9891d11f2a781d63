"""The HTTP API: health, speech in the shape of OpenAI's, results, metrics; and the door in front of API and
page.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from . import __version__
from .errors import (
    BadRequest,
    Draining,
    Forbidden,
    NotFound,
    NotReady,
    ServiceError,
    SlowRequest,
    TooLarge,
    speaks_chinese,
)
from .history import owner_of
from .metrics import CONTENT_TYPE, Metrics
from .peers import HEADER, Caller, Peers, Watched, read_addresses
from .readiness import Readiness
from .sessions import Sessions, check_body
from .settings import Settings
from .speech import SpeechService
from .speech_api import MAX_UPLOAD, UPLOAD_PATHS, add_speech_routes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

T = TypeVar("T")

#: Largest request body in bytes: the longest text, every character escaped, has room.
MAX_BODY = 1 << 20
#: Largest body between nodes, in bytes: a job may bring a recording, in base64.
MAX_PEER_BODY = 8 << 20
#: A request body that takes longer, in seconds, is refused.
BODY_TIME_LIMIT = 30.0
#: How long, in seconds, a request for the page waits while the page is being loaded.
PAGE_WAIT = 60.0


class _Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class _Failure(BaseModel):
    """What every answer other than success has in it."""

    error: _Error


_FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": _Failure, "description": "What is wrong with the request, and what to do."},
    "5XX": {"model": _Failure, "description": "What is wrong with the service."},
}


def create_api(settings: Settings, service: SpeechService, readiness: Readiness, metrics: Metrics) -> FastAPI:
    """The API as an ASGI app. Its interactive documentation is off: that page loads from outside."""
    api = FastAPI(
        title="cosyvoice-lvs speech service",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        responses=_FAILURES,
    )

    @api.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        return error_response(error, _languages(request))

    @api.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return error_response(_explain(error), _languages(request))

    @api.exception_handler(StarletteHTTPException)
    async def on_http_error(request: Request, error: StarletteHTTPException) -> Response:
        if isinstance(error, _Refused):
            return error_response(error.reason, _languages(request))
        problem = NotFound if error.status_code == 404 else BadRequest
        what = f"{request.method} {request.url.path[:200]}"
        said = _DETAILS_ZH.get(error.status_code, error.detail)
        shaped = problem(f"{what}: {_DETAILS.get(error.status_code, error.detail)}", zh=f"{what}：{said}")
        body = shaped.body(speaks_chinese(_languages(request)))
        return JSONResponse(body, error.status_code, headers=error.headers)

    directors = Watched(settings.directors, read_addresses, frozenset())

    @api.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "alive", "node": settings.node}

    @api.get(
        "/readyz",
        summary="200: send traffic here; 503: do not send any, with the reason",
        responses={503: {"description": "The same, of a node that is not ready."}},
    )
    async def readyz(request: Request) -> Response:
        # From anybody else it would be a way to have all connections made anew for each request.
        if "x-leaving" in request.headers and request.client and request.client.host in directors.value:
            readiness.leave()
        problem = service.outputs.problem
        readiness.refresh()
        running = int(service.running)
        body = {
            "state": readiness.state,
            "reason": readiness.reason,
            "since": round(readiness.since, 3),
            "node": settings.node,
            "engine": settings.engine,
            "queue": {"waiting": service.waiting, "running": running, "limit": settings.waiting_room},
            # All nodes share the outputs: what is wrong with them degrades answers and leaves the node in the
            # pool.
            "outputs": f"degraded: {problem}" if problem else "ok",
        }
        # The directors weigh nodes by it, and read no further than the headers.
        headers = {"X-Queue": str(service.waiting + running)}
        return JSONResponse(body, 200 if readiness.ready else 503, headers)

    @api.get("/metrics", summary="For Prometheus", include_in_schema=False)
    async def scrape() -> Response:
        metrics.ready.set(readiness.ready)
        metrics.outputs_up.set(service.outputs.problem is None)
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    add_speech_routes(api, service)

    @api.get("/v1/models", summary="What this node serves")
    async def models() -> dict[str, Any]:
        return {
            "object": "list",
            "data": [{"id": "cosyvoice3", "object": "model", "created": 0, "owned_by": settings.engine}],
        }

    @api.get("/v1/results", summary="The newest results of all nodes: the caller's own, or all where shared")
    async def results(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> dict[str, Any]:
        found = await service.history.recent(owner_of(request.headers), limit)
        return {"object": "list", "data": [r.as_json() for r in found]}

    @api.get("/v1/history", summary="The caller's own newest results, from all nodes")
    async def history(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> dict[str, Any]:
        found = await service.history.latest(owner_of(request.headers), limit)
        return {"object": "list", "data": [r.as_json() for r in found]}

    @api.delete("/v1/history/{name}", summary="Forget one of the caller's own results", status_code=204)
    async def forget(name: str, request: Request) -> Response:
        await service.history.remove(owner_of(request.headers), name)
        return Response(status_code=204)

    @api.get(
        "/v1/results/{name}",
        summary="The audio of a result",
        response_class=Response,
        responses={200: {"content": {"audio/wav": {}}, "description": "The audio."}},
    )
    async def result(name: str, request: Request) -> Response:
        return file_response(name, await service.outputs.read(name), request)

    return api


def error_response(error: ServiceError, languages: str = "") -> Response:
    """languages: the request's Accept-Language, which decides between English and Chinese."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(error.body(speaks_chinese(languages)), error.status, headers=headers)


def _languages(request: Request) -> str:
    return request.headers.get("accept-language", "")


def _explain(error: RequestValidationError) -> BadRequest:
    """The first few findings in one message, each with the field and the value received."""
    findings = []
    findings_zh = []
    param = None
    for item in error.errors()[:5]:
        where = ".".join(str(part) for part in item["loc"] if part not in ("body", "query", "path"))
        if item["type"] == "json_invalid":
            said = item.get("ctx", {}).get("error", item["msg"])
            findings.append(f"the body is not JSON: {said}")
            findings_zh.append(f"请求正文不是 JSON：{said}")
            continue
        param = param or where or None
        got = item.get("input")
        value = repr(str(got)[:60])
        if item["type"] == "missing":
            findings.append(f"{where or 'the body'}: {item['msg']}")
            findings_zh.append(f"{where or '请求正文'}：必须填写")
            continue
        if not where and isinstance(got, bytes):
            # FastAPI reads no JSON that is not said to be JSON, and curl says that it sends a form.
            findings.append("the body is not declared as JSON; send 'Content-Type: application/json'")
            findings_zh.append("请求未声明正文是 JSON；请发送 'Content-Type: application/json'")
            continue
        known, demand = _DEMANDS_ZH.get(item["type"], "无效"), item["msg"]
        if item["type"] == "value_error" and "UploadFile" in demand:
            known, demand = "必须是文件（须带文件名）", "Input should be a file, sent with a name"
        findings.append(f"{where or 'the body'}: {demand} (got {value})")
        findings_zh.append(f"{where or '请求正文'}：{known.format_map(item.get('ctx', {}))}（收到 {value}）")
    return BadRequest("; ".join(findings), zh="；".join(findings_zh), param=param)


# What a field must be, by pydantic's name of the finding.
_DEMANDS_ZH = {
    "string_type": "必须是字符串",
    "string_unicode": "不是有效的 Unicode",
    "string_too_long": "最多 {max_length} 个字符",
    "float_type": "必须是数字",
    "float_parsing": "必须是数字",
    "int_type": "必须是整数",
    "int_parsing": "必须是整数",
    "int_parsing_size": "数字过大",
    "finite_number": "必须是有限的数",
    "int_from_float": "必须是整数",
    "bool_type": "必须是 true 或 false",
    "bool_parsing": "必须是 true 或 false",
    "greater_than_equal": "不能小于 {ge}",
    "less_than_equal": "不能大于 {le}",
    "literal_error": "必须是以下之一：{expected}",
    "model_attributes_type": "必须是 JSON 对象",
}
# By status, what FastAPI says otherwise: 400 is a body that it cannot take apart.
_DETAILS = {400: "the body cannot be read; send JSON in UTF-8, or a form of fewer and smaller parts"}
_DETAILS_ZH = {
    400: "无法读取请求正文；请发送 UTF-8 的 JSON，或字段更少、更小的表单",
    404: "没有这个地址",
    405: "这个地址不支持该方法",
}


def file_response(name: str, data: bytes, request: Request) -> Response:
    """Audio bytes, whole or the one range asked for (players seek by ranges, and Safari plays nothing
    without).
    """
    headers = {
        "Accept-Ranges": "bytes",
        # The name is the hash of what determines the audio.
        "Cache-Control": "private, max-age=86400, immutable",
        "ETag": f'"{name}"',
        "Content-Disposition": f'inline; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    asked = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", request.headers.get("range", "").strip())
    if asked and (asked[1] or asked[2]):
        size = len(data)
        first = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        last = min(int(asked[2]), size - 1) if asked[1] and asked[2] else size - 1
        if first > last:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Response(data[first : last + 1], 206, headers, "audio/wav")
    return Response(data, 200, headers, "audio/wav")


# gradio's client asks a page for each file by the address that the page gave for it.
_RESULT_BY_ADDRESS = re.compile(r"/gradio_api/file=https?:/+[^/]+(/v1/results/[0-9a-f]{32}\.wav)")


# What gradio has for its developers and for what this page has not: each open `dev/reload` wakes the event
# loop twenty times a second, a deep link keeps a session's inputs on the disk, a proxy asks elsewhere.
_NOT_OF_THE_PAGE = re.compile(
    r"(?:/gradio_api)?/(?:dev/|vibe-|deep_link|proxy=|component_server|monitoring|login(?:/|$)|openapi\.json)"
)


# Where `Callers` puts the node that a request comes from.
_CALLER = "cosyvoice.caller"


class Callers:
    """The outermost ASGI app: knows the requests of other nodes by their signature, and for whom they are."""

    def __init__(self, app: App, peers: Peers | None) -> None:
        self._app = app
        self._peers = peers

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            caller = self._verified(scope)
            kept = [(name, value) for name, value in scope["headers"] if name != HEADER]
            scope = {**scope, "headers": kept, _CALLER: caller}
            if caller is not None and caller.client:
                scope["client"] = (caller.client, 0)
        await self._app(scope, receive, send)

    def _verified(self, scope: MutableMapping[str, Any]) -> Caller | None:
        """The node that this request comes from; None: it is a client's."""
        headers = dict(scope["headers"])
        if self._peers is None or HEADER not in headers:
            return None
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        return self._peers.verify(headers, scope["method"], target.decode("latin-1"))


class Front:
    """Behind `Callers`: a name on every answer, limits on every body, API or page by path.

    It passes messages through as they come, so that event streams are not held back.
    """

    #: Paths of the API; all others are the page's.
    API_PATHS = ("/healthz", "/readyz", "/metrics", "/v1/")
    #: Paths that only other nodes may ask for.
    PEER_PATHS = "/peer/"

    def __init__(
        self,
        settings: Settings,
        readiness: Readiness,
        api: App,
        sessions: Sessions | None = None,
        peer_api: App | None = None,
    ) -> None:
        """sessions, peer_api: what stands between this node and the others. Default: it is alone."""
        self._node = settings.node.encode()
        self._readiness = readiness
        self._api = api
        self._sessions = sessions
        self._peer_api = peer_api
        self._page: asyncio.Future[App] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()

    def open_page(self, page: App) -> None:
        """From now on requests for the page go there."""
        self._page.set_result(page)

    @property
    def page_open(self) -> bool:
        return self._page.done()

    def end_streams(self) -> None:
        """Ends the event streams of open pages, which would last for as long as the pages do."""
        self._ending.set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Neither API nor page speaks WebSocket, and the life of both is looked after in main.py.
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", request_id):
            request_id = uuid.uuid4().hex[:16].encode()
        caller: Caller | None = scope.get(_CALLER)
        kept = [(n, v) for n, v in scope["headers"] if n != b"x-request-id"]
        scope = {**scope, "headers": [*kept, (b"x-request-id", request_id)]}

        begun = False

        async def send_named(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                said = list(message.get("headers", ()))
                there = {name for name, _ in said}
                names = ((b"x-served-by", self._node), (b"x-request-id", request_id))
                message["headers"] = [
                    *said,
                    *(header for header in names if header[0] not in there),  # another node may have answered
                    *(((b"connection", b"close"),) if self._readiness.closing else ()),
                ]
            await send(message)

        languages = headers.get(b"accept-language", b"").decode("latin-1")
        upload = scope["method"] == "POST" and scope["path"] in UPLOAD_PATHS
        most = MAX_UPLOAD if upload else MAX_PEER_BODY if caller is not None else MAX_BODY
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            await error_response(_too_large(int(length), most), languages)(scope, receive, send_named)
            return
        receive = limited(receive, most)
        try:
            await self._answer(scope, receive, send_named, caller)
        except _Refused as error:
            await error_response(error.reason, languages)(scope, receive, send_named)
        except ServiceError as error:
            await error_response(error, languages)(scope, receive, send_named)
        except asyncio.CancelledError:
            # The service ends, and has waited for as long as it may (main.py). Unanswered, the client would
            # be told that the server is at fault.
            if begun:
                raise
            stopped = Draining(
                "this node had to stop before it could finish; send the request again",
                zh="本节点在完成之前必须停止；请重新提交",
                retry_after=1,
            )
            await error_response(stopped, languages)(scope, receive, send_named)

    async def _answer(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, caller: Caller | None
    ) -> None:
        if caller is not None:
            receive = await check_body(caller, scope, receive)
        target: App = self._api
        if scope["path"].startswith(self.PEER_PATHS):
            if caller is None or self._peer_api is None:
                raise Forbidden(
                    "this address is only for the other nodes of the cluster, which sign their requests",
                    zh="此地址仅供集群中的其他节点使用，请求须有签名",
                )
            await self._peer_api(scope, receive, send)
            return
        if by_address := _RESULT_BY_ADDRESS.fullmatch(scope["path"]):
            scope = {**scope, "path": by_address[1], "raw_path": by_address[1].encode()}
        if not scope["path"].startswith(self.API_PATHS):
            if _NOT_OF_THE_PAGE.match(scope["path"]):
                what = f"{scope['method']} {scope['path'][:200]}"
                raise NotFound(f"{what}: Not Found", zh=f"{what}：{_DETAILS_ZH[404]}")
            try:
                target = await asyncio.wait_for(asyncio.shield(self._page), PAGE_WAIT)
            except TimeoutError:
                raise NotReady(
                    "the page is still loading; try again", zh="页面仍在加载；请稍后再试", retry_after=5
                ) from None
            if self._sessions is None:
                answering = target(scope, receive, send)
            else:
                answering = self._sessions.serve(scope, receive, send, target, caller)
            await self._until_the_end(answering, send)
            return
        await target(scope, receive, send)

    async def _until_the_end(self, answering: Awaitable[None], send: Send) -> None:
        """Runs a request of the page; when the service ends meanwhile, completes the answer as it stands."""
        answer = asyncio.ensure_future(answering)
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({answer, ending}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
                return
        finally:
            for task in (answer, ending):
                task.cancel()
        await asyncio.wait({answer}, timeout=1)
        with contextlib.suppress(Exception):  # no answer was begun, or the client is gone
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Refused(StarletteHTTPException):
    """A ServiceError on its way through FastAPI, which lets nothing else out of where it reads a body."""

    def __init__(self, reason: ServiceError) -> None:
        super().__init__(reason.status, reason.message)
        self.reason = reason


def limited(receive: Receive, most: int = MAX_BODY) -> Receive:
    """`receive` that refuses a body which is too large or too slow, by an HTTPException into the app.

    most: bytes.
    """
    size = 0
    complete = False
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BODY_TIME_LIMIT

    async def receive_limited() -> Message:
        nonlocal size, complete
        if complete:  # what follows is the wait for the client to go, which may be long
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise _Refused(
                SlowRequest(
                    f"the request body did not arrive within {BODY_TIME_LIMIT:g} s",
                    zh=f"请求正文没有在 {BODY_TIME_LIMIT:g} 秒内传完",
                )
            ) from None
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > most:
                raise _Refused(_too_large(size, most))
        return message

    return receive_limited


def _too_large(size: int, most: int) -> TooLarge:
    return TooLarge(
        f"the request body is {size} bytes long or more; at most {most} are accepted",
        zh=f"请求正文至少有 {size} 字节；最多 {most} 字节",
    )
