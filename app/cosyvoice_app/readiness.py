"""Whether this node may get traffic, and why not."""

from __future__ import annotations

import time
from collections.abc import Callable


class Readiness:
    """`warming` until nothing blocks for the first time, then `ready` or `failed`, and `draining` at the end.

    It is about this node alone. What all nodes have in common (the share) must not enter: it would empty the
    pool.
    """

    def __init__(self, on_change: Callable[[str, str], None] = lambda state, reason: None) -> None:
        """on_change: called with state and reason when either changes."""
        self._blocks: dict[str, str] = {}
        self._was_ready = False
        self._draining = False
        self._on_change = on_change
        self._told = ("", "")
        self.since = time.time()

    @property
    def state(self) -> str:
        if self._draining:
            return "draining"
        if not self._blocks:
            return "ready"
        return "failed" if self._was_ready else "warming"

    @property
    def reason(self) -> str:
        if self._draining:
            return "this node is about to stop"
        return "; ".join(self._blocks.values())

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    def block(self, part: str, reason: str) -> None:
        self._blocks[part] = reason
        self._tell()

    def clear(self, part: str) -> None:
        self._blocks.pop(part, None)
        self._tell()

    def drain(self) -> None:
        """There is no way back from it: the process ends."""
        self._draining = True
        self._tell()

    def _tell(self) -> None:
        now = (self.state, self.reason)
        if now == self._told:
            return
        if now[0] != self._told[0]:
            self.since = time.time()
        self._was_ready = self._was_ready or now[0] == "ready"
        self._told = now
        self._on_change(*now)
