"""The line in front of the engine: first come, first served, and whoever waits may be called elsewhere."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar


class Turn(Protocol):
    """The right to let one engine speak once, here or on another node."""

    def release(self) -> None:
        """Gives it back, used or not; once more does nothing."""


T = TypeVar("T", bound=Turn)


class Line(Generic[T]):
    """Who waits for the one engine of this node, in order.

    Only the jobs of this node's users are counted, not the places that are kept for other nodes. A job that
    is `movable` also takes a turn of type T that another node gives.
    """

    def __init__(self, joined: Callable[[], None] = lambda: None) -> None:
        """joined: called when a movable one begins to wait."""
        self._held = False
        self._waiters: deque[_Waiter] = deque()
        self.joined = joined

    @property
    def held(self) -> bool:
        """Whether somebody has this node's turn."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(waiter.job for waiter in self._waiters)

    @property
    def movable(self) -> int:
        """How many of them may go to another node."""
        return sum(waiter.movable for waiter in self._waiters)

    def place(self, ticket: object) -> int | None:
        """How many jobs stand before the one with this ticket; None when it does not wait."""
        before = 0
        for waiter in self._waiters:
            if waiter.ticket is ticket:
                return before
            before += waiter.job
        return None

    async def turn(
        self, *, job: bool = False, movable: bool = False, first: bool = False, ticket: object = None
    ) -> HomeTurn | T:
        """Waits until it is one's turn. first: before all who wait. Cancelling leaves the line."""
        # One whose task was cancelled a moment ago is still in the line, and nobody will call it.
        if not self._held and all(waiter.called.done() for waiter in self._waiters):
            self._held = True
            return HomeTurn(self)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), job, movable, ticket)
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        if movable:
            self.joined()
        try:
            turn: HomeTurn | T = await waiter.called
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.called.cancelled():
                waiter.called.result().release()  # called and cancelled in the same moment
            raise
        return turn

    def give(self, turn: T) -> bool:
        """Gives a turn of another node to the movable one that waits longest. False: nobody waits."""
        return self._call(turn, movable_only=True)

    def pass_on(self) -> None:
        """Called by the turn that ends."""
        self._held = self._call(HomeTurn(self))

    def _call(self, turn: Any, movable_only: bool = False) -> bool:
        for waiter in self._waiters:
            if not waiter.called.done() and (waiter.movable or not movable_only):
                self._waiters.remove(waiter)
                waiter.called.set_result(turn)
                return True
        return False


class HomeTurn:
    """This node's own turn."""

    def __init__(self, line: Line[Any]) -> None:
        self._line: Line[Any] | None = line

    def release(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.pass_on()


class _Waiter:
    def __init__(self, called: asyncio.Future[Any], job: bool, movable: bool, ticket: object) -> None:
        self.called = called
        self.job = job
        self.movable = movable
        self.ticket = ticket
