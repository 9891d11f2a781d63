"""What a text is written in, and cleaning it for an engine."""

from __future__ import annotations

import re
import unicodedata

from .errors import BadRequest

_HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_HAN_RE = re.compile(f"[{_HAN}]")
_LATIN_RE = re.compile("[A-Za-z\u00c0-\u024f]")
# What is read by engines that know Chinese and Latin: also fractions, powers and Roman numerals of Unicode.
_READABLE_RE = re.compile(f"[A-Za-z0-9\u00b2\u00b3\u00b9\u00bc-\u00be\u00c0-\u024f\u2160-\u2188{_HAN}]")
# Characters of written Cantonese that written Mandarin does not use; one is enough to tell.
_CANTONESE_RE = re.compile("[哋佢冇嘅咗喺唔嚟乜嗰啲嘢㗎瞓攞揾搵諗嗌噉嘥啱啩喐嘞咪嘈冚]")
# 咪 and 嘈 alone are Mandarin too (猫咪, 嘈杂): they count only beside another one.
_WEAK_RE = re.compile("[咪嘈]")


def clean(text: str) -> str:
    """NFC, line ends and control characters as spaces, no space at the ends.

    Raises ValueError for half of a surrogate pair, which JSON can carry and UTF-8 cannot.
    """
    text.encode()  # UnicodeEncodeError is a ValueError
    text = unicodedata.normalize("NFC", text)
    kept = (
        " " if char in "\r\n\t" or unicodedata.category(char) in ("Cc", "Cs", "Co") else char for char in text
    )
    return re.sub(r"[ \u3000]+", " ", "".join(kept)).strip()


def cleaned(text: str, param: str, what: tuple[str, str]) -> str:
    """`clean` for a field of a request. Raises BadRequest. what: what it is, in English and in Chinese."""
    try:
        return clean(text)
    except ValueError:
        raise BadRequest(
            f"{what[0]} is not valid Unicode: it holds half of a surrogate pair; send it as UTF-8",
            zh=f"{what[1]}不是有效的 Unicode：其中有不成对的代理字符；请用 UTF-8 发送",
            param=param,
        ) from None


def speakable(text: str) -> bool:
    """Whether there is a letter or a digit, so anything to say at all."""
    return any(char.isalnum() for char in text)


def has_han(text: str) -> bool:
    return bool(_HAN_RE.search(text))


def readable(text: str) -> bool:
    """Whether there is a Chinese character, a Latin letter or a number, once `plain_digits` has seen it."""
    return bool(_READABLE_RE.search(plain_digits(text)))


def plain_digits(text: str) -> str:
    """The text with 0 to 9 for what stands for whole numbers otherwise, e.g. full-width or circled."""
    return "".join(map(_plain_digit, text))


def _plain_digit(char: str) -> str:
    if _READABLE_RE.match(char) or not char.isnumeric():
        return char
    value = unicodedata.numeric(char)
    if not value.is_integer():
        return char
    # Digits next to each other are one number; numbers that are one character are not.
    return str(int(value)) if char.isdecimal() else f" {int(value)} "


def foreign_letters(text: str) -> str:
    """The letters that are neither Chinese nor Latin, e.g. kana or Cyrillic."""
    return "".join(
        char for char in text if char.isalpha() and not _HAN_RE.match(char) and not _LATIN_RE.match(char)
    )


def detect_language(text: str) -> str:
    """`yue` (Cantonese), `cmn` (Mandarin) or `en`, by script.

    Chinese characters make it Chinese, whatever Latin words stand between them; text without any letter
    counts as English.
    """
    if not has_han(text):
        return "en"
    marks = _CANTONESE_RE.findall(text)
    return "yue" if any(not _WEAK_RE.match(mark) for mark in marks) else "cmn"
