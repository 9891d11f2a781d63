"""The `cosyvoice` engine: CosyVoice3 on a GPU, in a worker process.

Set by the environment; a switch is 1 or 0:
COSYVOICE_SOURCE          checkout of FunAudioLLM/CosyVoice with its submodules. No default.
COSYVOICE_MODEL           folder of the model. Default: pretrained_models/Fun-CosyVoice3-0.5B in the source.
COSYVOICE_PYTHON          the interpreter with upstream's packages. Default: the service's own.
COSYVOICE_FP16, COSYVOICE_TRT, COSYVOICE_VLLM   half precision, TensorRT, vLLM. Default: 0.
COSYVOICE_TEXT_FRONTEND   upstream's reading of numbers and signs. Default: 1.
COSYVOICE_EDITION         tells one installation from another (source, packages, weights) in the names of
                          results, so that none is answered with what another made. Default: none.
COSYVOICE_START_LIMIT     seconds that loading may take. Default: 600.
COSYVOICE_WORKER_MEMORY   GiB of main memory beyond which a worker that grows is replaced between two texts.
                          Default: 0, never.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadRequest, EngineError, EngineUnavailable
from ..sentences import split_text
from ..wav import Audio
from .base import MODES, Engine, Mode, Plan, SpeechRequest, Voice
from .presets import PRESETS
from .worker import Worker

_TARGET = "cosyvoice_app.engines.cosyvoice_model:CosyVoiceModel"
# Characters in a piece. Upstream cuts at some 80 tokens by itself, but not a text in which a control token
# stands, as in the mode cross_lingual; and between two pieces a synthesis can be stopped.
_PIECE = 120
# Seconds that a synthesis which nobody wants any more may take to stop, before its process is killed.
_STOP_LIMIT = 1.0
# Bytes of audio for one text: an hour and a half.
_MOST_AUDIO = 256 << 20
# What the model takes for the frame around a prompt. No text of a user may hold it.
_CONTROL = re.compile(r"<\|(?:endofprompt|endofsystem|endoftext|im_start|im_end)\|>")
# A client of OpenAI's API must send one of its voices.
_AUTO = Voice(
    "auto",
    "Automatic",
    "自动",
    (
        *("default", "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
        *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
    ),
)
_BUNDLED = {"cosyvoice": ("CosyVoice", "CosyVoice 自带声音")}


@dataclass(frozen=True)
class Options:
    """The environment, checked. start_limit in seconds, most_memory in bytes."""

    source: str
    model: str
    python: str
    switches: Mapping[str, bool]
    edition: str
    start_limit: float
    most_memory: int

    def environment(self) -> dict[str, str]:
        """What the worker reads."""
        return {
            "COSYVOICE_SOURCE": self.source,
            "COSYVOICE_MODEL": self.model,
            **{name: str(int(on)) for name, on in self.switches.items()},
            # Bars of progress in a journal, and calls home.
            "TQDM_DISABLE": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }

    def describe(self) -> str:
        """What changes the audio, besides the model."""
        short = {name.removeprefix("COSYVOICE_").lower(): on for name, on in self.switches.items()}
        words = [name for name in ("fp16", "trt", "vllm") if short[name]]
        words += [] if short["text_frontend"] else ["no-text-frontend"]
        return " ".join([*words, *filter(None, [self.edition])])


def load_options(environment: Mapping[str, str]) -> Options:
    """Raises EngineUnavailable with every problem."""
    problems: list[str] = []

    def text(name: str, default: str = "") -> str:
        return environment.get(name, "").strip() or default

    def switch(name: str, default: str) -> bool:
        raw = text(name, default)
        if raw not in ("0", "1"):
            problems.append(f"{name}={raw!r}: set it to 1 or 0")
        return raw == "1"

    def number(name: str, default: str, low: float, high: float, unit: str) -> float:
        raw = text(name, default)
        try:
            value = float(raw)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            problems.append(f"{name}={raw!r}: set it to a number of {unit} from {low:g} to {high:g}")
        return value

    source = text("COSYVOICE_SOURCE")
    if not source:
        problems.append(
            "COSYVOICE_SOURCE is not set: set it to a checkout of FunAudioLLM/CosyVoice with its submodules"
        )
    source = str(Path(source).absolute())
    model = text("COSYVOICE_MODEL", f"{source}/pretrained_models/Fun-CosyVoice3-0.5B")
    switches = {
        f"COSYVOICE_{name}": switch(f"COSYVOICE_{name}", default)
        for name, default in (("FP16", "0"), ("TRT", "0"), ("VLLM", "0"), ("TEXT_FRONTEND", "1"))
    }
    edition = text("COSYVOICE_EDITION")
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", edition):
        problems.append(
            f"COSYVOICE_EDITION={edition!r}: set it to at most 64 letters, digits, '.', '_' and '-'"
        )
    start_limit = number("COSYVOICE_START_LIMIT", "600", 1, 86_400, "s")
    memory = number("COSYVOICE_WORKER_MEMORY", "0", 0, 4096, "GiB")
    if problems:
        raise EngineUnavailable("; ".join(problems))
    return Options(
        source=source,
        model=str(Path(model).absolute()),
        python=text("COSYVOICE_PYTHON", sys.executable),
        switches=switches,
        edition=edition,
        start_limit=start_limit,
        most_memory=int(memory * (1 << 30)),
    )


class CosyVoiceEngine(Engine):
    name = "cosyvoice"
    voices: tuple[Voice, ...] = (_AUTO,)
    modes: frozenset[Mode] = frozenset(MODES)
    instructs = PRESETS
    understands_words = True

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """environment: default os.environ."""
        self._environment = os.environ if environment is None else environment
        self._worker: Worker | None = None
        self._described = ""

    async def start(self) -> None:
        options = load_options(self._environment)
        self._worker = Worker(
            _TARGET,
            environment=options.environment(),
            python=options.python,
            on_state=self._tell,
            start_limit=options.start_limit,
            stop_limit=_STOP_LIMIT,
            most_audio=_MOST_AUDIO,
            most_memory=options.most_memory,
        )
        self._described = options.describe()
        await self._worker.start()

    def _tell(self, ready: bool, reason: str) -> None:
        if ready and self._worker is not None:
            info = self._worker.info
            speakers = [str(speaker) for speaker in info.get("speakers", ())]
            self.voices = (_AUTO, *(Voice(s, *_BUNDLED.get(s, (s, s))) for s in speakers))
            self.modes = frozenset(m for m in MODES if m != "instruct" or info.get("instruct"))
        self.on_state(ready, reason)

    @property
    def measurements(self) -> Mapping[str, float]:
        return self._worker.measurements if self._worker is not None else {}

    def plan(self, request: SpeechRequest) -> Plan:
        self.check_mode(request)
        for param, said in (
            ("input", request.text),
            ("prompt_text", request.prompt_text),
            ("instructions", request.instruct),
        ):
            if found := _CONTROL.search(said):
                raise BadRequest(
                    f"{param} contains the control token {found[0]}, which is reserved for the model; "
                    "remove it",
                    zh=f"{param} 中含有模型保留的控制符 {found[0]}；请删除",
                    param=param,
                )
        info = self._worker.info if self._worker is not None else {}
        model = " ".join(filter(None, ("cosyvoice", str(info.get("model", "")), self._described)))
        parameters: dict[str, Any] = {
            "engine": model,
            "text": request.text,
            "speed": round(request.speed, 3),
            "seed": request.seed,
        }
        if request.mode != "voice":
            parameters["mode"] = request.mode
        if request.prompt is not None:
            parameters["prompt"] = request.prompt.digest
            if request.mode in ("clone", "voice"):
                parameters["prompt_text"] = request.prompt_text
        else:
            voice = self.need_voice(request)
            if voice is _AUTO and len(self.voices) > 1:
                voice = self.voices[1]
            if request.mode == "instruct" and voice.id != info.get("bundled"):
                raise BadRequest(
                    f"the voice {voice.id!r} takes no instruction; use the voice 'auto', or send a recording",
                    zh=f"声音 {voice.id!r} 不支持指令；请使用 'auto'，或上传一段参考录音",
                    param="voice",
                )
            parameters["voice"] = voice.id
        if request.mode == "instruct":
            preset = self.preset(request.instruct)
            parameters["instruct"] = preset.instruct if preset is not None else request.instruct.strip()
        return Plan(parameters, request.prompt)

    async def parts(self, plan: Plan) -> AsyncIterator[Audio]:
        assert self._worker is not None, "started"
        wanted = plan.parameters
        mode = wanted.get("mode", "voice")
        if mode == "voice" and plan.prompt is not None and not wanted["prompt_text"]:
            mode = "cross_lingual"  # a saved voice whose words nobody wrote down
        job = {
            "pieces": split_text(wanted["text"], _PIECE),
            "mode": mode,
            "voice": wanted.get("voice", ""),
            "speed": wanted["speed"],
            "seed": wanted["seed"],
            "digest": wanted.get("prompt", ""),
            "prompt_text": wanted.get("prompt_text", ""),
            "instruct": wanted.get("instruct", ""),
        }
        heard = False
        async with aclosing(self._worker.run(job, plan.prompt.data if plan.prompt else b"")) as audio:
            async for piece in audio:
                if piece.frames:
                    heard = True
                    yield piece
        if not heard:
            raise EngineError(
                "the model gave no audio for this text; write it differently",
                zh="模型没有为这段文本生成音频；请换一种写法",
            )

    async def wait_ready(self) -> None:
        if self._worker is not None:
            await self._worker.wait_ready()

    async def stop(self) -> None:
        if self._worker is not None:
            await self._worker.stop()
