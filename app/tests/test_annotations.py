from __future__ import annotations

import asyncio
import hashlib
import html
import random
import re
import subprocess
import sys
import time
import wave
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cosyvoice_app import annotations
from cosyvoice_app.annotations import (
    FINALS,
    INITIALS,
    MARKS,
    PHONEMES,
    TAGS,
    examine,
    parse,
    preview,
    to_espeak,
)
from cosyvoice_app.engines import SpeechRequest
from cosyvoice_app.engines.cpu import CpuEngine
from cosyvoice_app.errors import BadRequest
from cosyvoice_app.wav import Audio


def pieces(text: str) -> list[tuple[str, str]]:
    found = parse(text)
    assert "".join(piece.source for piece in found) == text
    assert all(text[p.start : p.start + len(p.source)] == p.source for p in found)
    return [(piece.kind, piece.value) for piece in found]


def complaint(text: str) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.param == "input"
    assert re.search("[\u4e00-\u9fff]", caught.value.text(chinese=True))
    return caught.value.message


def speak(text: str, voice: str = "auto") -> Audio:
    async def work() -> Audio:
        engine = CpuEngine()
        await engine.start()
        return await engine.speak(engine.plan(SpeechRequest(text, voice)))

    return asyncio.run(work())


# What is understood.


def test_the_pieces_are_those_of_the_models_tokenizer() -> None:
    # The same lines, sorted, from CosyVoice3Tokenizer's list at ace7c47, without those that begin with <|.
    known = [f"[{name}]" for name in (*INITIALS, *FINALS, *PHONEMES, *MARKS)]
    known += [f"<{end}{name}>" for name in TAGS for end in ("", "/")]
    digest = hashlib.sha256("\n".join(sorted(set(known))).encode()).hexdigest()
    assert digest == "7223dbd8220928597debfcd29e3dad1fa59e33b668a319cac4fa4e58215bbea0"


def test_each_kind_of_piece() -> None:
    assert pieces("他的爱[h][ào]。") == [("text", "他的爱"), ("pinyin", "hào"), ("text", "。")]
    assert pieces("[ài][n][ǚ][l][vè][y][uè]") == [("pinyin", s) for s in ("ài", "nǚ", "lvè", "yuè")]
    assert pieces("one [M][IH1][N][AH0][T]!") == [
        ("text", "one "),
        ("phonemes", "M IH1 N AH0 T"),
        ("text", "!"),
    ]
    assert pieces("[breath]<strong>好</strong>[vocalized-noise]") == [
        ("mark", "breath"),
        ("mark", "<strong>"),
        ("text", "好"),
        ("mark", "</strong>"),
        ("mark", "vocalized-noise"),
    ]
    assert pieces("[M][AY1][h][ào]") == [("phonemes", "M AY1"), ("pinyin", "hào")], (
        "capitals end where pinyin begins"
    )
    assert pieces("[h][a\u0300o]") == [("pinyin", "hào")], "marks that are characters of their own"
    assert pieces("") == []


def test_the_neutral_tone_is_no_missing_mark() -> None:
    assert pieces("我[d][e][m][a]") == [("text", "我"), ("pinyin", "de"), ("pinyin", "ma")]
    assert "no tone mark; did you mean [h][āo] / [h][áo] / [h][ǎo] / [h][ào]?" in complaint("[h][ao]")


@pytest.mark.parametrize(
    "text",
    [
        *("see [1], [2-4] and [see below]", "[注] 译者[某]", "[]", "[ ]", "a [b", "a] b", "x[0] = y[1][2]"),
        *("[A] [I] [OK] [T1] [a1]", "[hao] can [you] say", "[très]", "[h][ào][1]", "【注意】［注2］［A1］"),
        *("1 < 2 > 0", "<b>bold</b> <string> <3", "f |> g <| x", "[读作[h][ào]]", "[[h][ào]]", "[" * 50),
    ],
)
def test_prose_stays_prose(text: str) -> None:
    assert all(kind == "text" or value == "hào" for kind, value in pieces(text))


