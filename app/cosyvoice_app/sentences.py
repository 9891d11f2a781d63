"""Cutting a long text into pieces that an engine can say one after the other."""

from __future__ import annotations

import itertools
import re

# What is never cut: annotations such as [h][ào] or [laughter] (one after the other they are one word),
# control tokens, tags, numbers with their marks, words. All other characters stand alone.
_ATOM = re.compile(
    r"(?:\[[A-Za-z\u00c0-\u024f0-9_-]{1,20}\])+|<\|[^<>|]{1,40}\|>|</?[A-Za-z]{1,20}>"
    r"|\d+(?:[.,:/\-]\d+)*%?|[^\W\d_\u3000-\u9fff\uac00-\ud7af\uf900-\U0003134f]+(?:['’][A-Za-z]+)*|.",
    re.DOTALL,
)
_ANNOTATION = re.compile(r"\[[^\]]|<[^ ]")
_ENDS = frozenset("。！？!?；;…\n")
_PAUSES = frozenset("，,、：:—–)）")
# What belongs to the sentence before it.
_CLOSING = frozenset("\"'”’』」）)】》] \u3000") | _ENDS
_ABBREVIATIONS = frozenset(
    (
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "vs",
        "etc",
        "no",
        "fig",
        "inc",
        "ltd",
        "jr",
        "sr",
        "eg",
        "ie",
        "cf",
    )
)

# The price of a cut behind: the end of a sentence, a pause within one, a space, anything else.
_SENTENCE, _PAUSE, _SPACE, _ANYWHERE = 0.0, 6.0, 12.0, 25.0
# What each piece costs, and one that is tiny, so that pieces are few and none is a mere crumb.
_PIECE, _TINY = 4.0, 20.0


def split_text(text: str, most: int) -> list[str]:
    """The text in pieces of at most `most` characters, whose concatenation is the text.

    Cut at ends of sentences, within a sentence only where it is too long (at pauses, else at spaces, else
    between characters), or where a mere crumb would be left over. An annotation that is longer than `most`
    stays whole. Raises ValueError when most < 1.
    """
    if most < 1:
        raise ValueError(f"most is {most}; at least 1 character must fit into a piece")
    if len(text) <= most:
        return [text] if text else []
    cuts = _cuts(text, most)
    # The cheapest way to each possible cut, from the ways to those before it.
    tiny = most / 4
    best: list[tuple[float, int]] = [(0.0, -1)]  # (price, index of the cut before)
    for here in range(1, len(cuts)):
        end, price = cuts[here]
        ways = []
        for before in range(here - 1, -1, -1):
            length = end - cuts[before][0]
            if length > most and before < here - 1:
                break
            crumb = _TINY * (1 - length / tiny) if length < tiny else 0.0
            ways.append((best[before][0] + price + _PIECE + crumb + (length / most) ** 2, before))
        best.append(min(ways))
    pieces: list[str] = []
    here = len(cuts) - 1
    while here > 0:
        before = best[here][1]
        pieces.append(text[cuts[before][0] : cuts[here][0]])
        here = before
    return pieces[::-1]


def _cuts(text: str, most: int) -> list[tuple[int, float]]:
    """Where the text may be cut, as (position, price), its two ends included; no two further apart than
    `most`, unless an annotation is in between.
    """
    atoms = [found.span() for found in _ATOM.finditer(text)]
    cuts = [(0, 0.0)]
    since: list[int] = []  # ends of the atoms since the last cut
    for number, (start, end) in enumerate(atoms):
        last = number + 1 == len(atoms)
        price = _SENTENCE if last else _price(text, start, end)
        if price is None:
            since.append(end)
            continue
        if end - cuts[-1][0] > most:
            cuts.extend(_emergency(text, cuts[-1][0], [*since, end], most))
        cuts.append((end, price))
        since = []
    return cuts


def _price(text: str, start: int, end: int) -> float | None:
    """The price of a cut behind the atom from start to end; None: no good place."""
    after = text[end]
    if after in _CLOSING and after != " ":
        return None  # the sentence, or its quotation, goes on
    before = text[start:end].strip()
    spaces = text[start:end].isspace()
    at = start
    while at > 0 and text[at] in _CLOSING and text[at] not in _ENDS:
        at -= 1  # back over closing marks and spaces to what they close
    if text[at] in _ENDS and (spaces or after != " "):
        return _SENTENCE
    if text[at] == "." and spaces and not _abbreviates(text, at):
        return _SENTENCE
    if after == " ":
        return None  # the space belongs to this piece: the cut comes behind it
    if before and before in _PAUSES:
        return _PAUSE
    if spaces:
        return _PAUSE if text[start - 1 : start] in _PAUSES else _SPACE
    return None


def _abbreviates(text: str, dot: int) -> bool:
    """Whether the dot belongs to an abbreviation or an initial, and ends no sentence."""
    word = re.search(r"([A-Za-z.]+)$", text[max(0, dot - 12) : dot])
    if word is None:
        return False
    plain = word[1].replace(".", "").lower()
    return plain in _ABBREVIATIONS or (len(plain) == 1 and word[1].isupper())


def _emergency(text: str, start: int, ends: list[int], most: int) -> list[tuple[int, float]]:
    """Cuts between atoms, and inside one that is too long, where nothing better is near. Sixteen or so in
    each `most` characters: more would find nothing better and take long.
    """
    places: list[int] = []
    at = start
    for end in ends:
        if end - at > most and not _ANNOTATION.match(text, at):
            places.extend(range(at + 1, end))
        places.append(end)
        at = end
    found: list[tuple[int, float]] = []
    at = start
    for place, following in itertools.pairwise(places):  # the last one is the good place that was too far
        if place - at >= most / 16 or following - at > most:
            found.append((place, _ANYWHERE))
            at = place
    return found
