"""WAV (RIFF, PCM) bytes: reading what an engine gave, writing what users get, with its parameters inside."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

_PCM = 1
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


class WavError(ValueError):
    """The bytes are not PCM audio that could be played."""


@dataclass(frozen=True)
class Audio:
    """PCM audio. rate in Hz, width in bytes per sample."""

    rate: int
    channels: int
    width: int
    frames: bytes

    @property
    def seconds(self) -> float:
        return len(self.frames) / (self.rate * self.channels * self.width)


def join(pieces: Sequence[Audio]) -> Audio:
    """The pieces one after the other. Raises WavError when there are none or they differ in format."""
    if not pieces:
        raise WavError("there is no audio")
    first = pieces[0]
    form = (first.rate, first.channels, first.width)
    for piece in pieces:
        if (piece.rate, piece.channels, piece.width) != form:
            raise WavError(
                f"its pieces differ in rate, channels or width: {form} and then "
                f"{(piece.rate, piece.channels, piece.width)}"
            )
    return Audio(*form, b"".join(piece.frames for piece in pieces))


def cut(audio: Audio, seconds: float) -> Iterator[Audio]:
    """The same audio in pieces of that length, for a reader that wants it bit by bit."""
    block = audio.channels * audio.width
    step = max(1, round(seconds * audio.rate)) * block
    for at in range(0, len(audio.frames), step):
        yield replace(audio, frames=audio.frames[at : at + step])


def decode(data: bytes) -> Audio:
    """Reads PCM WAV, also one whose sizes are unknown because it was written to a pipe (espeak-ng does
    that).
    """
    if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError(f"not a WAV file: it begins with {data[:12]!r}")
    form: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            if size < 16 or at + 16 > len(data):
                raise WavError(f"its fmt chunk is {size} bytes long, 16 are needed")
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, at)
            form = (tag, channels, rate, bits)
        elif name == b"data":
            if form is None:
                raise WavError("its data chunk comes before its fmt chunk")
            tag, channels, rate, bits = form
            if tag != _PCM or bits % 8 or not bits or not channels or not rate:
                raise WavError(f"not plain PCM: format {tag}, {bits} bits, {channels} channels, {rate} Hz")
            block = channels * bits // 8
            # A pipe cannot be rewound to write the size, so a size beyond the end means: all that is left.
            end = min(at + size, len(data))
            return Audio(rate, channels, bits // 8, data[at : at + (end - at) // block * block])
        at += size + size % 2
    raise WavError("it has no data chunk")


def encode(audio: Audio, parameters: dict[str, Any]) -> bytes:
    """WAV bytes with `parameters` as JSON in a LIST INFO chunk.

    The chunk comes after the audio, so that a reader which expects it at byte 44 finds it there. One file
    holds the sound and how it was made: nothing can be half there, and the same request gives the same bytes
    on every node.
    """
    comment = json.dumps(parameters, ensure_ascii=False, sort_keys=True).encode() + b"\0"
    comment += b"\0" * (len(comment) % 2)
    listing = b"INFO" + struct.pack("<4sI", b"ICMT", len(comment)) + comment
    trailer = struct.pack("<4sI", b"LIST", len(listing)) + listing
    pad = b"\0" * (len(audio.frames) % 2)
    block = audio.channels * audio.width
    header = _HEADER.pack(
        b"RIFF",
        36 + len(audio.frames) + len(pad) + len(trailer),
        b"WAVE",
        b"fmt ",
        16,
        _PCM,
        audio.channels,
        audio.rate,
        audio.rate * block,
        block,
        audio.width * 8,
        b"data",
        len(audio.frames),
    )
    return b"".join((header, audio.frames, pad, trailer))


def read_summary(file: BinaryIO) -> tuple[float, dict[str, Any]]:
    """Duration in seconds and parameters of a file that `encode` wrote, without reading its audio.

    Raises WavError for any other file.
    """
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise WavError("shorter than a WAV header")
    riff, _, wave, fmt, _, tag, _, rate, _, block, _, data, size = _HEADER.unpack(header)
    if (riff, wave, fmt, data, tag) != (b"RIFF", b"WAVE", b"fmt ", b"data", _PCM) or not (rate and block):
        raise WavError("its header is not one of ours")
    file.seek(_HEADER.size + size + size % 2)
    trailer = file.read(1 << 20)
    seconds = size / (rate * block)
    if trailer[:4] != b"LIST" or trailer[8:16] != b"INFOICMT":
        return seconds, {}
    length = int.from_bytes(trailer[16:20], "little")
    try:
        parameters = json.loads(trailer[20 : 20 + length].rstrip(b"\0"))
    except ValueError:
        return seconds, {}
    return seconds, parameters if isinstance(parameters, dict) else {}
