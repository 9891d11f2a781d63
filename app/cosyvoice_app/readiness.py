"""Whether this node may get traffic, and why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


class Readiness:
    """`warming` until nothing blocks for the first time, then `ready` or `failed`; `draining` at the end, and
    for as long as the drain file is there, by which an operator or a deployment takes the node out of the
    pool.

    It is about this node alone. What all nodes have in common (the share) must not enter: it would empty the
    pool.
    """

    def __init__(
        self,
        on_change: Callable[[str, str], None] = lambda state, reason: None,
        drain_file: Path | None = None,
    ) -> None:
        """on_change: called with state and reason when either changes."""
        self._drain_file = drain_file
        self._blocks: dict[str, str] = {}
        self._was_ready = False
        self._draining = False
        self._leaving_until = 0.0
        self._on_change = on_change
        self._told = ("", "")
        self.since = time.time()

    @property
    def state(self) -> str:
        if self._draining:
            return "draining"
        if self._blocks:
            return "failed" if self._was_ready else "warming"
        return "ready" if self._held is None else "draining"

    @property
    def reason(self) -> str:
        if self._draining:
            return "this node is about to stop"
        return "; ".join(self._blocks.values()) or self._held or ""

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def able(self) -> bool:
        """Whether nothing but a drain that somebody asked for keeps traffic away."""
        return not self._blocks and not self._draining

    @property
    def draining(self) -> bool:
        return self.state == "draining"

    @property
    def closing(self) -> bool:
        """Whether an answer ends its connection: the next request of a kept one would come here past any
        balancer, or be lost when the directors have forgotten this node.
        """
        return self.draining or time.monotonic() < self._leaving_until

    def leave(self) -> None:
        """A director is about to forget this node, and says so again every few seconds until it does."""
        self._leaving_until = time.monotonic() + 10

    @property
    def _held(self) -> str | None:
        """What the drain file says; None without one."""
        if self._drain_file is None:
            return None
        try:
            return self._drain_file.read_text("utf-8", "replace").strip()[:500] or "a drain was asked for"
        except OSError:
            return None

    def refresh(self) -> None:
        """Looks at the drain file, which changes without a word."""
        self._tell()

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
