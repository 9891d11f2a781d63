"""What users get: WAV as it is kept, or MP3, Opus or bare PCM made of it, whole or while it is being spoken.

Encoding takes a core for 7 (MP3) to 25 (Opus) milliseconds for each second of audio and must not run on the
event loop: call `encode`, `StreamEncoder.feed` and `StreamEncoder.finish` by asyncio.to_thread(), or
`Encodings.get`, which does. The libraries let go of the interpreter while they work.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .errors import BadRequest
from .wav import Audio, decode

#: Format -> media type. `pcm` is what OpenAI's API calls so: 16-bit little-endian samples, mono, 24000 Hz, no
#: header.
MEDIA_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm;rate=24000;channels=1",
}
PCM_RATE = 24000

Samples = npt.NDArray[np.int16]

# Rates that are encoded as they come; others become PCM_RATE. MP3 has more, but players without the extension
# "MPEG 2.5" know none below 16 kHz, and above 24 kHz it would need twice the bits.
_RATES = {"mp3": (16000, 22050, 24000), "opus": (8000, 12000, 16000, 24000, 48000), "pcm": (PCM_RATE,)}
# Of constant bit rate, 64 kbit/s at these rates: a reader of a stream, which has no index, estimates the
# duration by the first frame, and libsndfile reads no further than its estimate.
_MP3 = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.6}
_OPUS = {"format": "OGG", "subtype": "OPUS"}
# Milliseconds of audio in a page, the least that a listener gets at a time. libsndfile's default is 1000.
_OPUS_PAGE = 200.0
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # SFC_SET_OGG_PAGE_LATENCY_MS of sndfile.h
# The size of what has no end yet; readers take all that comes.
_ENDLESS = 0xFFFFFFFF


@dataclass(frozen=True)
class Encoded:
    data: bytes
    media_type: str


def check_format(name: str) -> str:
    """The name of a format, in lower case. Raises BadRequest for one that is not in MEDIA_TYPES."""
    wanted = name.strip().lower()
    if wanted not in MEDIA_TYPES:
        known = list(MEDIA_TYPES)
        raise BadRequest(
            f"response_format {name[:40]!r} is not supported; use one of: {', '.join(known)}",
            zh=f"不支持 response_format {name[:40]!r}；可以使用：{'、'.join(known)}",
            param="response_format",
        )
    return wanted


def encode(wav: bytes, format: str) -> Encoded:
    """A finished result in another format; `wav` is handed back as it is.

    An MP3 made here has an index, so that players seek exactly and know the duration to the sample.
    Raises WavError for bytes that are no PCM WAV.
    """
    media_type = MEDIA_TYPES[format]
    if format == "wav":
        return Encoded(wav, media_type)
    audio = decode(wav)
    encoder = StreamEncoder(format, audio.rate, whole=True)
    encoder.feed(audio)
    return Encoded(encoder.finish(), media_type)


class Encodings:
    """Results in the formats that they were asked for lately: a result that is there already is often asked
    for in the same format again, and encoding takes longer than all the rest.
    """

    def __init__(self, most_bytes: int = 16 << 20) -> None:
        """most_bytes: of what is kept. 16 MiB are half an hour of MP3."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._size = 0

    async def get(self, wav: bytes, format: str) -> Encoded:
        """As `encode`, off the event loop. Raises WavError."""
        if format == "wav":
            return encode(wav, format)
        # By the bytes and not by the result's name: it may be made anew, and an engine on a GPU does not
        # promise the same bits.
        key = (hashlib.sha256(wav).hexdigest(), format)
        if (kept := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return kept
        encoded = await asyncio.to_thread(encode, wav, format)
        if key not in self._kept and len(encoded.data) <= self._most_bytes:
            self._kept[key] = encoded
            self._size += len(encoded.data)
            while self._size > self._most_bytes:
                self._size -= len(self._kept.popitem(last=False)[1].data)
        return encoded


class StreamEncoder:
    """Encodes audio while more of it is still being made. What `feed` and `finish` return makes, joined, the
    file.

    One call at a time; each may come from another thread. One that is not finished can simply be dropped.
    """

    def __init__(self, format: str, rate: int, *, whole: bool = False) -> None:
        """format: one of MEDIA_TYPES. rate: of all audio that will be fed, in Hz. whole: give nothing away
        before the end, so that the file has its index. Default: give away what there is as early as possible.
        """
        self.media_type = MEDIA_TYPES[format]
        self._rate = rate
        self._whole = whole
        target = rate if rate in _RATES.get(format, (rate,)) else PCM_RATE
        self._resampler = None if target == rate else soxr.ResampleStream(rate, target, 1, dtype="int16")
        self._sink = _Sink(skip_first=format == "mp3" and not whole)
        self._file: soundfile.SoundFile | None = None
        self._empty = True
        if format == "wav":
            self._sink.write(_endless_header(rate))
        elif format == "mp3":
            self._file = soundfile.SoundFile(self._sink, "w", samplerate=target, channels=1, **_MP3)
        elif format == "opus":
            self._file = soundfile.SoundFile(self._sink, "w", samplerate=target, channels=1, **_OPUS)
            _set_page(self._file)

    def feed(self, audio: Audio) -> bytes:
        """What can be sent on by now; often nothing. Channels are mixed to one.

        Raises ValueError for audio of another rate.
        """
        if audio.rate != self._rate:
            raise ValueError(f"audio of {audio.rate} Hz after {self._rate} Hz")
        samples = _samples(audio)
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        self._write(samples)
        return b"" if self._whole else self._sink.take()

    def finish(self) -> bytes:
        """The rest. No call may follow."""
        if self._resampler is not None:
            self._write(self._resampler.resample_chunk(np.zeros(0, np.int16), last=True))
        if self._file is not None:
            if self._empty:
                # Neither MP3 nor Opus has a file without sound, and a player should not stumble over it.
                self._write(np.zeros(1, np.int16))
            self._file.close()
        return self._sink.take()

    def _write(self, samples: Samples) -> None:
        self._empty = self._empty and not len(samples)
        if self._file is not None:
            self._file.write(samples)
        else:
            self._sink.write(samples.astype("<i2", copy=False).tobytes())


class _Sink:
    """The file that libsndfile writes, as far as it is not sent: changes to what is gone have no effect."""

    def __init__(self, *, skip_first: bool) -> None:
        """skip_first: leave out the first write. LAME keeps a place there for the index of an MP3 file: a
        frame that is heard as a gap when nobody goes back to fill it.
        """
        self._skip = skip_first
        self._at = 0
        self._sent = 0
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        start = self._at - self._sent
        if self._skip:
            self._sent += len(data)
            self._skip = False
        elif start >= 0:
            self._buffer[start : start + len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._sent + len(self._buffer)
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        """What has come since the last call."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        self._sent += len(taken)
        return taken


def _endless_header(rate: int) -> bytes:
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", _ENDLESS, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", _ENDLESS),
    )


def _set_page(file: soundfile.SoundFile) -> None:
    # soundfile has no word of its own for this command.
    value = soundfile._ffi.new("double *", _OPUS_PAGE)
    soundfile._snd.sf_command(file._file, _SET_OGG_PAGE_LATENCY_MS, value, soundfile._ffi.sizeof("double"))


def _samples(audio: Audio) -> Samples:
    """16 bits, one channel; half a frame at the end is left out."""
    block = audio.channels * audio.width
    data = audio.frames[: len(audio.frames) // block * block]
    if audio.width == 1:
        samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8
    elif audio.width == 2:
        samples = np.frombuffer(data, "<i2")
    else:  # the two upper bytes of each
        samples = (
            np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(-1, audio.width)[:, -2:])
            .view("<i2")
            .reshape(-1)
        )
    if audio.channels > 1:
        samples = samples.reshape(-1, audio.channels).mean(axis=1)
    return samples.astype(np.int16)
