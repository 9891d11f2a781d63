from __future__ import annotations

import asyncio
import io
import os
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyvoice_app import prompts
from cosyvoice_app.engines import Prompt, SpeechRequest
from cosyvoice_app.engines.cpu import CpuEngine
from cosyvoice_app.errors import BadRequest, EngineError, QueueFull, ServiceError, TooLarge
from cosyvoice_app.prompts import MAX_BYTES, MOST_AT_ONCE, clean_name, read_prompt
from cosyvoice_app.wav import decode, read_summary

KINDS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "24.wav": ("WAV", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.ogg": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def lasts(prompt: Prompt) -> float:
    """Seconds."""
    return decode(prompt.data).seconds


def read(data: bytes, name: str = "my voice.wav") -> Prompt:
    return asyncio.run(read_prompt(data, name=name))


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """3 seconds of speech at 24000 Hz, from -1 to 1."""

    async def speak() -> bytes:
        engine = CpuEngine()
        await engine.start()
        return (await engine.speak(engine.plan(SpeechRequest("This is the voice to be cloned.")))).frames

    samples = np.frombuffer(asyncio.run(speak()), "<i2") / 32768
    return np.interp(np.arange(72000) * 22050 / 24000, np.arange(len(samples)), samples)


def file(samples: np.ndarray, rate: int = 24000, kind: str = "wav") -> bytes:
    form, subtype = KINDS[kind]
    made = io.BytesIO()
    soundfile.write(made, samples, rate, format=form, subtype=subtype)
    return made.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_every_kind_of_file_becomes_the_same_kind_of_prompt(voice: np.ndarray, kind: str, rate: int) -> None:
    prompt = read(file(np.stack([voice, voice], axis=1), rate, kind))
    seconds, _ = read_summary(io.BytesIO(prompt.data))
    assert seconds == pytest.approx(72000 / rate, abs=0.01)
    audio = decode(prompt.data)
    assert (audio.rate, audio.channels, audio.width) == (24000, 1, 2)
    level = np.sqrt(np.mean(np.square(np.frombuffer(audio.frames, "<i2") / 32768)))
    assert level == pytest.approx(np.sqrt(np.mean(np.square(voice))), rel=0.1)


def test_the_same_sound_has_the_same_digest_whatever_carries_it(voice: np.ndarray) -> None:
    exact = (voice * 32767).astype(np.int16)
    first, second = read(file(exact, kind="wav")), read(file(exact, kind="flac"), name="other.flac")
    assert np.array_equal(np.frombuffer(decode(first.data).frames, "<i2"), exact)
    assert first.digest == second.digest
    assert first.data == second.data
    assert first.digest != read(file(voice[::-1])).digest
    assert len(first.digest) == 32


def silence(seconds: float, rate: int = 24000) -> np.ndarray:
    return np.zeros(int(seconds * rate))


def noise(seconds: float, rate: int = 24000, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(1).normal(0, level, int(seconds * rate)).clip(-1, 1)


@pytest.mark.parametrize(
    ("data", "english", "chinese"),
    [
        (b"", "is empty; choose another file", "是空的；请换一个文件"),
        (b"hello there", r"is no audio file (it begins with b'hello th')", "无法识别的文件"),
        (b"\xff", "is no audio file", "无法识别的文件"),
        (b"\0\0\0\x20ftypM4A ", "is MP4/M4A; save the recording as WAV", "是 MP4/M4A；请把录音另存为 WAV"),
        (b"\x1aE\xdf\xa3webm", "is WebM/Matroska; save the recording as WAV", "是 WebM/Matroska"),
        (b"RIFF\0\0\0\0WAVE", "like WAV but cannot be decoded (Error in WAV", "看起来是 WAV，但无法解码"),
        (file(noise(0.5)), "is 0.50 s long, but needs at least 1 s; 3 to 10 s are best", "只有 0.50 秒"),
        (file(noise(31)), "is 31.0 s long or more, but at most 30 s", "长 31.0 秒以上，最多 30 秒"),
        (file(noise(2), 8000), "is sampled at 8000 Hz, but at least 16000 Hz are needed", "采样率是 8000 Hz"),
        (file(noise(2), 384_000), "claims 384000 Hz; save it at 48000 Hz or less", "标为 384000 Hz"),
        (file(silence(2)), "is nearly silent (-180 dB, at least -50 are needed)", "几乎没有声音（-180 dB"),
        (file(noise(2, level=0.001)), "is nearly silent (-60 dB", "几乎没有声音（-60 dB"),
        (file(noise(2, level=2)), "is overdriven, 62% of it cut off", "严重过载失真：有 62% 被削顶"),
        (file(np.zeros((48000, 6))), "has 6 channels; save it with one (mono) or two", "有 6 个声道"),
        (file(np.full(48000, np.nan), kind="float.wav"), "samples that are no numbers", "无法解码"),
    ],
)
def test_what_cannot_be_cloned_is_refused_with_what_was_found_and_what_to_do(
    data: bytes, english: str, chinese: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        read(data, name="../../etc/passwd\0.wav")
    assert caught.value.param == "prompt"
    assert caught.value.status == 400
    assert caught.value.message.startswith("passwd.wav ")
    assert english in caught.value.message
    assert chinese in caught.value.text(chinese=True)


def test_a_voice_that_is_a_little_too_loud_is_taken(voice: np.ndarray) -> None:
    assert lasts(read(file((voice * 2).clip(-1, 1)))) == 3.0


def test_an_upload_that_is_too_large_is_not_even_looked_at() -> None:
    with pytest.raises(TooLarge, match=r"10\.0 MiB large, but at most 10 MiB are accepted") as caught:
        read(b"RIFF" + b"\0" * MAX_BYTES)
    assert "最多 10 MiB" in caught.value.text(chinese=True)


# Files that say one thing and hold another.


def test_a_small_file_with_an_hour_in_it_is_refused_by_its_header() -> None:
    bomb = file(silence(3600), kind="flac")
    assert len(bomb) < 1 << 20
    with pytest.raises(BadRequest, match=r"is 3600\.0 s long or more"):
        read(bomb)


@pytest.mark.parametrize("claimed", [0, 24000 * 5])
def test_a_header_that_lies_makes_nobody_decode_more_than_the_limit(claimed: int) -> None:
    bomb = bytearray(file(noise(300, level=0.01), kind="flac"))
    # The count of samples is the last 36 bits before the checksum of STREAMINFO.
    assert bomb[4] & 0x7F == 0
    (packed,) = struct.unpack_from(">Q", bomb, 18)
    assert packed & ((1 << 36) - 1) == 300 * 24000
    struct.pack_into(">Q", bomb, 18, packed >> 36 << 36 | claimed)
    began = time.monotonic()
    try:
        seconds = lasts(read(bytes(bomb)))
    except BadRequest:
        seconds = 0
    assert seconds <= 30
    assert time.monotonic() - began < 15


def test_an_mp3_of_varying_rate_without_an_index_is_read_to_its_end(voice: np.ndarray) -> None:
    """Its first frame, of noise, makes it look much shorter than it is."""
    whole = file(np.concatenate((noise(0.5), voice[:36000], silence(3))), kind="mp3")
    first = whole.index(b"\xff\xf3", 4)
    assert b"Xing" in whole[:first]
    assert lasts(read(whole)) == 5.0
    assert lasts(read(whole[first:])) == pytest.approx(5.0, abs=0.11)
    with pytest.raises(BadRequest, match=r"is 30\.\d s long or more"):
        read(file(noise(40), kind="mp3"))


def test_sizes_that_are_open_are_taken(voice: np.ndarray) -> None:
    """As recorders write them that stream."""
    data = bytearray(file(voice))
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 40, 0xFFFFFFFF)
    assert lasts(read(bytes(data))) == 3.0


# The process.


def children() -> list[int]:
    """Processes of this module's tests: a server that other modules share may run beside them."""
    return [pid for pid in _all_children() if pid not in _others]


def _all_children() -> list[int]:
    return [int(n) for n in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()]


_others: set[int] = set()


@pytest.fixture(autouse=True, scope="module")
def others() -> None:
    _others.update(_all_children())


def decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """A program in place of the decoder."""
    path = tmp_path / "decoder.py"
    path.write_text(program)
    monkeypatch.setattr(prompts, "_DECODER", path)


def test_a_decoder_that_hangs_is_killed(
    voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder(tmp_path, monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(prompts, "_TIME_LIMIT", 0.5)
    with pytest.raises(BadRequest, match=r"not within 0\.5 s"):
        read(file(voice))
    assert children() == []


@pytest.mark.parametrize(
    ("program", "error", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", BadRequest, "ended with status -11"),
        ("import sys; sys.stdin.buffer.read(); print('no answer')", BadRequest, "ended with status 0"),
        ("while True: print('x' * 100000)", BadRequest, "ended with status -9"),
        ("import no_such_library", EngineError, "its decoder does not start"),
    ],
)
def test_a_decoder_that_fails(
    voice: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    error: type[ServiceError],
    complaint: str,
) -> None:
    decoder(tmp_path, monkeypatch, program)
    with pytest.raises(error, match=complaint):
        read(file(voice))
    assert children() == []


def test_a_decoder_can_open_nothing_and_start_nothing_and_take_no_more_memory(
    voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real limits, with a program inside them that tries."""
    real = prompts._DECODER.read_text()
    attack = """
def read(data, bounds):
    done = []
    for name, work in (
        ("open", lambda: open("/etc/passwd")),
        ("socket", lambda: socket.socket()),
        ("memory", lambda: bytearray(600 << 20)),
        ("dup", lambda: os.dup(0)),
        ("kill", lambda: os.kill(os.getppid(), 0)),
        ("fork", lambda: os.fork() or os._exit(0)),
        ("execute", lambda: os.execv("/bin/true", ["true"])),
    ):
        try:
            work()
            done.append(name)
        except (OSError, MemoryError):
            pass
    raise Refused("broken", reason=f"done: {done}")
"""
    decoder(
        tmp_path,
        monkeypatch,
        real.replace("def main()", f"import socket\n{attack}\n\ndef main()"),
    )
    with pytest.raises(BadRequest, match=r"\(done: \[\]\)"):
        read(file(voice))


def test_a_caller_that_leaves_leaves_no_process(
    voice: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder(tmp_path, monkeypatch, "import time; time.sleep(60)")

    async def work() -> None:
        task = asyncio.create_task(read_prompt(file(voice), name="x"))
        await asyncio.sleep(0.3)
        assert len(children()) == 1
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())
    assert children() == []


def test_only_so_many_are_read_at_one_time(voice: np.ndarray) -> None:
    async def work() -> list[Prompt | BaseException]:
        data = file(voice)
        return await asyncio.gather(
            *(read_prompt(data, name="x") for _ in range(MOST_AT_ONCE + 1)), return_exceptions=True
        )

    results = asyncio.run(work())
    refused = [r for r in results if isinstance(r, QueueFull)]
    assert len(refused) == 1
    assert refused[0].retry_after == 2
    assert all(isinstance(r, Prompt) for r in results if r not in refused)
    assert lasts(read(file(voice))) == 3.0, "there is room again"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\我的 声音.wav", "我的 声音.wav"),
        ("a\r\nSet-Cookie: x\0\u202egpj.wav", "aSet-Cookie: xgpj.wav"),
        ("x" * 500, "x" * 60),
        ("/", "upload"),
        ("", "upload"),
    ],
)
def test_names_of_files_are_shown_without_what_could_mislead(name: str, shown: str) -> None:
    assert clean_name(name) == shown


# Anything at all.


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis.ogg", "opus.ogg", "mp3"])
def test_damaged_files_are_refused_or_read_and_nothing_else(voice: np.ndarray, kind: str) -> None:
    dice = random.Random(7)
    whole = file(voice, kind=kind)

    def damage() -> bytes:
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            # Headers decide the most, so half of the changes are there.
            at = dice.randrange(min(200, len(data)) if dice.random() < 0.5 else len(data))
            match dice.randrange(5):
                case 0:
                    data[at] ^= 1 << dice.randrange(8)
                case 1:
                    data[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
                case 2:
                    del data[at : at + dice.randrange(1, 50)]
                case 3:
                    data[at:at] = dice.randbytes(dice.randrange(1, 50))
                case 4:
                    data[at:] = data[at : at + dice.randrange(1, 5000)] * dice.randrange(1, 3)
            if not data:
                break
        return bytes(data)

    async def work() -> tuple[int, int]:
        taken = refused = 0
        for _ in range(12):
            answers = await asyncio.gather(
                *(read_prompt(damage(), name="fuzz") for _ in range(2)), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, Prompt):
                    assert 1.0 <= lasts(answer) <= 30.01
                    taken += 1
                else:
                    assert isinstance(answer, BadRequest), repr(answer)
                    refused += 1
        return taken, refused

    taken, refused = asyncio.run(work())
    assert taken + refused == 24
    assert refused, "the damage does damage"
    assert children() == []
