from __future__ import annotations

import array
import asyncio
import io
import math
import threading

import numpy as np
import pytest
import soundfile
import soxr

from cosyvoice_app import formats
from cosyvoice_app.engines import SpeechRequest
from cosyvoice_app.engines.cpu import CpuEngine
from cosyvoice_app.errors import BadRequest
from cosyvoice_app.formats import MEDIA_TYPES, PCM_RATE, Encodings, StreamEncoder, check_format, encode
from cosyvoice_app.wav import Audio, decode
from cosyvoice_app.wav import encode as encode_wav

# A stream of MP3 has no index by which a player could leave out the encoder's own beginning and end.
MP3_PADDING = 0.11


@pytest.fixture(scope="module")
def spoken() -> Audio:
    """A few seconds of real speech, 22050 Hz."""

    async def speak() -> Audio:
        engine = CpuEngine()
        await engine.start()
        return await engine.speak(engine.plan(SpeechRequest("This sentence fills a few pages.")))

    return asyncio.run(speak())


def tone(rate: int, frames: int, *, channels: int = 1, width: int = 2) -> Audio:
    """440 Hz at half of full scale."""
    wave = [0.5 * math.sin(2 * math.pi * 440 * n / rate) for n in range(frames) for _ in range(channels)]
    if width == 1:
        return Audio(rate, channels, 1, bytes(round(128 + 127 * s) for s in wave))
    top = (1 << (8 * width - 1)) - 1
    return Audio(
        rate, channels, width, b"".join(round(top * s).to_bytes(width, "little", signed=True) for s in wave)
    )


def read(data: bytes, format: str) -> tuple[np.ndarray, int]:
    """Samples from -1 to 1 and their rate, as a player would read them."""
    if format == "pcm":
        return np.frombuffer(data, "<i2") / 32768, PCM_RATE
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.channels == 1
        return file.read(), file.samplerate


def loudness(samples: np.ndarray) -> float:
    """RMS in dB of full scale."""
    return 20 * math.log10(float(np.sqrt(np.mean(np.square(samples)))))


def distance(samples: np.ndarray, others: np.ndarray) -> float:
    """RMS of what they differ by, as far as both last."""
    common = min(len(samples), len(others))
    return float(np.sqrt(np.mean(np.square(samples[:common] - others[:common]))))


def stream(audio: Audio, format: str, seconds: float = 0.1) -> list[bytes]:
    encoder = StreamEncoder(format, audio.rate)
    step = max(1, int(audio.rate * seconds)) * audio.channels * audio.width
    parts = [
        encoder.feed(Audio(audio.rate, audio.channels, audio.width, audio.frames[at : at + step]))
        for at in range(0, len(audio.frames), step)
    ]
    return [*parts, encoder.finish()]


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_every_format_lasts_as_long_and_is_as_loud_as_the_speech(spoken: Audio, format: str) -> None:
    made = encode(encode_wav(spoken, {"text": "x"}), format)
    assert made.media_type == MEDIA_TYPES[format]
    samples, rate = read(made.data, format)
    assert len(samples) / rate == pytest.approx(spoken.seconds, abs=0.002)
    source = np.frombuffer(spoken.frames, "<i2") / 32768
    assert loudness(samples) == pytest.approx(loudness(source), abs=0.5)


