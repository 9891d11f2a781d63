"""The `cpu` engine: espeak-ng, for machines without a GPU. Mandarin, Cantonese, English.

It clones nothing and understands no instruction. So that page, API and cluster can be used whole without a
GPU, it *stands in* for those modes by what espeak-ng has: a recording picks the pitch by its digest, whoever
speaks in it, and a preset moves pace, pitch and volume or picks Mandarin or Cantonese. Such results say
`"standin": true` among their parameters.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress

from .. import annotations
from .. import text as texts
from ..errors import BadRequest, EngineError, EngineUnavailable
from ..sentences import split_text
from ..wav import Audio, WavError, decode
from .base import MODES, Engine, Plan, Preset, SpeechRequest, Voice
from .presets import PRESETS

# A client of OpenAI's API must send one of its voices.
_OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
# espeak-ng's voice file by language. `cmn` alone reads pinyin by the rules of English, and `yue` is the name
# of two voices.
_VOICE_FILES = {"cmn": "sit/cmn-Latn-pinyin", "yue": "sit/yue", "en": "gmw/en-US"}
# Words per minute at speed 1. espeak-ng's default is 175; its Chinese is hard to follow at that.
_WORDS_PER_MINUTE = {"cmn": 150, "yue": 150, "en": 170}
# espeak-ng's normal pitch and volume.
_PITCH, _VOLUME = 50, 100
# Presets by what stands in for them: how much faster, how much higher, how loud. A dialect moves nothing.
_STANDINS = {
    "happy": (1.1, 15, 110),
    "sad": (0.85, -15, 85),
    "angry": (1.15, -5, 140),
    "slow": (0.6, 0, 100),
    "fast": (1.6, 0, 100),
    "loud": (1.0, 5, 180),
    "soft": (0.95, 0, 40),
    "peppa": (1.1, 40, 100),
    "robot": (0.9, -40, 100),
}
# Characters in a piece: it is spoken in a fraction of the time that it takes to be heard.
_PIECE = 200
# A piece makes about 2 MB at the slowest speed.
_MAX_BYTES = 64 << 20


class CpuEngine(Engine):
    name = "cpu"
    modes = frozenset(MODES)
    instructs = PRESETS
    voices = (
        Voice("auto", "Automatic", "自动", ("default", *_OPENAI_VOICES)),
        Voice("cmn", "Mandarin", "普通话", ("mandarin", "zh", "zh-cn", "zh-tw", "普通话", "普通話")),
        Voice(
            "yue", "Cantonese", "粤语", ("cantonese", "zh-hk", "zh-yue", "粤语", "粵語", "广东话", "廣東話")
        ),
        Voice("en", "English", "英语", ("english", "en-us", "en-gb", "英语", "英語")),
    )

    def __init__(self, program: str | None = None) -> None:
        """program: name or path of espeak-ng. Default: $COSYVOICE_ESPEAK, else espeak-ng on the PATH."""
        self._program = program or os.environ.get("COSYVOICE_ESPEAK") or "espeak-ng"
        self._path = ""
        self._version = ""

    async def start(self) -> None:
        path = shutil.which(self._program)
        if path is None:
            raise EngineUnavailable(
                f"the cpu engine needs the program {self._program!r}, which is not installed: "
                "install the Debian package espeak-ng"
            )
        self._path = path
        try:
            said = await asyncio.wait_for(self._run(["--version"], b""), 60)
        except (TimeoutError, EngineError) as error:
            raise EngineUnavailable(f"{path} --version failed: {error or 'no answer within 60 s'}") from error
        # "eSpeak NG text-to-speech: 1.51  Data at: ...": another version speaks differently.
        found = re.search(rb":\s*(\d[\w.-]*)", said)
        self._version = found[1].decode() if found else "unknown"

    def plan(self, request: SpeechRequest) -> Plan:
        self.check_mode(request)
        # The name of a saved voice is none of the engine's.
        if request.prompt is None:
            voice = self.need_voice(request)
        else:
            voice = self.voice(request.voice) or self.voices[0]
        foreign = texts.foreign_letters(request.text)
        if foreign:
            raise BadRequest(
                f"the text contains letters that this engine cannot read: {foreign[:20]!r}; "
                "it reads Chinese characters and Latin letters",
                zh=f"文本中有本引擎读不了的文字：{foreign[:20]!r}；它能读汉字和拉丁字母",
                param="input",
            )
        # Pinyin and phonemes are Latin letters.
        if not texts.readable(request.text):
            raise BadRequest(
                f"there is nothing in {request.text[:40]!r} that this engine can read; "
                "it reads Chinese characters, Latin letters and numbers",
                zh=f"{request.text[:40]!r} 中没有本引擎能读的内容；它能读汉字、拉丁字母和数字",
                param="input",
            )
        preset = self._need_preset(request) if request.mode == "instruct" else None
        language = annotations.language_of(request.text) if voice.id == "auto" else voice.id
        if preset is not None and preset.group == "dialect" and language != "en":
            language = "yue" if preset.id == "cantonese" else "cmn"
        if language == "en" and texts.has_han(request.text):
            raise BadRequest(
                "the English voice cannot read Chinese characters; use the voice auto, cmn (Mandarin) or "
                "yue (Cantonese)",
                zh="英语声音不能读汉字；请改用 auto（自动）、cmn（普通话）或 yue（粤语）",
                param="voice",
            )
        parameters = {
            # The number goes up when the same request comes to sound otherwise.
            "engine": f"cpu 3 espeak-ng {self._version}",
            "text": request.text,
            "voice": language,
            "speed": round(request.speed, 3),
            "seed": request.seed,
        }
        if request.mode != "voice" or request.prompt is not None:
            parameters |= {"mode": request.mode, "standin": True}
            if request.prompt is not None:
                parameters["prompt"] = request.prompt.digest
            if preset is not None:
                parameters["instruct"] = preset.instruct
        return Plan(parameters)

    def _need_preset(self, request: SpeechRequest) -> Preset:
        preset = self.preset(request.instruct)
        if preset is None:
            known = ", ".join(p.id for p in self.instructs)
            raise BadRequest(
                f"the cpu engine only imitates preset instructions and does not understand words such as "
                f"{request.instruct[:40]!r}; use one of: {known}",
                zh=f"cpu 引擎只能模拟预设指令，不理解 {request.instruct[:40]!r} 这样的文字指令；"
                f"可以使用：{known}",
                param="instructions",
            )
        return preset

    async def parts(self, plan: Plan) -> AsyncIterator[Audio]:
        wanted = plan.parameters
        language = wanted["voice"]
        arguments = ["--stdin", "--stdout", "-b", "1", "-z", "-v", _VOICE_FILES[language]]
        faster, higher, loud = 1.0, 0, _VOLUME
        if (preset := self.preset(wanted.get("instruct", ""))) is not None:
            faster, higher, loud = _STANDINS.get(preset.id, (faster, higher, loud))
        arguments += ["-s", str(round(_WORDS_PER_MINUTE[language] * wanted["speed"] * faster))]
        # espeak-ng has nothing random. The seed picks the pitch, so that another seed is heard to be another
        # take; of a recording, the digest does.
        pitch = _PITCH - 10 + wanted["seed"] * 7919 % 21 + higher
        if "prompt" in wanted:
            pitch = 10 + int.from_bytes(wanted["prompt"].encode()[:8], "big") % 81 + (pitch - _PITCH) // 2
        arguments += ["-p", str(min(99, max(0, pitch)))]
        if loud != _VOLUME:
            arguments += ["-a", str(loud)]
        pieces = annotations.parse(wanted["text"])
        if annotations.annotated(pieces):
            # In one: a mark may begin in one sentence and end in another.
            arguments.append("-m")
            spoken = [texts.plain_digits(annotations.to_espeak(pieces, language))]
        else:
            # Doubled brackets would be taken for espeak-ng's own phoneme names.
            spoken = [
                texts.plain_digits(piece.replace("[[", "[ ["))
                for piece in split_text(wanted["text"], _PIECE)
                if texts.readable(piece)
            ]
        for piece in spoken:
            data = await self._run(arguments, piece.encode() + b"\n")
            try:
                audio = decode(data)
            except WavError as error:
                raise EngineError(
                    f"espeak-ng gave no audio: {error}", zh=f"espeak-ng 没有给出音频：{error}"
                ) from error
            if audio.seconds < 0.05:
                raise EngineError(
                    f"espeak-ng gave {audio.seconds:.3f} s of audio for {len(piece)} characters",
                    zh=f"{len(piece)} 个字符的文本，espeak-ng 只给出 {audio.seconds:.3f} 秒音频",
                )
            yield audio

    async def _run(self, arguments: list[str], given: bytes) -> bytes:
        """What the program writes. However this ends, the program has ended too."""
        process = await asyncio.create_subprocess_exec(
            self._path,
            *arguments,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,  # a group of its own, so that it can be killed with whatever it started
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        )
        try:
            output, complaint = await _communicate(process, given)
        finally:
            # Also after a success: a helper that it left behind would hold the pipes and the memory.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode != 0:
            said = complaint.decode(errors="replace").strip()[-300:] or "nothing on standard error"
            raise EngineError(
                f"espeak-ng ended with status {process.returncode}: {said}",
                zh=f"espeak-ng 以状态 {process.returncode} 结束：{said}",
            )
        return output


async def _communicate(process: Process, given: bytes) -> tuple[bytes, bytes]:
    """Feeds and reads a process to its end, and refuses to hold more than _MAX_BYTES of it."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None

    async def feed(pipe: asyncio.StreamWriter) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            pipe.write(given)
            await pipe.drain()
        pipe.close()

    async def take(pipe: asyncio.StreamReader) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await pipe.read(1 << 18)) and size <= _MAX_BYTES:
            size += len(part)
            parts.append(part)
        return b"".join(parts)

    async def take_output(pipe: asyncio.StreamReader) -> bytes:
        output = await take(pipe)
        if len(output) > _MAX_BYTES:
            process.kill()
        return output

    _, output, complaint = await asyncio.gather(feed(stdin), take_output(stdout), take(stderr))
    if len(output) > _MAX_BYTES:
        raise EngineError(
            f"espeak-ng wrote more than {_MAX_BYTES >> 20} MB and was stopped",
            zh=f"espeak-ng 的输出超过 {_MAX_BYTES >> 20} MB，已被终止",
        )
    await process.wait()
    return output, complaint
