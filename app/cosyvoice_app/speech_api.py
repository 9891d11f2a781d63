"""The HTTP API of speech and voices: text in, audio out, in the shape of OpenAI's; cloning; saved voices."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from .disconnect import next_of, until_gone, while_there
from .engines import Prompt, SpeechRequest, mode_for
from .errors import BadRequest, OutputsUnavailable
from .formats import MEDIA_TYPES, Encodings, StreamEncoder, check_format
from .history import owner_of
from .prompts import MAX_BYTES, read_prompt
from .speech import MAX_SEED, MAX_SPEED, MIN_SEED, MIN_SPEED, SpeechService
from .wav import Audio

#: Largest body of a request that brings a recording, in bytes: the recording, its words, and the form around.
MAX_UPLOAD = MAX_BYTES + (1 << 20)
#: Where such requests go.
UPLOAD_PATHS = ("/v1/audio/clone", "/v1/voices", "/gradio_api/upload")

_SAVED = re.compile(r"[0-9a-f]{32}")
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The audio."}
}
_FORMATS = ", ".join(MEDIA_TYPES)


class SpeechBody(BaseModel):
    """Fields that OpenAI's API has and this one does not are taken and have no effect."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="cosyvoice3", max_length=200, description="Any name: a node serves one model.")
    input: str = Field(description="The text to say.")
    voice: str = Field(default="auto", max_length=200, description="One of GET /v1/voices, by its id.")
    response_format: str = Field(default="wav", max_length=20, description=_FORMATS)
    speed: float = Field(default=1.0, description=f"{MIN_SPEED} to {MAX_SPEED}; 1 is normal.")
    seed: int = Field(default=1, description=f"{MIN_SEED} to {MAX_SEED}; same seed, same audio.")
    instructions: str = Field(
        default="",
        max_length=2000,
        description="How to say it: an id of GET /v1/instructions, or words. An engine that does not "
        "understand words ignores them.",
    )
    stream: bool = Field(default=False, description="Send the audio while it is being synthesized.")


def add_speech_routes(api: FastAPI, service: SpeechService) -> None:
    """Adds the routes to the API."""
    encodings = Encodings()

    @api.post("/v1/audio/speech", summary="Speech from text", response_class=Response, responses=_AUDIO)
    async def speech(body: SpeechBody, request: Request) -> Response:
        format = check_format(body.response_format)
        prompt, words = await _saved(service, body.voice, owner_of(request.headers))
        instruct = _understood(service, body.instructions)
        wanted = service.check(
            text=body.input,
            voice="auto" if prompt else body.voice,
            speed=body.speed,
            seed=body.seed,
            mode=mode_for(instruct=instruct, recorded=False, words=words),
            prompt=prompt,
            prompt_text=words,
            instruct=instruct,
        )
        return await _answer(service, encodings, request, wanted, format, body.stream)

    @api.post(
        "/v1/audio/clone",
        summary="Speech in the voice of a recording",
        response_class=Response,
        responses=_AUDIO,
    )
    async def clone(
        request: Request,
        prompt: Annotated[UploadFile, File(description="3 to 10 s of one voice: WAV, FLAC, MP3 or Ogg.")],
        input: Annotated[str, Form(description="The text to say.")],
        prompt_text: Annotated[
            str, Form(description="The words spoken in the recording. Without them only its sound is used.")
        ] = "",
        mode: Annotated[
            Literal["", "clone", "cross_lingual", "instruct"],
            Form(description="If not given, it follows from `instructions` and `prompt_text`."),
        ] = "",
        instructions: Annotated[str, Form(description="As in POST /v1/audio/speech.")] = "",
        speed: Annotated[float, Form()] = 1.0,
        seed: Annotated[int, Form()] = 1,
        response_format: Annotated[str, Form(description=_FORMATS)] = "wav",
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        format = check_format(response_format)
        read = await until_gone(request, read_prompt(await prompt.read(), name=prompt.filename or ""))
        wanted = service.check(
            text=input,
            voice="auto",
            speed=speed,
            seed=seed,
            mode=mode or mode_for(instruct=instructions, recorded=True, words=prompt_text),
            prompt=read,
            prompt_text=prompt_text,
            instruct=instructions,
        )
        return await _answer(service, encodings, request, wanted, format, stream)

    @api.get("/v1/instructions", summary="The instructions that tell a voice how to speak")
    async def instructions() -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {"id": p.id, "group": p.group, "name": p.english, "name_zh": p.chinese}
                for p in service.engine.instructs
            ],
        }

    @api.get("/v1/voices", summary="The engine's voices, and saved ones: the caller's and shared ones")
    async def voices(request: Request) -> dict[str, Any]:
        owner = owner_of(request.headers)
        own = [
            {"id": v.id, "name": v.english, "name_zh": v.chinese, "aliases": list(v.aliases), "saved": False}
            for v in service.engine.voices
        ]
        try:
            saved = [{**voice.as_json(owner), "saved": True} for voice in await service.voices.list(owner)]
        except OutputsUnavailable:
            saved = []  # the engine's can be used all the same
        return {"object": "list", "data": own + saved}

    @api.post("/v1/voices", summary="Save the voice of a recording", status_code=201)
    async def save(
        request: Request,
        prompt: Annotated[UploadFile, File(description="As in POST /v1/audio/clone.")],
        name: Annotated[str, Form()],
        prompt_text: Annotated[str, Form(description="The words of the recording.")] = "",
        shared: Annotated[bool, Form(description="Whether others may speak with it.")] = False,
    ) -> dict[str, Any]:
        owner = _need_owner(request)
        read = await until_gone(request, read_prompt(await prompt.read(), name=prompt.filename or ""))
        return (await service.voices.save(name, read, prompt_text, owner, shared=shared)).as_json(owner)

    @api.delete("/v1/voices/{id}", summary="Remove one of the caller's own voices", status_code=204)
    async def remove(id: str, request: Request) -> Response:
        await service.voices.remove(id, _need_owner(request))
        return Response(status_code=204)


