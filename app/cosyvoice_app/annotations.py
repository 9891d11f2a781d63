"""Pronunciation annotations in a text, as CosyVoice3 takes them: checked, shown, and spoken by espeak-ng.

    他的爱[h][ào]            a Mandarin syllable: initial and final with its tone mark, or a final alone: [ài]
    one [M][IH1][N][AH0][T]  an English word in the CMU set (ARPAbet), vowels with a stress digit or without
    [breath] [laughter]      sounds that are not speech
    <strong>now</strong>     stress; <laughter>..</laughter>: said while laughing

The model reads a piece only when its tokenizer has it as one token; any other spelling it reads aloud,
letter by letter or worse, and nobody is told. What the tokenizer has: `CosyVoice3Tokenizer` in
cosyvoice/tokenizer/tokenizer.py of FunAudioLLM/CosyVoice at ace7c47; examples in example.py there.

Brackets are for prose too. `[1]`, `[see below]`, `[注]` stay text. What the model would take for a piece is
an annotation, wherever it stands: `[n]` alone is refused, since it would be heard as a sound. What looks like
a piece misspelt is refused with the nearest right spelling. Who means such brackets as text writes （n） or
(n).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from . import text as texts
from .errors import BadRequest

Kind = Literal["text", "pinyin", "phonemes", "mark"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(text: str) -> dict[str, str]:
    """`key=value` by spaces."""
    return dict(pair.split("=") for pair in text.split())


#: Initials as pinyin is written, so that y and w count as such.
INITIALS = _words("b p m f d t n l g k h j q x zh ch sh r z c s y w")

# Tones (5: none) in which the tokenizer has each final. The tokenizer writes üe as ve.
_TONES = {
    "12345": "a ai an ang ao e ei en eng i ian in ing iu o ong ou u uang ue un uo",
    "1234": "ia iang iao ie iong ua uai uan ui",
    "234": "er ü",
    "4": "ve",
}
# Which initials go before a final ("-": it also stands alone), by the syllables of Standard Mandarin.
_BEFORE = {
    "a": "- b p m f d t n l g k h zh ch sh z c s y w",
    "ai": "- b p m d t n l g k h zh ch sh z c s w",
    "an": "- b p m f d t n l g k h zh ch sh r z c s y w",
    "ang": "- b p m f d t n l g k h zh ch sh r z c s y w",
    "ao": "- b p m d t n l g k h zh ch sh r z c s y",
    "e": "- m d t n l g k h zh ch sh r z c s y",
    "ei": "- b p m f d t n l g k h zh sh z w",
    "en": "- b p m f d n g k h zh ch sh r z c s w",
    "eng": "- b p m f d t n l g k h zh ch sh r z c s w",
    "er": "-",
    "i": "b p m d t n l j q x zh ch sh r z c s y",
    "ia": "d l j q x",
    "ian": "b p m d t n l j q x",
    "iang": "n l j q x",
    "iao": "b p m f d t n l j q x",
    "ie": "b p m d t n l j q x",
    "in": "b p m n l j q x y",
    "ing": "b p m d t n l j q x y",
    "iong": "j q x",
    "iu": "m d n l j q x",
    "o": "- b p m f l y w",
    "ong": "d t n l g k h zh ch r z c s y",
    "ou": "- p m f d t n l g k h zh ch sh r z c s y",
    "u": "b p m f d t n l g k h j q x zh ch sh r z c s y w",
    "ua": "g k h zh ch sh r",
    "uai": "g k h zh ch sh",
    "uan": "d t n l g k h j q x zh ch sh r z c s y",
    "uang": "g k h zh ch sh",
    "ue": "j q x y",
    "ui": "d t g k h zh ch sh r z c s",
    "un": "d t l g k h j q x zh ch sh r z c s y",
    "uo": "d t n l g k h zh ch sh r z c s",
    "ü": "n l",
    "ve": "n l",
}
_LETTERS_OF_PINYIN = re.compile("[a-zü]{1,7}")
_PINYIN_WITH_DIGIT = re.compile("[a-zü]{2,6}[1-5]")
# Syllables that are said without a tone: particles, suffixes and the second halves of common words. Elsewhere
# a missing tone mark is a mistake.
_TONELESS = _words(
    "a ba bai bei bo bu chang chen chi chu da dai dang de di dong duo en fang fen fu ga ge gong gu "
    "guo he hou hu huang huo ji jin jing jiu ju la lai lang lao le lei li ling lo lou lu luo ma me "
    "mei men mian mo mu na nai nang ne ni o po pu qi qin qing qu ren sang sha shang shen sheng shi "
    "shou shu shuo si suo ta tai tang teng tian tong tou tu wa wang wei wen wu xi xian xin xing xu ya "
    "yan yang ye yi yin yo you yu yun zha zhang zhe zhi zhong zhu zi zong zuo"
)

# espeak-ng's names of American English.
_CONSONANTS = _table(
    "B=b CH=tS D=d DH=D F=f G=g HH=h JH=dZ K=k L=l M=m N=n NG=N P=p R=r S=s SH=S T=t TH=T V=v W=w Y=j Z=z "
    "ZH=Z"
)
_VOWELS = _table("AA=A: AE=a AH=V AO=O: AW=aU AY=aI EH=E ER=3: EY=eI IH=I IY=i: OW=oU OY=OI UH=U UW=u:")
_UNSTRESSED_VOWELS = {**_VOWELS, **_table("AH=@ ER=3 IH=I2 IY=i")}
_STRESS = {"": "", "0": "", "1": "'", "2": ","}
#: Every phoneme that the tokenizer has, with espeak-ng's name for it.
PHONEMES: dict[str, str] = {
    **_CONSONANTS,
    **{
        vowel + digit: mark + (_UNSTRESSED_VOWELS if digit == "0" else _VOWELS)[vowel]
        for vowel in _VOWELS
        for digit, mark in _STRESS.items()
    },
}

#: Sounds by the word in brackets: English and Chinese name.
MARKS: dict[str, tuple[str, str]] = {
    "breath": ("breath", "呼吸"),
    "quick_breath": ("quick breath", "急促呼吸"),
    "laughter": ("laughter", "笑声"),
    "cough": ("cough", "咳嗽"),
    "sigh": ("sigh", "叹气"),
    "hissing": ("hissing", "嘶声"),
    "clucking": ("clucking", "咂舌"),
    "lipsmack": ("lip smack", "咂嘴"),
    "mn": ("mm", "嗯声"),
    "noise": ("noise", "噪声"),
    "vocalized-noise": ("vocal noise", "人声杂音"),
    "accent": ("accent", "口音"),
}
_JOINTS = re.compile(r"[\s_-]")
# By the letters alone. No two are one slip apart.
_BARE_MARKS = {_JOINTS.sub("", name): name for name in MARKS}
# Those in which a slip is not another word, by their length.
_LONG_MARKS: dict[int, list[str]] = {}
for _bare in _BARE_MARKS:
    if len(_bare) >= 6:
        _LONG_MARKS.setdefault(len(_bare), []).append(_bare)
#: Tags around words.
TAGS: dict[str, tuple[str, str]] = {
    "strong": ("stressed", "重读"),
    "laughter": ("laughing", "笑着说"),
}


@dataclass(frozen=True)
class Piece:
    """A part of a text. start: where it begins, from 0. source: as it was written.

    value: `text`: the text. `pinyin`: initial and final joined, e.g. hào. `phonemes`: their names, a space
    between two. `mark`: the word in the brackets, or `<strong>`, `</strong>`, `<laughter>`, `</laughter>`.
    """

    kind: Kind
    start: int
    source: str
    value: str


@dataclass(frozen=True)
class Mistake:
    """start, end: what is wrong, in characters from 0. fix: what it should probably be."""

    start: int
    end: int
    english: str
    chinese: str
    fix: str = ""

    def message(self, chinese: bool) -> str:
        if chinese:
            return f"{self.chinese}{f'；是否应为 {self.fix}？' if self.fix else ''}"
        return f"{self.english}{f'; did you mean {self.fix}?' if self.fix else ''}"


#: So many mistakes are told of one text; the rest is counted.
MOST_TOLD = 20


def parse(text: str) -> list[Piece]:
    """The pieces of a text, whose sources joined are the text. Raises BadRequest with all mistakes."""
    pieces, mistakes = examine(text)
    if mistakes:
        raise BadRequest(_complain(text, mistakes, False), zh=_complain(text, mistakes, True), param="input")
    return pieces


def annotated(pieces: Sequence[Piece]) -> bool:
    """Whether anything in it is an annotation."""
    return any(piece.kind != "text" for piece in pieces)


def plain(pieces: Sequence[Piece]) -> str:
    """The text without its annotations."""
    return " ".join(piece.value for piece in pieces if piece.kind == "text").strip()


def speakable(pieces: Sequence[Piece]) -> bool:
    """Whether there is anything to say: a letter or digit, a syllable or a word. Sounds alone are nothing."""
    return any(piece.kind in ("pinyin", "phonemes") for piece in pieces) or texts.speakable(plain(pieces))


def language_of(text: str) -> str:
    """`yue`, `cmn` or `en`, by the script of what is not an annotation; where nothing is, by the annotations.

    Raises BadRequest for mistakes in annotations.
    """
    pieces = parse(text)
    rest = plain(pieces)
    if not texts.speakable(rest) and any(piece.kind == "pinyin" for piece in pieces):
        return "cmn"
    return texts.detect_language(rest)


def examine(text: str) -> tuple[list[Piece], list[Mistake]]:
    """The pieces and the mistakes of a text. What is mistaken is in the pieces as text."""
    pieces, mistakes = _examined(text)
    return list(pieces), list(mistakes)


@lru_cache(16)  # a request is read when it is checked, when it is planned and when it is spoken
def _examined(text: str) -> tuple[tuple[Piece, ...], tuple[Mistake, ...]]:
    pieces, mistakes = _Reader(text).read()
    return tuple(pieces), tuple(mistakes)


def _complain(text: str, mistakes: Sequence[Mistake], chinese: bool) -> str:
    told = [
        f"第 {m.start + 1} 个字符，{_excerpt(text, m)}：{m.message(True)}"
        if chinese
        else f"character {m.start + 1}, {_excerpt(text, m)}: {m.message(False)}"
        for m in mistakes[:MOST_TOLD]
    ]
    rest = len(mistakes) - len(told)
    if chinese:
        head = f"文本的发音标注有 {len(mistakes)} 处错误："
        return "\n".join([head, *told, *([f"还有 {rest} 处"] if rest else [])])
    head = f"the text has {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''} in its annotations:"
    return "\n".join([head, *told, *([f"and {rest} more"] if rest else [])])


def _excerpt(text: str, mistake: Mistake) -> str:
    """The mistake between two arrows, with what stands beside it."""
    before = text[max(0, mistake.start - 8) : mistake.start]
    after = text[mistake.end : mistake.end + 8]
    wrong = text[mistake.start : mistake.end]
    if len(wrong) > 40:
        wrong = wrong[:39] + "…"
    line = f"{'…' * (mistake.start > 8)}{before}→{wrong}←{after}{'…' * (mistake.end + 8 < len(text))}"
    return "".join(char if char.isprintable() else " " for char in line)


# Spelling of pinyin.

_MARKS_OF_TONES = {"\u0304": 1, "\u0301": 2, "\u030c": 3, "\u0300": 4}
_TONES_TO_MARKS = {tone: mark for mark, tone in _MARKS_OF_TONES.items()}


@lru_cache(4096)
def without_tone(spelt: str) -> tuple[str, tuple[int, ...]]:
    """Letters without tone marks, and the tones that were marked."""
    if spelt.isascii():
        return spelt, ()
    letters, tones = [], []
    for char in unicodedata.normalize("NFD", spelt):
        if char in _MARKS_OF_TONES:
            tones.append(_MARKS_OF_TONES[char])
        else:
            letters.append(char)
    return unicodedata.normalize("NFC", "".join(letters)), tuple(tones)


@lru_cache(4096)
def with_tone(letters: str, tone: int) -> str:
    """The letters with the mark of a tone from 1 to 4 where pinyin puts it; 5: as they are."""
    if tone == 5:
        return letters
    at = next((letters.index(vowel) for vowel in "aoe" if vowel in letters), -1)
    if at < 0:  # iu and ui carry it on the second vowel
        at = max(letters.rfind(vowel) for vowel in "iuü")
    return unicodedata.normalize("NFC", letters[: at + 1] + _TONES_TO_MARKS[tone] + letters[at + 1 :])


#: Finals as the tokenizer has them: spelling -> letters and tone (5: none).
FINALS: dict[str, tuple[str, int]] = {
    with_tone(final, int(tone)): (final, int(tone))
    for tones, finals in _TONES.items()
    for final in finals.split()
    for tone in tones
}
# Syllables, without tones: letters -> initial and final.
_SYLLABLES: dict[str, tuple[str, str]] = {
    initial.replace("-", "") + final: (initial.replace("-", ""), final)
    for final, initials in _BEFORE.items()
    for initial in initials.split()
}
# The same by all that is left of them without one letter, to find what a slip stands for in a few steps.
_BY_FEWER: dict[str, set[str]] = {}
for _syllable in _SYLLABLES:
    for _fewer in (_syllable, *(_syllable[:at] + _syllable[at + 1 :] for at in range(len(_syllable)))):
        _BY_FEWER.setdefault(_fewer, set()).add(_syllable)
# Other ways to write a final, most of them taught somewhere.
_OTHER_FINALS = {
    "üe": ("ve", "ue"),
    "ue": ("ve",),
    "ü": ("u",),
    "ün": ("un",),
    "üan": ("uan",),
    "iou": ("iu",),
    "uei": ("ui",),
    "uen": ("un",),
}
# What is written for a final without an initial.
_STANDING_ALONE = _table(
    "i=yi ia=ya ian=yan iang=yang iao=yao ie=ye in=yin ing=ying iong=yong iu=you u=wu ua=wa uai=wai uan=wan "
    "uang=wang ue=yue ui=wei un=wen uo=wo ü=yu üe=yue üan=yuan ün=yun ong=weng"
)


@lru_cache(4096)
def _brackets(letters: str, tone: int) -> str:
    """How a syllable is annotated; empty when the tokenizer cannot."""
    initial, final = _SYLLABLES[letters]
    spelt = with_tone(final, tone)
    if spelt not in FINALS or (tone == 5 and letters not in _TONELESS):
        return ""
    return f"[{initial}][{spelt}]" if initial else f"[{spelt}]"


def _with_any_tone(letters: str) -> str:
    """All ways to annotate a syllable whose tone is not known."""
    ways = [way for tone in (1, 2, 3, 4) if (way := _brackets(letters, tone))]
    return " / ".join(ways)


@lru_cache(4096)
def _nearest_syllable(spelt: str) -> str:
    """The annotation, or up to three, that a misspelt syllable stands for.

    spelt: the letters of all its brackets, joined.
    """
    spelt = spelt.lower().replace("u:", "ü").replace("v", "ü")
    letters, tones = without_tone(spelt)
    if letters and letters[-1] in "12345":
        letters, tones = letters[:-1], (*tones, int(letters[-1]))
    if not _LETTERS_OF_PINYIN.fullmatch(letters) or len(set(tones)) > 1:
        return ""
    initial, final = _cut(letters)
    tries = [letters, *(initial + other for other in _OTHER_FINALS.get(final, ()))]
    if not initial and final in _STANDING_ALONE:
        tries.append(_STANDING_ALONE[final])
    found = next((one for one in tries if one in _SYLLABLES), None)
    if found is not None:
        return _brackets(found, tones[0]) if tones else _with_any_tone(found)
    if not tones or len(letters) == 1:
        return ""
    fewer = {letters, *(letters[:at] + letters[at + 1 :] for at in range(len(letters)))}
    likely = {one for part in fewer for one in _BY_FEWER.get(part, ())}
    near = [one for one in likely if _one_edit_apart(letters, one)]
    # A slip within the final is likelier than one in the initial.
    ordered = sorted(near, key=lambda one: (_SYLLABLES[one][0] != initial, one))
    return " / ".join([way for one in ordered if (way := _brackets(one, tones[0]))][:3])


def _cut(letters: str) -> tuple[str, str]:
    """Initial and the rest."""
    size = 2 if letters[:2] in INITIALS else 1 if letters[:1] in INITIALS else 0
    return letters[:size], letters[size:]


def _one_edit_apart(one: str, other: str) -> bool:
    """Whether one letter more, less, other, or two exchanged lead from one to the other."""
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    a, b = one[at:], other[at:]
    if not a and not b:
        return False
    exchanged = len(a) > 1 and a[:2] == b[1::-1] and a[2:] == b[2:]
    return exchanged or a[1:] == b[1:] or a[1:] == b or a == b[1:]


def _nearest_mark(word: str) -> str:
    """The mark that `word` misspells, by a capital, a space, or, in a long one, a letter."""
    same = _JOINTS.sub("", word).lower()
    if same in _BARE_MARKS:
        return _BARE_MARKS[same]
    for size in (len(same) - 1, len(same), len(same) + 1):
        for bare in _LONG_MARKS.get(size, ()):
            if _one_edit_apart(same, bare):
                return _BARE_MARKS[bare]
    return ""


def _nearest_phoneme(name: str) -> str:
    """The phoneme that a name misspells: by small letters or by a digit that is not its own."""
    upper = name.upper()
    bare = upper.rstrip("0123456789")
    for one in (upper, bare if bare in _CONSONANTS else bare + "1" if bare in _VOWELS else ""):
        if one in PHONEMES:
            return one
    return ""


# Reading.

# Letters of pieces, misspelt ones too. Every repetition in the patterns is bounded, so that time grows with
# the length of the text and no faster.
_LETTERS = "A-Za-z\u00c0-\u00ff\u0100-\u017f\u01cd-\u01dc\u0300\u0301\u0304\u0308\u030c"
_TOKEN = re.compile(
    r"(?P<control><\|[^<>|\n]{0,60}\|>)"
    r"|(?P<tag><\s{0,3}(?P<close>/?)\s{0,3}(?P<name>[A-Za-z]{3,12})\s{0,3}(?P<empty>/?)\s{0,3}>)"
    r"|\[(?P<half>[^\[\]\n]{0,32})\]"
    r"|[【［](?P<wide>[^\[\]【】［］\n]{1,32})[】］]"
    r"|(?P<lone>[\[\]])"
)
_WORD = re.compile(rf"[{_LETTERS}_:'-]{{1,20}}[0-9]{{0,2}}")
_WORD_BEFORE = re.compile(rf"[{_LETTERS}_:'-]{{1,20}}[0-9]{{0,2}}\Z")


@dataclass
class _Bracket:
    """A closed pair of brackets. name: what is inside, in composed characters. wide: 【】 or ［］."""

    start: int
    end: int
    name: str
    wide: bool

    @property
    def exact(self) -> bool:
        """Whether the model takes it for a piece."""
        return not self.wide and _is_token(self.name)

    @property
    def certain(self) -> bool:
        """Whether nobody writes it in prose: a mark, a final with its tone, a phoneme with its stress."""
        return _is_certain(self.name)

    @property
    def wordlike(self) -> bool:
        return bool(_WORD.fullmatch(self.name))


@dataclass
class _Tag:
    """An opening or closing tag. right: whether it is spelt as the model has it."""

    start: int
    end: int
    name: str
    right: bool


def _is_token(name: str) -> bool:
    return name in MARKS or name in PHONEMES or name in INITIALS or name in FINALS


def _is_certain(name: str) -> bool:
    return (
        name in MARKS
        or (name in PHONEMES and name[-1].isdigit())
        or (name in FINALS and FINALS[name][1] != 5)
    )


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces: list[Piece] = []
        self._mistakes: list[Mistake] = []
        # Where the pieces that stand are, for what comes after: ends of annotations.
        self._ends: set[int] = set()

    def read(self) -> tuple[list[Piece], list[Mistake]]:
        run: list[_Bracket] = []
        lone: list[tuple[int, str]] = []
        tags: list[_Tag] = []
        for found in _TOKEN.finditer(self._text):
            start, end = found.span()
            inside = found["half"] if found["half"] is not None else found["wide"]
            if inside is not None:
                name = unicodedata.normalize("NFC", inside)
                bracket = _Bracket(start, end, name, found["wide"] is not None)
                if run and run[-1].end != start:
                    self._read_run(run)
                    run = []
                run.append(bracket)
            elif found["control"]:
                self._wrong(
                    start,
                    end,
                    f"{found['control']} is a control token of the model, which no text may hold; remove it",
                    f"{found['control']} 是模型的控制标记，文本中不能使用；请删除",
                )
            elif found["tag"]:
                self._read_tag(found, tags)
            else:
                lone.append((start, found["lone"]))
        self._read_run(run)
        for tag in tags:
            self._wrong(
                tag.start,
                tag.end,
                f"<{tag.name}> is never closed; add </{tag.name}> where it ends",
                f"<{tag.name}> 没有结束；请在结束处加上 </{tag.name}>",
            )
        self._read_lone(lone)
        return self._put_together(), sorted(self._mistakes, key=lambda m: (m.start, m.end))

    # A run of brackets that touch each other.

    def _read_run(self, run: list[_Bracket]) -> None:
        at = 0
        while at < len(run):
            at += self._read_next(run, at)
        for bracket in run:
            if bracket.exact:
                self._ends.add(bracket.end)

    def _read_next(self, run: list[_Bracket], at: int) -> int:
        """Reads the one at `at` and what belongs to it; how many that took."""
        first = run[at]
        second = run[at + 1] if at + 1 < len(run) else None
        if first.wide:
            return self._read_wide(first, second)
        name = first.name
        if name in MARKS:
            self._keep("mark", [first], name)
            return 1
        if name in PHONEMES:
            return self._read_phonemes(run, at)
        if name in FINALS:
            return self._read_syllable([first], "", name)
        if name in INITIALS:
            if second is not None and not second.wide and second.name in FINALS:
                return self._read_syllable([first, second], name, second.name)
            return self._read_alone(first, second)
        return self._read_unknown(first, second, touched=at > 0 and run[at - 1].exact)

    def _read_phonemes(self, run: list[_Bracket], at: int) -> int:
        end = at
        while end < len(run) and not run[end].wide and run[end].name in PHONEMES:
            end += 1
        word, size = run[at:end], end - at
        source = "".join(f"[{one.name}]" for one in word)
        after = run[end] if end < len(run) else None
        mixed = after is not None and not after.wide and (after.name in FINALS or after.name in INITIALS)
        if any(one.name.rstrip("012") in _VOWELS for one in word):
            self._keep("phonemes", word, " ".join(one.name for one in word))
        elif mixed and after is not None:
            self._wrong(
                word[0].start,
                after.end,
                f"{source} is English (capitals) and [{after.name}] is pinyin (small letters): "
                "a word is one or the other",
                f"{source} 是英语音素（大写），[{after.name}] 是拼音（小写）：一个词只能用其中一种",
                _nearest_syllable("".join(one.name for one in word) + after.name),
            )
            return size + 1
        else:
            self._wrong(
                word[0].start,
                word[-1].end,
                f"the word {source} has no vowel, e.g. [IY1]; "
                f"for brackets that are not an annotation write ({word[0].name})",
                f"音素词 {source} 没有元音（例如 [IY1]）；如果括号不是发音标注，请写成（{word[0].name}）",
            )
        return size

    def _read_syllable(self, brackets: list[_Bracket], initial: str, spelt: str) -> int:
        final, tone = FINALS[spelt]
        start, end = brackets[0].start, brackets[-1].end
        source = self._text[start:end]
        if _SYLLABLES.get(initial + final) != (initial, final):
            if initial:
                english = f"Mandarin has no syllable {initial}{final}"
                chinese = f"普通话没有 {initial}{final} 这个音节"
            else:
                english = f"the final {spelt} needs an initial before it"
                chinese = f"韵母 {spelt} 前面需要声母"
            fix = _nearest_syllable(initial + spelt)
            self._wrong(start, end, english, chinese, "" if fix == source else fix)
        elif tone == 5 and initial + final not in _TONELESS:
            self._wrong(
                start,
                end,
                f"the final {final} has no tone mark",
                f"韵母 {final} 没有声调符号",
                _with_any_tone(initial + final),
            )
        else:
            self._keep("pinyin", brackets, initial + spelt)
        return len(brackets)

    def _read_alone(self, first: _Bracket, second: _Bracket | None) -> int:
        """An initial that no final follows."""
        if second is not None and (
            second.name in PHONEMES or (not second.exact and second.name.upper() in PHONEMES)
        ):
            word = f"[{first.name}][{second.name}]"
            upper = first.name.upper()
            self._wrong(
                first.start,
                second.end,
                f"{word} mixes pinyin (small letters) with English (capitals): a word is one or the other",
                f"{word} 混用了拼音（小写）和英语音素（大写）：一个词只能用其中一种",
                f"[{upper}][{second.name.upper()}]" if upper in PHONEMES else "",
            )
            return 2
        if second is not None and not second.exact and second.wordlike:
            self._wrong_pair(first, second)
            return 2
        self._wrong(
            first.start,
            first.end,
            f"the initial [{first.name}] has no final after it, e.g. [{first.name}][{_example(first.name)}]; "
            f"for brackets that are not an annotation write ({first.name})",
            f"声母 [{first.name}] 后面没有韵母，例如 [{first.name}][{_example(first.name)}]；"
            f"如果括号不是发音标注，请写成（{first.name}）",
        )
        return 1

    def _wrong_pair(self, first: _Bracket, second: _Bracket) -> None:
        """An initial with something that is meant to be a final."""
        spelt = second.name
        letters, tones = without_tone(spelt)
        if second.wide:
            english, chinese = "brackets of annotations are [ and ]", "发音标注的括号是半角的 [ 和 ]"
        elif len(tones) > 1:
            english, chinese = f"{spelt} has {len(tones)} tone marks", f"{spelt} 有 {len(tones)} 个声调符号"
        elif tones and letters.lower() in _BEFORE and with_tone(letters.lower(), tones[0]) != spelt.lower():
            english, chinese = (
                f"the tone mark of {spelt} is on the wrong letter",
                f"{spelt} 的声调符号标错了字母",
            )
        elif first.name + spelt != (first.name + spelt).lower():
            english, chinese = "pinyin is written in small letters", "拼音要用小写字母"
        elif not tones and letters in _BEFORE:
            english, chinese = f"the final {spelt} has no tone mark", f"韵母 {spelt} 没有声调符号"
        elif letters[-1:].isdigit():
            english, chinese = (
                f"the tone of {spelt} is a digit, not a mark",
                f"{spelt} 的声调是数字，不是声调符号",
            )
        else:
            english, chinese = f"there is no final {spelt}", f"没有 {spelt} 这个韵母"
        fix = _nearest_syllable(first.name + spelt)
        self._wrong(first.start, second.end, english, chinese, fix)

    def _read_unknown(self, first: _Bracket, second: _Bracket | None, *, touched: bool) -> int:
        """Brackets that are no piece: prose, or a piece misspelt.

        touched: an annotation ends where they begin.
        """
        if (
            first.name.lower() in INITIALS
            and second is not None
            and second.name not in PHONEMES
            and _is_pinyin_like(second.name)
        ):
            self._wrong_pair(first, second)  # [H][ào]
            return 2
        fix = _guess(first.name)
        if not fix and not (first.wordlike and (touched or (second is not None and second.exact))):
            return 1
        if not fix:
            if phoneme := _nearest_phoneme(first.name):
                fix = f"[{phoneme}]"
            elif not first.name.isupper():
                fix = _nearest_syllable(first.name)
        letters, tones = without_tone(first.name)
        if len(tones) > 1:
            english, chinese = (
                f"{first.name} has {len(tones)} tone marks",
                f"{first.name} 有 {len(tones)} 个声调符号",
            )
        elif tones and _cut(letters.lower())[0] and letters.lower() in _SYLLABLES:
            english = "initial and final stand in brackets of their own"
            chinese = "声母和韵母要各用一对括号"
        else:
            english = f"[{first.name}] is no initial, final, phoneme or mark"
            chinese = f"[{first.name}] 不是声母、韵母、音素或标记"
            if not fix:
                english += f"; for brackets that are not an annotation write ({first.name})"
                chinese += f"；如果括号不是发音标注，请写成（{first.name}）"
        self._wrong(first.start, first.end, english, chinese, fix)
        return 1

    def _read_wide(self, first: _Bracket, second: _Bracket | None) -> int:
        """【h】【ào】: how annotations come out of a Chinese keyboard. Prose when it could be."""
        pair = second is not None and first.name in INITIALS and _is_pinyin_like(second.name)
        if second is not None and pair:
            fix = _nearest_syllable(first.name + second.name)
            end, size = second.end, 2
        elif first.certain or _is_pinyin_like(first.name):
            fix = f"[{first.name}]" if first.certain else _nearest_syllable(first.name)
            end, size = first.end, 1
        else:
            return 1
        self._wrong(
            first.start, end, "brackets of annotations are [ and ]", "发音标注的括号是半角的 [ 和 ]", fix
        )
        return size

    # Tags.

    def _read_tag(self, found: re.Match[str], opened: list[_Tag]) -> None:
        start, end = found.span()
        tag = _Tag(start, end, found["name"].lower(), right=True)
        if tag.name not in TAGS:
            return  # <b> and <string> are prose
        first, last = f"<{tag.name}>", f"</{tag.name}>"
        if found["empty"]:
            written = found["tag"]
            self._wrong(
                start, end, f"{written} has nothing inside", f"{written} 里面没有内容", first + ".." + last
            )
            return
        exact = last if found["close"] else first
        if found["tag"] != exact:
            tag.right = False
            self._wrong(
                start, end, "a tag is in small letters, without spaces", "标签用小写字母，不加空格", exact
            )
        before = next((one for one in opened if one.name == tag.name), None)
        if not found["close"]:
            if before is None:
                opened.append(tag)
            else:
                self._wrong(start, end, f"{first} is open already", f"{first} 已经打开", last)
        elif before is None:
            self._wrong(
                start, end, f"{last} closes nothing; put {first} before it", f"{last} 前面没有 {first}"
            )
        elif before is not opened[-1]:
            inner = f"</{opened[-1].name}>"
            self._wrong(
                start,
                end,
                f"{last} comes before {inner}: close the inner one first",
                f"{last} 应在 {inner} 之后",
            )
            opened.remove(before)
        else:
            opened.pop()
            if tag.right and before.right:
                self._pieces.append(Piece("mark", before.start, first, first))
                self._pieces.append(Piece("mark", start, last, last))

    # Brackets without a partner.

    def _read_lone(self, lone: list[tuple[int, str]]) -> None:
        waiting: list[int] = []
        for at, char in lone:
            if char == "[":
                waiting.append(at)
            elif waiting:
                waiting.pop()
            else:
                self._read_unopened(at)
        for at in waiting:
            self._read_unclosed(at)

    def _read_unclosed(self, at: int) -> None:
        word = _WORD.match(self._text, at + 1)
        name = unicodedata.normalize("NFC", word[0]) if word else ""
        end = word.end() if word else at + 1
        beside = self._text[end : end + 1] == "[" or at in self._ends
        if _is_certain(name) or (_is_token(name) and beside):
            self._wrong(
                at, end, f"the bracket of [{name} is not closed", f"[{name} 的括号没有结束", f"[{name}]"
            )
        elif at in self._ends and word:
            self._wrong(at, end, f"the bracket of [{name} is not closed", f"[{name} 的括号没有结束")

    def _read_unopened(self, at: int) -> None:
        word = _WORD_BEFORE.search(self._text, max(0, at - 22), at)
        name = unicodedata.normalize("NFC", word[0]) if word else ""
        start = word.start() if word else at
        beside = self._text[at + 1 : at + 2] == "[" or start in self._ends
        if _is_certain(name) or (_is_token(name) and beside):
            self._wrong(
                start, at + 1, f"{name}] has no opening bracket", f"{name}] 没有开头的括号", f"[{name}]"
            )
        elif at in self._ends:
            self._wrong(
                at, at + 1, "this ] has no opening bracket; remove it", "这个 ] 没有开头的括号；请删除"
            )

    # The outcome.

    def _keep(self, kind: Kind, brackets: list[_Bracket], value: str) -> None:
        start, end = brackets[0].start, brackets[-1].end
        self._pieces.append(Piece(kind, start, self._text[start:end], value))

    def _wrong(self, start: int, end: int, english: str, chinese: str, fix: str = "") -> None:
        self._mistakes.append(Mistake(start, end, english, chinese, fix))

    def _put_together(self) -> list[Piece]:
        """The annotations in their order, with the text between them."""
        whole: list[Piece] = []
        at = 0
        for piece in sorted(self._pieces, key=lambda p: p.start):
            if at < piece.start:
                part = self._text[at : piece.start]
                whole.append(Piece("text", at, part, part))
            whole.append(piece)
            at = piece.start + len(piece.source)
        if at < len(self._text):
            whole.append(Piece("text", at, self._text[at:], self._text[at:]))
        return whole


@lru_cache(4096)
def _is_pinyin_like(name: str) -> bool:
    """Whether it is pinyin, or nearly, and says its tone: nobody's prose."""
    letters, tones = without_tone(name.lower())
    if tones:
        return letters in _BEFORE or bool(_nearest_syllable(name))
    return bool(_PINYIN_WITH_DIGIT.fullmatch(letters)) and (
        letters[:-1] in _BEFORE or letters[:-1] in _SYLLABLES
    )


