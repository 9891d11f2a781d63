"""What an engine is: text in, audio out piece by piece, one text at a time, and it can be stopped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import BadRequest, EngineError
from ..wav import Audio, WavError, join

#: voice: one of the engine's voices, or one that was saved. clone: the voice of a recording whose words are
#: known. cross_lingual: the voice of a recording in whatever language the text has. instruct: a voice that is
#: told how to speak.
Mode = Literal["voice", "clone", "cross_lingual", "instruct"]
MODES: tuple[Mode, ...] = get_args(Mode)

_CHINESE_MODES = {
    "voice": "预设声音",
    "clone": "声音克隆",
    "cross_lingual": "跨语种克隆",
    "instruct": "指令控制",
}


def mode_for(*, instruct: str, recorded: bool, words: str) -> Mode:
    """The mode that a request calls for by what it brings. recorded: a recording came with it, and words are
    those that are said in it.
    """
    if instruct:
        return "instruct"
    if recorded:
        return "clone" if words else "cross_lingual"
    return "voice"


@dataclass(frozen=True)
class Voice:
    """A voice that users may choose. aliases: other names that the API takes for it."""

    id: str
    english: str
    chinese: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """An instruction that an engine understands, by a name. instruct: what the engine is told. group:
    dialect, emotion, pace, volume or style.
    """

    id: str
    group: str
    english: str
    chinese: str
    instruct: str


@dataclass(frozen=True)
class Prompt:
    """A recording to speak like: mono WAV, 16 bit, 24 kHz, at most 30 s. digest: of its samples, 32
    hexadecimal digits.
    """

    digest: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class SpeechRequest:
    """What a user asked for, checked. speed: 1 is normal. seed: the same seed gives the same audio.

    prompt: the recording of clone and cross_lingual; in the mode voice, that of a saved voice; in the mode
    instruct, whose voice it is (None: the engine's own). prompt_text: the words of the recording. instruct:
    the id of one of the engine's presets, or how to speak in words.
    """

    text: str
    voice: str = "auto"
    speed: float = 1.0
    seed: int = 1
    mode: Mode = "voice"
    prompt: Prompt | None = None
    prompt_text: str = ""
    instruct: str = ""


@dataclass(frozen=True)
class Plan:
    """How an engine will serve a request.

    parameters: all that determines the audio and nothing else; JSON types only, the prompt by its digest. Its
    hash names the result. prompt: the bytes of that digest.
    """

    parameters: dict[str, Any]
    prompt: Prompt | None = None


class Engine(ABC):
    """Implemented by every engine. Methods are called on the event loop's thread and must not block it."""

    #: Name in COSYVOICE_ENGINE.
    name: str
    #: Voices, the default first. They may become more in `start`.
    voices: tuple[Voice, ...]
    #: What it can do.
    modes: frozenset[Mode] = frozenset({"voice"})
    #: Instructions to offer for the mode instruct.
    instructs: tuple[Preset, ...] = ()
    #: Whether it takes an instruction in words, and not only one of `instructs`.
    understands_words: bool = False
    #: Called when an engine that has started loses or regains the ability to speak, with the reason. Whoever
    #: uses the engine sets it.
    on_state: Callable[[bool, str], None] = staticmethod(lambda ready, reason: None)

    @abstractmethod
    async def start(self) -> None:
        """Gets ready (loads a model, finds a program). Raises EngineUnavailable when it never can."""

    @abstractmethod
    def plan(self, request: SpeechRequest) -> Plan:
        """Raises BadRequest for what this engine cannot say."""

    @abstractmethod
    def parts(self, plan: Plan) -> AsyncIterator[Audio]:
        """The audio of a plan, in pieces of one format, each as soon as it is made. An async generator.

        Raises EngineError. Cancelling a step or closing the iterator (`contextlib.aclosing`) is how a time
        limit, a caller that left and a stop of the service reach the engine: when that returns, the work has
        ended and whatever did it is gone or has nothing left to do.
        """

    async def speak(self, plan: Plan) -> Audio:
        """The whole audio of a plan. Raises EngineError; cancelling it is as complete as with `parts`."""
        async with aclosing(self.parts(plan)) as parts:  # type: ignore[type-var]
            pieces = [part async for part in parts]
        try:
            return join(pieces)
        except WavError as error:
            raise EngineError(
                f"the {self.name} engine gave no audio that could be joined: {error}",
                zh=f"{self.name} 引擎没有给出可以拼接的音频：{error}",
            ) from error

    async def wait_ready(self) -> None:  # noqa: B027 - most engines are ready once they have started
        """Returns once a plan can be served: at once, unless something is being started again."""

    async def stop(self) -> None:  # noqa: B027 - most engines hold nothing
        """Ends what `start` began."""

    @property
    def measurements(self) -> Mapping[str, float]:
        """Figures for /metrics by name, the unit at its end, e.g. gpu_memory_free_bytes."""
        return {}

    def voice(self, name: str) -> Voice | None:
        """The voice of that name or alias, without regard to case."""
        wanted = name.strip().lower()
        return next((v for v in self.voices if wanted == v.id.lower() or wanted in v.aliases), None)

    def preset(self, name: str) -> Preset | None:
        """The instruction of that name, or of exactly those words."""
        wanted = name.strip()
        return next((p for p in self.instructs if wanted.lower() == p.id or wanted == p.instruct), None)

    def need_voice(self, request: SpeechRequest) -> Voice:
        """The voice that the request names. Raises BadRequest when there is none of that name."""
        voice = self.voice(request.voice)
        if voice is None:
            known = [v.id for v in self.voices]
            raise BadRequest(
                f"voice {request.voice!r} is not known here; use one of: {', '.join(known)}",
                zh=f"没有名为 {request.voice!r} 的声音；可以使用：{'、'.join(known)}",
                param="voice",
            )
        return voice

    def check_mode(self, request: SpeechRequest) -> None:
        """Raises BadRequest for a mode that this engine has not, and for one that lacks what it needs."""
        mode = request.mode
        if mode not in self.modes:
            known = ", ".join(m for m in MODES if m in self.modes)
            raise BadRequest(
                f"the {self.name} engine does not have the mode {mode!r}; use one of: {known}",
                zh=f"{self.name} 引擎没有“{_CHINESE_MODES.get(mode, mode)}”模式；可以使用：{known}",
                param="mode",
            )
        if mode in ("clone", "cross_lingual") and request.prompt is None:
            raise BadRequest(
                f"the mode {mode!r} needs a recording to speak like, but there is none; send one",
                zh=f"“{_CHINESE_MODES[mode]}”需要一段参考录音，但没有收到；请上传或录制一段",
                param="prompt",
            )
        if mode == "clone" and not request.prompt_text.strip():
            raise BadRequest(
                "the mode 'clone' needs the words of the recording, but there are none; "
                "write them down, or use the mode 'cross_lingual'",
                zh="“声音克隆”需要参考录音的文字内容，但内容为空；请填写，或改用“跨语种克隆”",
                param="prompt_text",
            )
        if mode == "instruct" and not request.instruct.strip():
            raise BadRequest(
                "the mode 'instruct' needs an instruction, but there is none; choose or write one",
                zh="“指令控制”需要一条指令，但内容为空；请选择或填写一条",
                param="instructions",
            )
