from __future__ import annotations

import array
import asyncio
import os
import time
from pathlib import Path

import pytest

from cosyvoice_app.engines import REGISTRY, SpeechRequest, create_engine
from cosyvoice_app.engines.cpu import CpuEngine
from cosyvoice_app.errors import BadRequest, EngineError, EngineUnavailable
from cosyvoice_app.wav import Audio


def speak(
    text: str, voice: str = "auto", *, speed: float = 1.0, seed: int = 1, program: str | None = None
) -> Audio:
    async def work() -> Audio:
        engine = CpuEngine(program)
        await engine.start()
        return await engine.speak(engine.plan(SpeechRequest(text, voice, speed, seed)))

    return asyncio.run(work())


def loudness(audio: Audio) -> int:
    return max(abs(sample) for sample in array.array("h", audio.frames))


def planned(text: str, voice: str) -> str:
    return str(CpuEngine().plan(SpeechRequest(text, voice)).parameters["voice"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_engine_of_the_registry_can_be_made() -> None:
    for name in REGISTRY:
        assert create_engine(name).name == name


@pytest.mark.parametrize(
    ("text", "voice"), [("你好，世界。", "cmn"), ("你哋食咗飯未呀？", "yue"), ("Good morning.", "en")]
)
def test_each_language_is_spoken(text: str, voice: str) -> None:
    audio = speak(text)
    assert audio == speak(text, voice), "found by its script, and the same every time"
    assert 0.5 < audio.seconds < 5
    assert loudness(audio) > 3000


def test_the_two_chinese_voices_differ() -> None:
    assert speak("今日天氣", "cmn").frames != speak("今日天氣", "yue").frames


def test_mandarin_is_not_read_as_the_english_names_of_pinyin_syllables() -> None:
    # The voice `cmn` of espeak-ng 1.51 says "n-i-three" for 你 and takes three times as long.
    assert speak("你好你好你好你好", "cmn").seconds < 4


def test_speed_and_seed_are_heard() -> None:
    normal = speak("One two three four five six")
    assert speak("One two three four five six", speed=2.0).seconds < normal.seconds * 0.7
    assert speak("One two three four five six", seed=2).frames != normal.frames


def test_voices_by_other_names() -> None:
    assert planned("你好", "alloy") == "cmn"
    assert planned("你好", "Cantonese") == "yue"
    assert planned("hello", "普通话") == "cmn"


@pytest.mark.parametrize(
    ("text", "voice", "complaint"),
    [
        ("hello", "klingon", "voice 'klingon' is not known here; use one of: auto, cmn, yue, en"),
        ("你好", "en", "cannot read Chinese"),
        ("привет", "auto", "cannot read: 'привет'"),
        ("こんにちは", "cmn", "cannot read"),
    ],
)
def test_what_it_cannot_say_is_refused(text: str, voice: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        planned(text, voice)


@pytest.mark.parametrize(
    "text", ["--version", "-f /etc/passwd", "[[h@l'oU]]", "<speak>a</speak>", "$(id); `id`"]
)
def test_a_text_is_never_an_instruction(text: str) -> None:
    assert speak(text).seconds > 0.2


def test_a_missing_program_is_told_with_its_package() -> None:
    with pytest.raises(EngineUnavailable, match="install the Debian package espeak-ng"):
        speak("a", program="no-such-program")


def test_a_crash_is_told_with_what_the_program_said(slow_espeak: Path) -> None:
    with pytest.raises(EngineError, match="status 3: it broke"):
        speak("please crash", program=str(slow_espeak))


def test_cancelling_kills_the_program_and_what_it_started(slow_espeak: Path) -> None:
    async def work() -> float:
        engine = CpuEngine(str(slow_espeak))
        await engine.start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await engine.speak(engine.plan(SpeechRequest("sleep 60")))
        return time.monotonic() - began

    assert asyncio.run(work()) < 3
    (pid,) = (slow_espeak.parent / "pids").read_text().split()
    assert not alive(int(pid))
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            group = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        assert group[2] != pid or group[0] == "Z", f"process {folder.name} of the killed group is left"
