"""What other nodes may ask this one. The door lets nobody else in, and no description of the API names it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from .disconnect import next_of, until_gone, while_there
from .engines import SpeechRequest
from .errors import NotFound, NotReady, ServiceError
from .handover import PIECES, from_json, write_pieces
from .http import error_response
from .sessions import Sessions
from .speech import SpeechService
from .wav import Audio


def create_peer_api(service: SpeechService, sessions: Sessions) -> FastAPI:
    """The routes between nodes as an ASGI app."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @api.exception_handler(ServiceError)
    async def on_service_error(request: Request, error: ServiceError) -> Response:
        return error_response(error)

    @api.get("/peer/condition")
    async def condition() -> dict[str, Any]:
        return service.condition().as_json()

    @api.get("/peer/has")
    async def has(key: Annotated[str, Query(max_length=500)]) -> dict[str, str]:
        if sessions.has(key):
            return {"has": "here"}
        return {"has": "ready" if service.condition().ready else "no"}

    @api.get("/peer/file")
    def file(path: Annotated[str, Query(max_length=500)]) -> Response:
        data = sessions.read_file(path)
        if data is None:
            raise NotFound("there is no such upload here", zh="本节点没有这个上传的文件")
        return Response(data, media_type="application/octet-stream")

    @api.post("/peer/turn")
    async def turn(request: Request) -> dict[str, Any]:
        token = await until_gone(request, service.turns.wait())
        return {"turn": token, "condition": service.condition().as_json()}

    @api.post("/peer/release")
    async def release(turn: str) -> Response:
        service.turns.release(turn)
        return JSONResponse({})

    @api.post("/peer/speak")
    async def speak(
        request: Request,
        turn: Annotated[str, Body()],
        name: Annotated[str, Body()],
        job: Annotated[dict[str, Any], Body(alias="request")],
        stream: Annotated[bool, Body()] = False,
    ) -> Response:
        held = service.turns.take(turn)
        if held is None:
            raise NotReady("the turn was not used in time", zh="未在规定时间内使用该轮次")
        try:
            wanted = from_json(SpeechRequest, job)
        except BaseException:
            held.release()
            raise
        if stream:
            pieces = service.stream_for(wanted, held, name=name)
            # What fails before anything is to be heard is told by the status, and the job goes back.
            try:
                first = await until_gone(request, next_of(pieces))
            except BaseException:
                held.release()
                raise
            return StreamingResponse(write_pieces(_all(first, request, pieces)), media_type=PIECES)
        made = await until_gone(request, service.speak_for(wanted, held, name=name))
        return Response(made.data, media_type="audio/wav")

    return api


async def _all(
    first: Audio | None, request: Request, pieces: AsyncGenerator[Audio, None]
) -> AsyncIterator[Audio]:
    async with aclosing(pieces):
        if first is not None:
            yield first
        async for piece in while_there(request, pieces):
            yield piece
