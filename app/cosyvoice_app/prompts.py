"""The few seconds of a voice that a user uploads to have it cloned: checked, and made into one kind of file.

libsndfile reads formats that attackers know well, and the process of the service holds a GPU and the share.
So an upload is decoded by a process of its own (prompt_decoder.py), which lives for a fraction of a second
under limits on everything. It takes about 0.1 s of a core.

libsndfile has no decoder for what phones and browsers record by themselves (AAC in MP4, Opus in WebM), so
that is refused by its name. Who records on the page does not meet this: gradio's recorder decodes in the
browser, which can read its own recordings, and sends WAV; tests/test_page.py looks whether it still does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import unicodedata
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from .engines import Prompt
from .errors import BadRequest, EngineError, QueueFull, TooLarge
from .wav import Audio, encode

#: Hz of a prompt, which is what CosyVoice3 works with.
RATE = 24000
#: Largest upload in bytes: 30 s of stereo at 48 kHz and 24 bits have room.
MAX_BYTES = 10 << 20
#: Seconds. CosyVoice takes no more than 30; it needs a sentence to hear a voice in.
SHORTEST, LONGEST = 1.0, 30.0
#: Hz. CosyVoice takes nothing below; above it there is no audio, only a claim that costs memory.
LOWEST_RATE, HIGHEST_RATE = 16000, 192_000
#: dB of full scale (RMS). A room without a voice is below, a whisper above.
QUIETEST = -50.0
#: Share of samples at full scale. Speech that was recorded too loud has a few in a hundred.
MOST_CLIPPED = 0.1
#: Uploads that are decoded at one time on this node.
MOST_AT_ONCE = 4

# Seconds until the process is killed; the processor's time is limited too. Under emulation all takes ten
# times as long.
_TIME_LIMIT = 20.0
_CPU_SECONDS = 10
# Bytes of address space. 30 s of stereo at 192 kHz take 150 MB, the libraries 110.
_MEMORY = 512 << 20
# Python's own status, e.g. when an import fails: the decoder has not come as far as the upload.
_NOT_STARTED = 1
_DECODER = Path(__file__).with_name("prompt_decoder.py")

_running = 0


async def read_prompt(data: bytes, *, name: str) -> Prompt:
    """The recording as engines take it. name: of the uploaded file; it is shown and used for nothing else.

    Raises BadRequest (or TooLarge) for what cannot serve as a prompt, QueueFull when MOST_AT_ONCE are being
    read.
    """
    shown = clean_name(name)
    if not data:
        raise _bad(shown, "is empty; choose another file", "是空的；请换一个文件")
    if len(data) > MAX_BYTES:
        size = f"{len(data) / (1 << 20):.1f} MiB"
        raise TooLarge(
            f"{shown} is {size} large, but at most {MAX_BYTES >> 20} MiB are accepted: "
            "use 3 to 10 s of clear speech",
            zh=f"{shown} 有 {size}，最多 {MAX_BYTES >> 20} MiB：请截取 3 到 10 秒清晰的人声",
            param="prompt",
        )
    kind, kind_zh, readable = recognise(data)
    if not readable:
        raise _bad(
            shown,
            f"is {kind}; save the recording as WAV, FLAC, MP3 or Ogg and upload that",
            f"是{kind_zh}；请把录音另存为 WAV、FLAC、MP3 或 Ogg 再上传",
        )
    answer, frames = await _decode(data)
    if "problem" in answer:
        raise _refusal(shown, kind, answer)
    audio = Audio(rate=RATE, channels=1, width=2, frames=frames)
    digest = hashlib.sha256(frames).hexdigest()[:32]
    return Prompt(digest, encode(audio, {}))


def clean_name(name: str) -> str:
    """A file's name as it may be shown: no folders, nothing invisible, at most 60 characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if unicodedata.category(c)[0] not in "CZ" or c == " ").strip()
    return kept[:60] or "upload"


