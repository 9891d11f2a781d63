from __future__ import annotations

import random
import time

import pytest

from cosyvoice_app.sentences import split_text


def test_a_short_text_is_left_as_it_is() -> None:
    assert split_text("你好。世界。", 20) == ["你好。世界。"]
    assert split_text("", 20) == []


@pytest.mark.parametrize(
    ("text", "most", "pieces"),
    [
        ("今天天气真不错。我们去公园走走吧！", 10, ["今天天气真不错。", "我们去公园走走吧！"]),
        ("It is late. Shall we go home now?", 22, ["It is late. ", "Shall we go home now?"]),
        ("他说：“今天不行。”然后他就走了。", 10, ["他说：“今天不行。”", "然后他就走了。"]),
        ('She said "no way!" and went home at once.', 25, ['She said "no way!" ', "and went home at once."]),
        (
            "Pi is 3.14159 or so. Not 22/7, said Dr. Smith.",
            26,
            ["Pi is 3.14159 or so. ", "Not 22/7, said Dr. Smith."],
        ),
        ("真的吗？！是的……当然。", 7, ["真的吗？！", "是的……当然。"]),
        ("我们先去北京看看，然后再去上海住几天", 10, ["我们先去北京看看，", "然后再去上海住几天"]),
        ("one two three four five six", 14, ["one two three ", "four five six"]),
    ],
)
def test_where_it_is_cut(text: str, most: int, pieces: list[str]) -> None:
    assert split_text(text, most) == pieces


def test_a_crumb_is_not_left_alone() -> None:
    pieces = split_text("我们今天一起去了公园。那里的花开得真是非常漂亮。好。", 24)
    assert pieces == ["我们今天一起去了公园。", "那里的花开得真是非常漂亮。好。"]
    # Neither between two long ones, where it could only stand with a part of one of them.
    text = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未，申酉。好。甲乙丙丁戊己庚辛壬癸，子丑寅卯辰巳午未申酉戌。"
    pieces = split_text(text, 24)
    assert "".join(pieces) == text
    assert min(map(len, pieces)) >= 6


@pytest.mark.parametrize(
    "whole", ["[h][ào]", "[M][AY0][N]", "<|endofprompt|>", "[laughter]", "3.1415926", "12:30:45", "1,000,000"]
)
def test_what_belongs_together_is_never_cut(whole: str) -> None:
    for lead in range(40):
        text = "字" * lead + whole + "尾" * 37
        pieces = split_text(text, 16)
        assert "".join(pieces) == text
        assert any(whole in piece for piece in pieces), pieces


def test_an_annotation_longer_than_a_piece_stays_whole() -> None:
    text = "一二三" + "[a][b][c][d][e]" + "四五六"
    pieces = split_text(text, 5)
    assert "".join(pieces) == text
    assert "[a][b][c][d][e]" in pieces


def test_a_number_without_end_is_cut_as_the_last_resort() -> None:
    pieces = split_text("7" * 100, 30)
    assert "".join(pieces) == "7" * 100
    assert max(map(len, pieces)) <= 30


def test_any_text_comes_back_whole_in_pieces_that_fit() -> None:
    marks = ["。", "，", ".", ". ", "! ", " ", "  ", '"', "”", "[", "]", "<", "\n"]
    parts = [*marks, "3.5", "Dr. ", "[br]", "字", "word"]
    dice = random.Random(7)
    for _ in range(500):
        text = "".join(dice.choices(parts, k=dice.randint(0, 120)))
        most = dice.randint(8, 60)
        pieces = split_text(text, most)
        assert "".join(pieces) == text
        assert all(0 < len(piece) <= most or "[br]" in piece for piece in pieces), pieces


@pytest.mark.parametrize("unit", ["字", "字，", "a ", "a. ", "7"])
def test_a_long_text_takes_no_time(unit: str) -> None:
    text = unit * (20_000 // len(unit))
    began = time.process_time()
    assert "".join(split_text(text, 120)) == text
    assert time.process_time() - began < 5


def test_no_piece_can_be_empty() -> None:
    with pytest.raises(ValueError, match="most is 0"):
        split_text("a", 0)