@lru_cache(4096)
def _guess(name: str) -> str:
    """What brackets that stand for themselves are most likely to mean; empty: they are prose."""
    if mark := _nearest_mark(name):
        return f"[{mark}]"
    if name[-1:].isdigit() and _nearest_phoneme(name).rstrip("012") in _VOWELS:
        return f"[{_nearest_phoneme(name)}]"
    return _nearest_syllable(name) if _is_pinyin_like(name) else ""


@lru_cache
def _example(initial: str) -> str:
    """A final that goes with an initial."""
    return next(with_tone(final, 4) for final in ("a", "i", "u", "uo") if (initial + final) in _SYLLABLES)


# Showing.

#: Styles of what `preview` gives.
CSS = """
.annotated { line-height: 2; overflow-wrap: anywhere; }
.annotated .pinyin, .annotated .phonemes, .annotated .sound { padding: .05rem .45rem; margin: 0 .1rem;
  border-radius: 999px; background: var(--primary-100); color: var(--primary-700); white-space: nowrap; }
.dark .annotated .pinyin, .dark .annotated .phonemes, .dark .annotated .sound {
  background: var(--primary-900); color: var(--primary-200); }
.annotated .phonemes { font-family: var(--font-mono); font-size: .88em; }
.annotated .sound { font-style: italic; font-size: .88em; }
.annotated .strong { font-weight: 700; }
.annotated .laughter { text-decoration: underline wavy var(--primary-400); }
.annotated .mistake { text-decoration: underline wavy #d33; background: none; color: inherit; }
.annotation-mistakes { color: #b22; font-size: .9rem; margin: .3rem 0 0; padding-left: 1.2rem; }
.dark .annotation-mistakes { color: #f88; }
"""


