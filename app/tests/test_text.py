from __future__ import annotations

import pytest

from cosyvoice_app import text
from cosyvoice_app.errors import BadRequest


@pytest.mark.parametrize(
    ("given", "language"),
    [
        ("你好，世界", "cmn"),
        ("今天我們去臺北", "cmn"),  # traditional characters alone do not make it Cantonese
        ("猫咪很吵，环境嘈杂", "cmn"),
        ("佢哋喺度食飯", "yue"),
        ("你食咗飯未呀", "yue"),
        ("用 Python 写程序", "cmn"),
        ("Hello, world", "en"),
        ("Café déjà vu", "en"),
        ("12345", "en"),
        ("𠀀", "cmn"),  # beyond the first 65536 characters
    ],
)
def test_language_by_script(given: str, language: str) -> None:
    assert text.detect_language(given) == language


def test_cleaning() -> None:
    assert text.clean(" a\r\nb\tc\x00\x1bd ") == "a b c d"
    assert text.clean("e\u0301") == "é"
    with pytest.raises(ValueError, match="surrogates"):
        text.clean("a\ud800b")


def test_what_can_be_said() -> None:
    assert text.speakable("。。。a")
    assert text.speakable("好")
    assert not text.speakable("。 …!? 🎲")


def test_foreign_letters() -> None:
    assert text.foreign_letters("你好 abc 123 é，。") == ""
    assert text.foreign_letters("こんにちは привет") == "こんにちはпривет"


def test_a_field_that_is_no_unicode_is_told_in_one_wording_wherever_it_is() -> None:
    for param, what in (("input", ("the text", "文本")), ("name", ("the voice's name", "声音的名称"))):
        with pytest.raises(BadRequest) as caught:
            text.cleaned("a\ud800", param, what)
        assert caught.value.message.startswith(f"{what[0]} is not valid Unicode: ")
        assert (caught.value.zh or "").startswith(f"{what[1]}不是有效的 Unicode")
        assert caught.value.param == param