def _need_owner(request: Request) -> str:
    """Who sends this. Raises BadRequest when nobody can tell."""
    owner = owner_of(request.headers)
    if not owner:
        raise BadRequest(
            "a saved voice needs an owner, but this request identifies nobody: open the page once "
            "and send its cookie, or send 'Authorization: Bearer KEY' with a key of 20 characters or more "
            "that only you know",
            zh="保存的声音需要有所有者，但请求中没有身份信息：请先打开一次页面并带上它的 cookie，"
            "或发送 'Authorization: Bearer KEY'（KEY 为只有您知道的、至少 20 个字符的密钥）",
        )
    return owner


async def _saved(service: SpeechService, voice: str, owner: str) -> tuple[Prompt | None, str]:
    """Recording and words of a saved voice; None for one of the engine's. Raises NotFound."""
    if not _SAVED.fullmatch(voice):
        return None, ""
    return await service.saved_voice(voice, owner)


def _understood(service: SpeechService, instructions: str) -> str:
    """What the engine is told. A client of OpenAI's API may send words to one that knows presets only."""
    wanted = instructions.strip()
    return wanted if service.engine.understands_words or service.engine.preset(wanted) else ""


async def _answer(
    service: SpeechService,
    encodings: Encodings,
    request: Request,
    wanted: SpeechRequest,
    format: str,
    stream: bool,
) -> Response:
    """The audio of a request, whole or while it is being made."""
    fresh = "no-cache" in request.headers.get("cache-control", "").lower()
    owner = owner_of(request.headers)
    request_id = request.headers.get("x-request-id", "")
    if stream:
        pieces = service.stream(wanted, use_cache=not fresh, request_id=request_id)
        name = service.name(wanted)
        # Whatever can be wrong is nearly always known by then, and told by the status.
        first = await until_gone(request, next_of(pieces))
        if first is None:
            return Response(b"", media_type=MEDIA_TYPES[format], headers=_headers(name, format))
        await service.history.add(owner, name)
        body = _encoded(request, first, pieces, format)
        return StreamingResponse(body, media_type=MEDIA_TYPES[format], headers=_headers(name, format))
    made = await until_gone(request, service.speak(wanted, use_cache=not fresh, request_id=request_id))
    await service.history.add(owner, made.name)
    encoded = await encodings.get(made.data, format)
    headers = {
        **_headers(made.name, format),
        "X-Result-Voice": quote(made.voice),  # a model may have voices with Chinese names
        "X-Result-Seconds": f"{made.seconds:.3f}",
        "X-Cache": "hit" if made.cached else "miss",
    }
    return Response(encoded.data, media_type=encoded.media_type, headers=headers)


def _headers(name: str, format: str) -> dict[str, str]:
    return {
        "X-Result-Name": name,
        "Cache-Control": "no-store",
        "Content-Disposition": f'inline; filename="{name.removesuffix(".wav")}.{format}"',
    }


async def _encoded(
    request: Request, first: Audio, pieces: AsyncGenerator[Audio, None], format: str
) -> AsyncIterator[bytes]:
    """The bytes of a stream. One whose client has gone ends, and its work with it."""
    async with aclosing(pieces):
        encoder = await asyncio.to_thread(StreamEncoder, format, first.rate)
        if data := await asyncio.to_thread(encoder.feed, first):
            yield data
        async for piece in while_there(request, pieces):
            if data := await asyncio.to_thread(encoder.feed, piece):
                yield data
    yield await asyncio.to_thread(encoder.finish)