def preview(text: str, chinese: bool) -> str:
    """HTML: the text with its annotations as they are understood, and its mistakes with what to do."""
    pieces, mistakes = examine(text)
    visible = [m for i, m in enumerate(mistakes) if i == 0 or m.start >= mistakes[i - 1].end]
    parts = []
    following = 0
    for piece in pieces:
        if piece.kind != "text":
            parts.append(_show(piece, chinese))
            continue
        at, end = piece.start, piece.start + len(piece.source)
        while following < len(visible) and visible[following].start < end:
            mistake = visible[following]
            following += 1
            wrong = html.escape(text[mistake.start : mistake.end])
            told = html.escape(mistake.message(chinese))
            parts.append(html.escape(text[at : mistake.start]))
            parts.append(f'<span class="mistake" title="{told}">{wrong}</span>')
            at = mistake.end
        parts.append(html.escape(text[at:end]))
    shown = f'<div class="annotated">{"".join(parts)}</div>'
    if not mistakes:
        return shown
    told_ones = [f"<li>{html.escape(m.message(chinese))}</li>" for m in mistakes[:MOST_TOLD]]
    if len(mistakes) > MOST_TOLD:
        rest = len(mistakes) - MOST_TOLD
        told_ones.append(f"<li>{f'还有 {rest} 处' if chinese else f'and {rest} more'}</li>")
    return f'{shown}<ul class="annotation-mistakes">{"".join(told_ones)}</ul>'


