"""What an engine is: text in, audio out, one at a time, and it can be stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from ..wav import Audio


@dataclass(frozen=True)
class Voice:
    """A voice that users may choose. aliases: other names that the API takes for it."""

    id: str
    english: str
    chinese: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeechRequest:
    """What a user asked for, checked. speed: 1 is normal. seed: the same seed gives the same audio."""

    text: str
    voice: str = "auto"
    speed: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Plan:
    """How an engine will serve a request.

    parameters: all that determines the audio and nothing else; JSON types only. Its hash names the result.
    """

    parameters: dict[str, Any]


class Engine(ABC):
    """Implemented by every engine. Methods are called on the event loop's thread and must not block it."""

    #: Name in COSYVOICE_ENGINE.
    name: str
    #: Voices, the default first.
    voices: tuple[Voice, ...]

    @abstractmethod
    async def start(self) -> None:
        """Gets ready (loads a model, finds a program). Raises EngineUnavailable when it never can."""

    @abstractmethod
    def plan(self, request: SpeechRequest) -> Plan:
        """Raises BadRequest for what this engine cannot say."""

    @abstractmethod
    async def speak(self, plan: Plan) -> Audio:
        """The audio of a plan. Raises EngineError.

        Cancelling the call is how a time limit, a caller that left and a stop of the service reach the
        engine: when the cancelled call returns, the work has ended and whatever did it is gone.
        """

    async def stop(self) -> None:  # noqa: B027 - most engines hold nothing
        """Ends what `start` began."""

    def voice(self, name: str) -> Voice | None:
        """The voice of that name or alias, without regard to case."""
        wanted = name.strip().lower()
        return next((v for v in self.voices if wanted == v.id or wanted in v.aliases), None)