def recognise(data: bytes) -> tuple[str, str, bool]:
    """What bytes are by how they begin, in English and in Chinese, and whether that can be read."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "WAV", " WAV", True
    if data[:4] == b"fLaC":
        return "FLAC", " FLAC", True
    if data[:4] == b"OggS":
        return "Ogg", " Ogg", True
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return "MP3", " MP3", True
    if data[4:8] == b"ftyp":
        return "MP4/M4A", " MP4/M4A", False
    if data[:4] == b"\x1aE\xdf\xa3":
        return "WebM/Matroska", " WebM/Matroska", False
    if data[:5] == b"#!AMR":
        return "AMR", " AMR", False
    if data[0] == 0xFF and data[1:2] and data[1] & 0xF6 == 0xF0:
        return "AAC", " AAC", False
    if data[:4] == b"\x30\x26\xb2\x75":
        return "WMA", " WMA", False
    return f"no audio file (it begins with {data[:8]!r})", f"无法识别的文件（开头是 {data[:8]!r}）", False


def _bad(shown: str, what: str, what_zh: str) -> BadRequest:
    return BadRequest(f"{shown} {what}", zh=f"{shown} {what_zh}", param="prompt")


def _refusal(shown: str, kind: str, found: dict[str, Any]) -> BadRequest:
    match found["problem"]:
        case "channels":
            count = found["channels"]
            return _bad(
                shown,
                f"has {count} channels; save it with one (mono) or two",
                f"有 {count} 个声道；请存为单声道或双声道",
            )
        case "low_rate":
            return _bad(
                shown,
                f"is sampled at {found['rate']} Hz, but at least {LOWEST_RATE} Hz are needed: "
                "record it again, since raising the rate of the file does not help",
                f"的采样率是 {found['rate']} Hz，至少需要 {LOWEST_RATE} Hz：请重新录制，直接转换采样率没有用",
            )
        case "high_rate":
            return _bad(
                shown,
                f"claims {found['rate']} Hz; save it at 48000 Hz or less",
                f"的采样率标为 {found['rate']} Hz；请存为 48000 Hz 或更低",
            )
        case "long":
            return _bad(
                shown,
                f"is {found['seconds']:.1f} s long or more, but at most {LONGEST:g} s are accepted: "
                "cut out 3 to 10 s of clear speech",
                f"长 {found['seconds']:.1f} 秒以上，最多 {LONGEST:g} 秒：请截取 3 到 10 秒清晰的人声",
            )
        case "short":
            return _bad(
                shown,
                f"is {found['seconds']:.2f} s long, but needs at least {SHORTEST:g} s; 3 to 10 s are best",
                f"只有 {found['seconds']:.2f} 秒，至少需要 {SHORTEST:g} 秒，3 到 10 秒最好",
            )
        case "silent":
            return _bad(
                shown,
                f"is nearly silent ({found['decibels']:.0f} dB, at least {QUIETEST:g} are needed): "
                "check the microphone, and record it closer and louder",
                f"几乎没有声音（{found['decibels']:.0f} dB，至少需要 {QUIETEST:g} dB）："
                "请检查麦克风，靠近些、大声些重新录制",
            )
        case "clipped":
            return _bad(
                shown,
                f"is overdriven, {found['share']:.0%} of it cut off at full scale; record it with less gain",
                f"严重过载失真：有 {found['share']:.0%} 被削顶；请调低录音音量后重新录制",
            )
    return _bad(
        shown,
        f"looks like {kind} but cannot be decoded ({found.get('reason') or 'it is damaged'}); "
        "save it again as WAV and upload that",
        f"看起来是 {kind}，但无法解码（{found.get('reason') or '文件已损坏'}）；请重新存为 WAV 再上传",
    )


async def _decode(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What the decoder answers and the samples it gives. However this ends, the process has ended too."""
    global _running
    if _running >= MOST_AT_ONCE:
        raise QueueFull(
            f"{_running} uploads are being read, which is the limit of this node; try again in 2 s",
            zh=f"本节点正在处理 {_running} 个上传文件，已到上限；请在 2 秒后再试",
            retry_after=2,
        )
    _running += 1
    try:
        return await _decode_now(data)
    finally:
        _running -= 1


async def _decode_now(data: bytes) -> tuple[dict[str, Any], bytes]:
    bounds = {
        "rate": RATE,
        "channels": 2,
        "lowest_rate": LOWEST_RATE,
        "highest_rate": HIGHEST_RATE,
        "shortest": SHORTEST,
        "longest": LONGEST,
        "quietest": QUIETEST,
        "most_clipped": MOST_CLIPPED,
        "memory": _MEMORY,
        "cpu_seconds": _CPU_SECONDS,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(_DECODER), json.dumps(bounds)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
        # One thread: each takes address space, and there is nothing for more to do.
        env={"OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
    )
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            output = await _talk(process, data)
            await process.wait()
    except TimeoutError:
        return {"problem": "broken", "reason": f"not within {_TIME_LIMIT:g} s"}, b""
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode == _NOT_STARTED:
        raise EngineError(
            "this node cannot read uploads: its decoder does not start; tell this service's administrator",
            zh="本节点无法读取上传的文件：解码程序不能启动；请联系本服务的管理员",
        )
    line, _, frames = output.partition(b"\n")
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if process.returncode or not isinstance(answer, dict) or len(frames) % 2:
        return {"problem": "broken", "reason": f"its decoder ended with status {process.returncode}"}, b""
    return answer, frames


async def _talk(process: Process, data: bytes) -> bytes:
    """Feeds and reads, and never holds more than a prompt can be."""
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    async def feed() -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(data)
            await stdin.drain()
        stdin.close()

    most = int(LONGEST * RATE * 2) + (1 << 16)

    async def take() -> bytes:
        output = b""
        while len(output) <= most and (part := await stdout.read(1 << 18)):
            output += part
        if len(output) > most:
            process.kill()
        return output[:most]

    _, output = await asyncio.gather(feed(), take())
    return output