def _show(piece: Piece, chinese: bool) -> str:
    """HTML of an annotation. Tags come in pairs, so that each opens and closes one element."""
    if piece.value.startswith("</"):
        return "</span>"
    source = html.escape(piece.source)
    if piece.value.startswith("<"):
        name = piece.value[1:-1]
        return f'<span class="{name}" title="{TAGS[name][chinese]}">'
    if piece.kind == "mark":
        return f'<span class="sound" title="{source}">{html.escape(MARKS[piece.value][chinese])}</span>'
    return f'<span class="{piece.kind}" title="{source}">{html.escape(piece.value)}</span>'


# Speaking with espeak-ng.

# espeak-ng has no such sounds: a rest of some milliseconds, or the Chinese syllable that stands for the
# sound.
_RESTS = {"breath": 350, "quick_breath": 150, "noise": 200, "vocalized-noise": 200, "accent": 100}
_SOUNDS = {
    "laughter": "ha1 ha1",
    "cough": "ke2 ke2",
    "sigh": "ai1",
    "hissing": "si1",
    "clucking": "ze2 ze2",
    "lipsmack": "ze2",
    "mn": "en4",
}
_ASIDE = {
    "<strong>": '<prosody volume="x-loud" rate="85%">',
    "<laughter>": '<prosody pitch="+40%" rate="110%">',
}
# Which language reads pinyin, and phonemes in doubled brackets, by itself; and the voice that others are
# given for it.
_NATIVE = {"pinyin": ("cmn", "cmn-latn-pinyin"), "phonemes": ("en", "en-us")}


