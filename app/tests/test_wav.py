from __future__ import annotations

import io
import struct
import wave

import pytest

from cosyvoice_app.wav import Audio, WavError, decode, encode, read_summary

AUDIO = Audio(rate=22050, channels=1, width=2, frames=struct.pack("<5h", 1, -2, 300, -400, 5))


def test_what_is_written_is_read_by_the_standard_library_and_by_us() -> None:
    data = encode(AUDIO, {"text": "你好", "seed": 3})
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22050, 1, 2)
        assert file.readframes(99) == AUDIO.frames
    assert decode(data) == AUDIO
    seconds, parameters = read_summary(io.BytesIO(data))
    assert seconds == pytest.approx(5 / 22050)
    assert parameters == {"text": "你好", "seed": 3}


def test_sizes_are_right_to_the_byte() -> None:
    data = encode(AUDIO, {"text": "x"})
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    assert len(data) % 2 == 0


def test_a_wav_from_a_pipe_has_no_true_size() -> None:
    data = bytearray(encode(AUDIO, {}))[: 44 + len(AUDIO.frames)]
    struct.pack_into("<I", data, 4, 0x7FFFF024)
    struct.pack_into("<I", data, 40, 0x7FFFF000)
    assert decode(bytes(data)) == AUDIO


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a WAV"),
        (b"<html>not found</html>", "not a WAV"),
        (b"RIFF\0\0\0\0WAVE", "no data chunk"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "before its fmt"),
        (b"RIFF\0\0\0\0WAVEfmt \2\0\0\0ab", "fmt chunk is 2 bytes"),
        (encode(AUDIO, {})[:20] + b"\3\0" + encode(AUDIO, {})[22:], "not plain PCM"),
    ],
)
def test_what_is_not_audio_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(WavError, match=complaint):
        decode(data)


def test_summary_of_a_file_without_our_chunk() -> None:
    data = encode(AUDIO, {})[: 44 + len(AUDIO.frames)]
    assert read_summary(io.BytesIO(data)) == (pytest.approx(5 / 22050), {})
    with pytest.raises(WavError):
        read_summary(io.BytesIO(b"RIFF"))