# What is wrong.


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[h][aò]", "the tone mark of aò is on the wrong letter; did you mean [h][ào]?"),
        ("[h][áò]", "áò has 2 tone marks"),
        ("[hào]", "did you mean [h][ào]?"),
        ("[hao4]", "did you mean [h][ào]?"),
        ("[h][ao4]", "did you mean [h][ào]?"),
        ("[H][ào]", "did you mean [h][ào]?"),
        ("[h][Ào]", "small letters; did you mean [h][ào]?"),
        ("【h】【ào】", "brackets of annotations are [ and ]; did you mean [h][ào]?"),
        ("［breath］", "did you mean [breath]?"),
        ("[h]好", "the initial [h] has no final after it, e.g. [h][à]"),
        ("see [n]", "for brackets that are not an annotation write (n)"),
        ("[h] [ào]", "the initial [h] has no final after it"),
        ("[h][aoo]", "there is no final aoo"),
        ("[h][āio]", "there is no final āio; did you mean [h][āi] / [h][āo]?"),
        ("[sh][iàng]", "no syllable shiang; did you mean [sh][àng] / [sh][uàng]?"),
        ("[iào]", "the final iào needs an initial before it; did you mean [y][ào]?"),
        ("[j][ǜ]", "no syllable jü; did you mean [j][ù]?"),
        ("[l][üè]", "there is no final üè; did you mean [l][vè]?"),
        ("[n][ǖ]", "there is no final ǖ"),
        ("[h][ào", "the bracket of [ào is not closed; did you mean [ào]?"),
        ("[h[ào]", "the bracket of [h is not closed"),
        ("h][ào]", "h] has no opening bracket; did you mean [h]?"),
        ("[h]ào]", "ào] has no opening bracket"),
        ("[h][ào]]", "this ] has no opening bracket"),
        ("[breath好", "did you mean [breath]?"),
        ("[Breath]", "did you mean [breath]?"),
        ("[laugter]", "did you mean [laughter]?"),
        ("[quick breath]", "did you mean [quick_breath]?"),
        ("[AY3]", "did you mean [AY1]?"),
        ("[ay0]", "did you mean [AY0]?"),
        ("[M][AX1]", "[AX1] is no initial, final, phoneme or mark"),
        ("[B]", "the word [B] has no vowel, e.g. [IY1]"),
        ("[M][ào]", "a word is one or the other; did you mean [m][ào]?"),
        ("[m][AY0]", "a word is one or the other; did you mean [M][AY0]?"),
        ("<strong>好", "<strong> is never closed; add </strong>"),
        ("好</laughter>", "</laughter> closes nothing"),
        ("<strong><laughter>好</strong></laughter>", "</strong> comes before </laughter>"),
        ("<strong>a<strong>b</strong>", "<strong> is open already; did you mean </strong>?"),
        ("<Strong>a</strong>", "small letters, without spaces; did you mean <strong>?"),
        ("<strong/>", "nothing inside"),
        ("a<|endofprompt|>b", "<|endofprompt|> is a control token of the model, which no text may hold"),
        ("<|im_start|>", "control token"),
        ("<|anything at all|>", "control token"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_what_to_write(text: str, told: str) -> None:
    assert told in complaint(text)


def test_one_exchanged_tag_is_one_mistake() -> None:
    assert complaint("<strong><laughter>好</strong></laughter>").startswith("the text has 1 mistake ")


def test_every_proposal_is_right() -> None:
    wrong = [
        "[h][aò]",
        "[sh][iàng]",
        "[l][üè]",
        "[w][uò]",
        "[iù]",
        "[x][ǖn]",
        "[Laughter]",
        "[ow1]",
        "[q][v4]",
    ]
    for text in wrong:
        (mistake,) = examine(text)[1]
        assert mistake.fix, text
        for proposal in mistake.fix.split(" / "):
            assert parse(proposal), text


def test_all_mistakes_come_at_once_each_with_its_place() -> None:
    text = "第一[h][aò]第二<strong>第三[breth]"
    lines = complaint(text).splitlines()
    assert lines[0] == "the text has 3 mistakes in its annotations:"
    assert lines[1].startswith("character 3, 第一→[h][aò]←第二<stron…: ")
    assert lines[2].startswith(f"character {text.index('<strong') + 1}, ")
    assert lines[3].startswith(f"character {text.index('[breth') + 1}, ")


def test_many_mistakes_make_no_long_answer() -> None:
    lines = complaint("[n] " * 1000).splitlines()
    assert lines[-1] == "and 980 more"
    assert len(lines) == 22
    assert len(complaint("<|" + "x" * 60 + "|>")) < 300


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "[",
            "]",
            "<",
            "a",
            "à",
            "[[]",
            "[h",
            "h]",
            "[ ",
            "[h][ào]",
            "[M]",
            "[AY0]",
            "[h]",
            "[àb]",
            "[breth]",
        ),
        *("<strong>", "</strong>", "<   /", "<|", "<|a", "【", "【h", "【h】【à】", "[aaaaaaaa", "[h][àio]"),
    ],
)
def test_time_grows_with_the_length_and_no_faster(unit: str) -> None:
    def seconds(text: str) -> float:
        best = 60.0
        for _ in range(3):
            annotations._examined.cache_clear()
            began = time.process_time()
            preview(text, False)
            best = min(best, time.process_time() - began)
        return best

    short = unit * (4000 // len(unit))
    # Eight times the text: 8 when it grows evenly, 64 when it grows with the square.
    assert seconds(short * 8) < 25 * seconds(short) + 0.02


def misspelt(rng: random.Random) -> str:
    """A syllable with a tone and a slip: the dearest thing to read: what it stands for is looked for."""
    letters, tone = rng.choice(list(annotations._SYLLABLES)), rng.randint(1, 4)
    spelt = annotations.with_tone(letters, tone) if set(letters) & set("aoeiuü") else letters
    at = rng.randrange(len(spelt) + 1)
    return spelt[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + spelt[at + rng.randint(0, 1) :]


@pytest.mark.parametrize(
    ("unit", "most"),
    [("[q]", 8), ("[xyz]", 5), ("[hǎo]", 6), ("[hao3]", 5), ("[see below]", 3), ("[braeth]", 4), (None, 22)],
)
def test_a_hostile_text_costs_a_few_calls_a_character(unit: str | None, most: float) -> None:
    """Calls and not seconds, which a busy machine makes longer."""
    rng = random.Random(1)
    text = "".join(unit or f"[{misspelt(rng)}]" for _ in range(4096))[:4096]
    for kept in vars(annotations).values():
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()
    calls = 0

    def count(frame: object, event: str, what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        annotations.examine(text)
        first = calls
        annotations.examine(text)
    finally:
        sys.setprofile(None)
    assert first / len(text) < most
    assert calls - first < 20, "what was read just now is not read again"


# Against a slow reader that follows the same rules in the plainest way.


def slips_apart(one: str, other: str) -> int:
    """Letters more, less, other, and neighbours exchanged: the least number that leads from one to the
    other.
    """
    rows = [[max(i, j) if not i * j else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            same = one[i - 1] == other[j - 1]
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (not same))
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


def slow_mark(word: str) -> str:
    same = "".join(c for c in word if not c.isspace() and c not in "_-").lower()
    bare = {name: name.replace("_", "").replace("-", "") for name in MARKS}
    near = [n for n, b in bare.items() if b == same or (len(b) >= 6 and slips_apart(same, b) == 1)]
    return near[0] if near else ""


def slow_syllables(letters: str) -> set[str]:
    return {one for one in annotations._SYLLABLES if slips_apart(letters, one) == 1}


def test_what_a_slip_stands_for_is_what_a_slow_search_finds() -> None:
    rng = random.Random(2)
    for _ in range(1500):
        word = rng.choice(list(MARKS)) if rng.random() < 0.8 else misspelt(rng)
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(len(word) + 1)
            word = word[:at] + rng.choice("abehrst _-B") + word[at + rng.randint(0, 1) :]
        assert annotations._nearest_mark(word) == slow_mark(word), word
    for _ in range(250):
        spelt = misspelt(rng).replace("v", "w")  # v is read as ü
        letters, tones = annotations.without_tone(spelt)
        if annotations._nearest_syllable(spelt) and letters not in annotations._SYLLABLES:
            proposed = re.findall(r"(?:\[([^\]]+)\])?\[([^\]]+)\]", annotations._nearest_syllable(spelt))
            bare = {annotations.without_tone(initial + final)[0] for initial, final in proposed}
            initial, final = annotations._cut(letters)
            others = annotations._OTHER_FINALS.get(final, ())
            spelt_otherwise = {initial + other for other in others} | {
                annotations._STANDING_ALONE.get(final, "") if not initial else ""
            }
            assert bare <= slow_syllables(letters) | spelt_otherwise, (spelt, proposed)
        elif tones and len(set(tones)) == 1 and 1 < len(letters) <= 7 and letters.isalpha():
            ways = [annotations._brackets(one, tones[0]) for one in slow_syllables(letters)]
            assert letters in annotations._SYLLABLES or not any(ways), (spelt, ways)


def slow_brackets(text: str) -> list[tuple[int, int]]:
    """Where pairs of brackets without a bracket or a line's end inside stand, 32 characters at most."""
    found = []
    at = 0
    while at < len(text):
        end = at + 1
        while text[at] == "[" and end < len(text) and text[end] not in "[]\n":
            end += 1
        if text[at] == "[" and end < len(text) and text[end] == "]" and end - at - 1 <= 32:
            found.append((at, end + 1))
            at = end
        at += 1
    return found


def test_hostile_texts_are_read_as_a_slow_reader_reads_them() -> None:
    rng = random.Random(3)
    units = [
        "[",
        "]",
        "h",
        "ào",
        "n",
        "[h][ào]",
        "[AY1]",
        "M",
        "[breath]",
        " ",
        "x",
        "\n",
        "word ",
        "好",
        "1",
    ]
    for _ in range(600):
        text = "".join(rng.choice(units) for _ in range(rng.randint(1, 40)))
        pieces, mistakes = annotations.examine(text)
        assert "".join(piece.source for piece in pieces) == text
        brackets = slow_brackets(text)
        covered = {at for m in mistakes for at in range(m.start, m.end)}
        starts = {start for start, _ in brackets}
        for piece in pieces:
            if piece.kind != "text":
                assert piece.start in starts
        # What the model would take for a piece is an annotation, or is told as a mistake, wherever it stands.
        kept = {
            at
            for piece in pieces
            if piece.kind != "text"
            for at in range(piece.start, piece.start + len(piece.source))
        }
        for start, end in brackets:
            if annotations._is_token(text[start + 1 : end - 1]):
                assert start in kept or start in covered, (text, start)


# What is shown.


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("div", "span", "ul", "li"), tag
        assert {name for name, _ in attrs} <= {"class", "title"}
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(shown: str) -> Reader:
    reader = Reader()
    reader.feed(shown)
    reader.close()
    assert reader.open == []
    return reader


def test_a_preview_shows_what_is_understood() -> None:
    shown = preview("爱[h][ào]<strong>了</strong>[breath][AY1]", True)
    assert shown == (
        '<div class="annotated">爱<span class="pinyin" title="[h][ào]">hào</span>'
        '<span class="strong" title="重读">了</span>'
        '<span class="sound" title="[breath]">呼吸</span>'
        '<span class="phonemes" title="[AY1]">AY1</span></div>'
    )


def test_a_preview_underlines_mistakes_and_tells_them() -> None:
    shown = preview("爱[h][aò]好[h][ào]", False)
    message = html.escape("the tone mark of aò is on the wrong letter; did you mean [h][ào]?")
    assert f'爱<span class="mistake" title="{message}">[h][aò]</span>好<span class="pinyin"' in shown
    assert shown.endswith(f'<ul class="annotation-mistakes"><li>{message}</li></ul>')
    assert "声调符号标错了" in preview("爱[h][aò]", True)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "[<script>]<strong onclick=x>",
        "<strong></strong></div><laughter>'\"</laughter>",
        "[h][<img>]&lt;b&gt;",
        "<|<script>|><|'\"|>",
        "[breath\"onmouseover='x']",
        "<strong><laughter></strong></laughter><b>",
        "\x00\u202e<svg/onload=alert(1)>",
    ],
)
def test_nothing_in_a_text_becomes_html(hostile: str) -> None:
    for text in (hostile, f"[h]{hostile}[ào]", f"<strong>{hostile}</strong>"):
        for chinese in (True, False):
            reader = read(preview(text, chinese))
            if not examine(text)[1]:
                said = "".join(reader.words)
                assert said == "".join(
                    p.value for p in parse(text) if p.kind == "text" or p.value[0] not in "<"
                )


# What is heard.


def test_espeak_reads_every_syllable_as_mandarin_and_no_two_alike() -> None:
    spoken = []
    for initial in ("", *sorted(INITIALS)):
        for final in sorted(FINALS):
            source = f"[{initial}][{final}]" if initial else f"[{final}]"
            found, mistakes = examine(source)
            if not mistakes:
                spoken.append((source, to_espeak(found, "cmn")))
    assert len(spoken) > 1500
    done = subprocess.run(
        ["espeak-ng", "--stdin", "-m", "-q", "-x", "-v", "sit/cmn-Latn-pinyin"],
        input="\n\n".join(text for _, text in spoken) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert len(lines) == len(spoken)
    assert not [source for (source, _), line in zip(spoken, lines, strict=True) if "(en)" in line]
    assert len(set(lines)) == len(lines)


def test_espeak_knows_every_phoneme() -> None:
    words = [f"[{name}]" if name[0] in "AEIOU" else f"[{name}][AA1]" for name in PHONEMES]
    done = subprocess.run(
        ["espeak-ng", "--stdin", "-m", "-q", "-x", "-v", "gmw/en-US"],
        input="\n\n".join(to_espeak(parse(word), "en") for word in words),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert len([line for line in done.stdout.splitlines() if line.strip()]) == len(words)


def test_an_annotated_syllable_is_the_characters_own_sound() -> None:
    assert speak("他的爱[h][ào]", "cmn").frames == speak("他的爱hao4", "cmn").frames
    assert speak("爱[h][ào]", "cmn").frames != speak("爱[h][ǎo]", "cmn").frames
    assert speak("爱[h][ào]", "cmn").frames != speak("爱好", "cmn").frames, "好 alone is read hǎo"
    assert abs(speak("[n][ǚ]").seconds - speak("女", "cmn").seconds) < 0.1


def test_annotated_english_is_heard() -> None:
    noun, adjective = speak("[M][IH1][N][AH0][T]"), speak("[M][AY0][N][UW1][T]")
    plain = speak("minute")
    assert adjective.frames not in (plain.frames, noun.frames)
    assert adjective.seconds > plain.seconds
    assert abs(noun.seconds - plain.seconds) < 0.1
    assert speak("a [T][EH1][S][T] b", "en").seconds < speak("a [ [ t e s t ] ] b", "en").seconds


@pytest.mark.parametrize(
    ("text", "voice"),
    [("I say [n][ǐ][h][ǎo] now", "en"), ("用[HH][AH0][L][OW1]说", "cmn"), ("佢話[n][ǐ]呀[AY1]", "yue")],
)
def test_annotations_of_another_language_are_heard_in_it(text: str, voice: str) -> None:
    bare = re.sub(r"(\[[^\]]*\])+", " ", text)
    assert CpuEngine().plan(SpeechRequest(text)).parameters["voice"] == voice
    heard, without = speak(text), speak(bare)
    assert without.seconds + 0.15 < heard.seconds < without.seconds + 1.6


def test_the_language_is_told_by_what_is_not_annotated() -> None:
    assert annotations.language_of("[h][ào]") == "cmn"
    assert annotations.language_of("[HH][AY1]") == "en"
    assert annotations.language_of("佢[breath]哋") == "yue"


def test_sounds_and_stress_are_heard() -> None:
    bare = speak("好天气", "cmn")
    assert speak("好[breath]天气", "cmn").seconds > bare.seconds + 0.2
    assert speak("好[laughter]天气", "cmn").seconds > bare.seconds + 0.2
    assert speak("好[quick_breath]天气", "cmn").seconds < speak("好[breath]天气", "cmn").seconds
    for mark in MARKS:
        assert speak(f"好[{mark}]天气", "cmn").frames != bare.frames, mark
    for tag in TAGS:
        assert speak(f"<{tag}>好</{tag}>天气", "cmn").frames != bare.frames, tag


def test_a_text_beside_annotations_is_never_an_instruction(tmp_path: Path) -> None:
    siren = tmp_path / "siren.wav"
    with wave.open(str(siren), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(b"\x00\x40\x00\xc0" * 22050 * 15)
    for hostile in (
        f'<audio src="{siren}"/>',
        f'&lt;audio src="{siren}"/&gt;',
        '<break time="30s"/>',
        "[[_:::::::::::::::::::::::::::::::::::]]",
        "&#91;&#91;x]]",
        "</speak><voice name='zz'>",
    ):
        harmless = re.sub(r"[<>&\[\]]", " ", hostile)
        heard, expected = speak(f"{hostile} one [AY1]", "en"), speak(f"{harmless} one [AY1]", "en")
        assert heard.seconds < expected.seconds + 4, hostile
    assert "&lt;" not in to_espeak(parse("<b> & [AY1]"), "en")
    assert "[[" not in to_espeak(parse("[[[[[ [breath] [[[["), "en")
