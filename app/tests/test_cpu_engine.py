from __future__ import annotations

import array
import asyncio
import os
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_app.engines import REGISTRY, Prompt, SpeechRequest, cpu, create_engine
from cosyvoice_app.engines.cpu import CpuEngine
from cosyvoice_app.engines.presets import PRESETS
from cosyvoice_app.errors import BadRequest, EngineError, EngineUnavailable
from cosyvoice_app.wav import Audio


def speak(text: str, voice: str = "auto", *, program: str | None = None, **fields: Any) -> Audio:
    async def work() -> Audio:
        engine = CpuEngine(program)
        await engine.start()
        return await engine.speak(engine.plan(SpeechRequest(text, voice, **fields)))

    return asyncio.run(work())


def loudness(audio: Audio) -> int:
    return max(abs(sample) for sample in array.array("h", audio.frames))


def planned(text: str, voice: str, **fields: Any) -> str:
    return str(CpuEngine().plan(SpeechRequest(text, voice, **fields)).parameters["voice"])


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


def test_a_long_text_comes_in_pieces_that_join_to_the_whole() -> None:
    once = speak("One sentence follows another one here. ").seconds

    async def work() -> None:
        engine = CpuEngine()
        await engine.start()
        plan = engine.plan(SpeechRequest("One sentence follows another one here. " * 20))
        async with aclosing(engine.parts(plan)) as parts:
            pieces = [piece async for piece in parts]
        assert len(pieces) > 3
        whole = await engine.speak(plan)
        assert whole.frames == b"".join(piece.frames for piece in pieces)
        assert whole.seconds == pytest.approx(once * 20, rel=0.2)

    asyncio.run(work())


# What stands in for what espeak-ng has not.


def test_a_recording_picks_the_pitch_and_the_result_says_that_nothing_is_cloned() -> None:
    one, other = (Prompt(digest * 32, b"RIFF") for digest in ("0a", "1f"))
    plain = speak("Hello there")
    cloned = speak("Hello there", mode="clone", prompt=one, prompt_text="words")
    assert cloned == speak("Hello there", mode="clone", prompt=one, prompt_text="words")
    assert (
        len({a.frames for a in (plain, cloned, speak("Hello there", mode="cross_lingual", prompt=other))})
        == 3
    )
    plan = CpuEngine().plan(SpeechRequest("Hi", "somebody's", mode="clone", prompt=one, prompt_text="words"))
    assert plan.parameters["standin"] is True
    assert plan.parameters["prompt"] == one.digest
    assert "standin" not in CpuEngine().plan(SpeechRequest("Hi")).parameters


def test_an_instruction_is_heard() -> None:
    def told(instruct: str, text: str = "One two three four five six", **fields: Any) -> Audio:
        return speak(text, mode="instruct", instruct=instruct, **fields)

    normal = speak("One two three four five six")
    assert told("fast").seconds < normal.seconds * 0.8
    assert told("slow").seconds > normal.seconds * 1.3
    assert loudness(told("soft")) < loudness(normal) * 0.7
    assert told("happy").frames != normal.frames
    assert told("cantonese", "你好") == told("请用广东话表达。", "你好")
    assert told("cantonese", "你好").frames == speak("你好", "yue").frames
    assert planned("你哋食咗飯未呀", "auto", mode="instruct", instruct="sichuan") == "cmn"


@pytest.mark.parametrize(
    ("fields", "param", "complaint"),
    [
        ({"mode": "clone", "prompt_text": "words"}, "prompt", "needs a recording to speak like"),
        ({"mode": "clone", "prompt": Prompt("d", b"")}, "prompt_text", "needs the words of the recording"),
        ({"mode": "cross_lingual"}, "prompt", "needs a recording"),
        ({"mode": "instruct"}, "instructions", "needs an instruction"),
        (
            {"mode": "instruct", "instruct": "like a pirate"},
            "instructions",
            "does not understand words",
        ),
        (
            {"mode": "sing"},
            "mode",
            "the cpu engine does not have the mode 'sing'; use one of: voice, clone, cross",
        ),
    ],
)
def test_a_mode_that_lacks_something_is_refused(fields: dict[str, Any], param: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint) as caught:
        planned("hello", "auto", **fields)
    assert caught.value.param == param
    assert caught.value.zh


def test_every_preset_is_stood_in_for() -> None:
    assert {p.id for p in PRESETS if p.group != "dialect"} == set(cpu._STANDINS)
    assert len({p.id for p in PRESETS}) == len({p.instruct for p in PRESETS}) == len(PRESETS)
    assert len([p for p in PRESETS if p.group == "dialect"]) == 17


@pytest.mark.parametrize("text", ["１２", "④", "➂", "٣", "½", "²", "Ⅳ", "〇", "㈠", "𝟙", "。" * 300 + "④"])
@pytest.mark.parametrize("voice", ["cmn", "yue"])
def test_a_number_is_spoken_however_it_is_written(text: str, voice: str) -> None:
    assert speak(text, voice).seconds > 0.1


def test_numbers_that_mean_the_same_sound_the_same() -> None:
    assert speak("２０２４年") == speak("2024年")
    assert speak("[h][ào] ④") == speak("[h][ào]  4 ")
    assert speak("④ hello", "en") != speak("hello", "en")


@pytest.mark.parametrize("text", ["༪", "⅐", "༪ ⅐"])
def test_a_text_without_anything_that_can_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"nothing in .* that this engine can read") as caught:
        planned(text, "auto")
    assert caught.value.param == "input"


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