def test_what_was_encoded_lately_is_not_encoded_again(spoken: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = encode_wav(spoken, {"text": "one"}), encode_wav(spoken, {"text": "other"})
    size = len(encode(one, "mp3").data)
    done: list[tuple[bytes, str]] = []

    def counted(wav: bytes, format: str) -> formats.Encoded:
        done.append((wav, format))
        return encode(wav, format)

    monkeypatch.setattr(formats, "encode", counted)

    async def ask(encodings: Encodings, *wanted: tuple[bytes, str]) -> None:
        for wav, format in wanted:
            assert await encodings.get(wav, format) == encode(wav, format)

    asyncio.run(ask(Encodings(), (one, "mp3"), (one, "mp3"), (one, "pcm"), (other, "mp3"), (one, "mp3")))
    assert done == [(one, "mp3"), (one, "pcm"), (other, "mp3")]
    done.clear()
    # With room for one: the one that was asked for last stays.
    asyncio.run(ask(Encodings(size), (one, "mp3"), (other, "mp3"), (other, "mp3"), (one, "mp3")))
    assert done == [(one, "mp3"), (other, "mp3"), (one, "mp3")]


def test_the_compressed_ones_are_small_and_wav_stays_as_it_was(spoken: Audio) -> None:
    wav = encode_wav(spoken, {"text": "kept"})
    assert encode(wav, "wav").data == wav
    for format in ("mp3", "opus"):
        assert len(encode(wav, format).data) < len(wav) / 4


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_what_is_streamed_is_heard_as_the_whole_is(spoken: Audio, format: str) -> None:
    parts = stream(spoken, format)
    whole, rate = read(encode(encode_wav(spoken, {}), format).data, format)
    heard, heard_rate = read(b"".join(parts), format)
    assert heard_rate == rate
    longest = MP3_PADDING if format == "mp3" else 0.002
    assert 0 <= (len(heard) - len(whole)) / rate <= longest
    assert loudness(heard) == pytest.approx(loudness(whole), abs=0.3)
    # As near to what was said as the whole is. The samples differ: Opus decides anew for each piece, and an
    # MP3 without an index begins later.
    said = soxr.resample(np.frombuffer(spoken.frames, "<i2") / 32768, spoken.rate, rate)
    shift = int(np.argmax(np.correlate(heard, said[: rate * 2], "valid"))) if format == "mp3" else 0
    assert distance(heard[shift:], said) == pytest.approx(distance(whole, said), rel=0.1, abs=0.002)
    # It comes while it is fed and not at the end.
    assert sum(map(len, parts[: len(parts) // 2])) > 0.3 * sum(map(len, parts))


@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_a_beginning_of_a_stream_can_be_heard_alone(spoken: Audio, format: str) -> None:
    """A listener has the first half when half is fed, give or take a page or a frame."""
    parts = stream(spoken, format)
    samples, rate = read(b"".join(parts[: len(parts) // 2]), format)
    assert len(samples) / rate == pytest.approx(spoken.seconds / 2, abs=0.45)


@pytest.mark.parametrize("format", MEDIA_TYPES)
@pytest.mark.parametrize("frames", [0, 1, 777])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_any_rate_and_hardly_any_audio(format: str, frames: int, rate: int) -> None:
    audio = tone(rate, frames)
    for data in (encode(encode_wav(audio, {}), format).data, b"".join(stream(audio, format))):
        samples, read_rate = read(data, format)
        assert len(samples) / read_rate == pytest.approx(frames / rate, abs=MP3_PADDING)


@pytest.mark.parametrize("rate", [8000, 48000])
@pytest.mark.parametrize("format", MEDIA_TYPES)
def test_a_tone_keeps_its_pitch(format: str, rate: int) -> None:
    samples, read_rate = read(b"".join(stream(tone(rate, rate), format)), format)
    peak = np.argmax(np.abs(np.fft.rfft(samples, read_rate)))
    assert peak == pytest.approx(440, abs=2)


@pytest.mark.parametrize(("channels", "width"), [(2, 2), (1, 1), (1, 3), (2, 4)])
def test_other_layouts_become_one_channel_of_16_bits(channels: int, width: int) -> None:
    audio = tone(24000, 2400, channels=channels, width=width)
    expected = np.frombuffer(tone(24000, 2400).frames, "<i2")
    made = np.frombuffer(encode(encode_wav(audio, {}), "pcm").data, "<i2")
    assert np.abs(made.astype(int) - expected).max() <= (300 if width == 1 else 2)


def test_full_scale_does_not_wrap_around() -> None:
    loud = Audio(22050, 1, 2, array.array("h", [32767, -32768] * 11025).tobytes())
    smooth = Audio(22050, 1, 2, array.array("h", [32767] * 22050).tobytes())
    assert encode(encode_wav(loud, {}), "pcm").data
    samples, _ = read(encode(encode_wav(smooth, {}), "pcm").data, "pcm")
    assert samples[1000:-1000].min() > 0.99


def test_a_stream_of_mp3_begins_with_sound_and_not_with_the_place_of_an_index(spoken: Audio) -> None:
    data = b"".join(stream(spoken, "mp3"))
    assert data[0] == 0xFF  # a frame begins
    assert any(data[4:100])
    assert b"Info" in encode(encode_wav(spoken, {}), "mp3").data[:100]


def test_a_stream_of_wav_says_that_its_end_is_open(spoken: Audio) -> None:
    data = b"".join(stream(spoken, "wav"))
    assert decode(data) == spoken
    assert data[40:44] == b"\xff" * 4


def test_calls_may_come_from_several_threads(spoken: Audio) -> None:
    encoder = StreamEncoder("mp3", spoken.rate)
    parts: list[bytes] = []
    for work in (lambda: parts.append(encoder.feed(spoken)), lambda: parts.append(encoder.finish())):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    samples, rate = read(b"".join(parts), "mp3")
    assert len(samples) / rate == pytest.approx(spoken.seconds, abs=MP3_PADDING)


def test_another_rate_in_the_middle_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="8000 Hz after 24000 Hz"):
        StreamEncoder("pcm", 24000).feed(tone(8000, 80))


def test_names_of_formats() -> None:
    assert check_format(" MP3") == "mp3"
    with pytest.raises(
        BadRequest, match=r"'flac' is not supported; use one of: wav, mp3, opus, pcm"
    ) as caught:
        check_format("flac")
    assert caught.value.param == "response_format"
    assert "不支持 response_format 'flac'" in caught.value.text(chinese=True)