def to_espeak(pieces: Sequence[Piece], language: str) -> str:
    """The pieces as SSML for `espeak-ng -m` (1.51). language: of the voice that reads it: cmn, yue or en.

    Nothing of the text itself can be an instruction: angle brackets are left out of it, since espeak-ng reads
    neither, and doubled brackets are parted.
    """
    parts: list[str] = []
    open_voice = ""
    for kind, spoken in _spoken(pieces):
        native, voice = _NATIVE.get(kind, ("", ""))
        wanted = "" if native in ("", language) else voice
        if wanted != open_voice:
            if open_voice:
                parts.append("</voice>")
            if wanted:
                parts.append(f'<voice xml:lang="{wanted}">')
            open_voice = wanted
        parts.append(spoken)
    if open_voice:
        parts.append("</voice>")
    # No <speak> around it: its end would be heard as a rest.
    return "".join(parts)


def _spoken(pieces: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    """Whose language a part is in (`pinyin`, `phonemes`, or neither), and the part."""
    for piece in pieces:
        if piece.kind == "text":
            unmarked = piece.value.replace("<", " ").replace(">", " ").replace("&", "&amp;")
            yield "", unmarked.replace("[[", "[ [").replace("[[", "[ [")
        elif piece.kind == "pinyin":
            letters, tones = without_tone(piece.value)
            yield "pinyin", f" {letters.replace('ü', 'v')}{(tones or [5])[0]} "
        elif piece.kind == "phonemes":
            # The bar keeps two names from being read as one: T and SH are not CH. The space behind keeps the
            # tag that may follow from being read aloud.
            yield "phonemes", f" [[{'|'.join(PHONEMES[name] for name in piece.value.split())}]] "
        elif piece.value in _RESTS:
            yield "", f'<break time="{_RESTS[piece.value]}ms"/>'
        elif piece.value in _SOUNDS:
            yield "pinyin", f" {_SOUNDS[piece.value]} "
        else:
            yield "", _ASIDE.get(piece.value, "</prosody>")
