"""Work for a client that may go away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from .errors import NotReady

T = TypeVar("T")


class Gone(NotReady):
    """The client went away. Nobody will read it."""


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away meanwhile. Raises Gone then."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=0.5))[0]:
            if await request.is_disconnected():
                raise Gone("the client went away", zh="客户端已断开")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def while_there(request: Request, pieces: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """The pieces, until the client goes away: then they end, and their work with them. Whoever uses it closes
    `pieces`.
    """
    while True:
        try:
            piece = await until_gone(request, next_of(pieces))
        except Gone:
            return
        if piece is None:
            return
        yield piece


async def next_of(pieces: AsyncIterator[T]) -> T | None:
    """The next piece; None after the last."""
    return await anext(pieces, None)
