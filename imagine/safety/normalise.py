"""The many ways to read one text: disguises undone, words as plain lower-case ASCII.

A disguise has no single answer ("1" may stand for i or l, a hidden character for nothing or for a
space), so a text becomes several readings and a rule has to see only one of them. What the image
model is given is the text itself; readings are for judging alone.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import ftfy
from anyascii import anyascii

Reading = tuple[str, ...]  # the words of a text, [a-z0-9] only
Segment = Callable[[str], list[str]]  # letters without spaces in, words out

# Letters of other scripts by the Latin letter they look like. anyascii goes by sound (the Cyrillic
# letter that looks like p is an r), which is the other half of the truth, so both are read.
_LOOKALIKES = str.maketrans(
    dict(
        zip(
            "авгдекмнорстухѕіјԁӏпԛԝһьуАВЕКМНОРСТУХЅІЈԚԜүАѵ",
            "abrdekmhopctyxsijdlnqwhbyABEKMHOPCTYXSIJQWyAv",
            strict=True,
        )
    )
    | dict(
        zip(
            "αβεηικνορτυχωγσςΑΒΕΗΙΚΜΝΟΡΤΥΧΖ",
            "abenikvoptuxwyocABEHIKMNOPTYXZ",
            strict=True,
        )
    )
    | dict(zip("ոսօցհզոԱՏՕՍ", "nuoghqnUSOU", strict=True))
    | dict(zip("ᎪᏴᏟᎠᎬᎢᎫᏞᎷΝᏢᏒᏚᎢᏙᎳᏃ", "ABCDETJLMNPRSTVWZ", strict=True))  # noqa: RUF001
)
_LEET = {"0": "o", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g"} | {
    "@": "a",
    "$": "s",
    "!": "i",
    "|": "l",
    "+": "t",
    "€": "e",
    "£": "l",
}
_LEET_READINGS = tuple(str.maketrans(_LEET | {"1": one}) for one in "il")

_BIDI = re.compile("[\u200f\u202b\u202e\u2067]")
_REVERSED_PART = re.compile("[\u202e\u202b\u2067]([^\u202c\u2069]*)")
# Characters that show nothing and are not of category Cf or Mn: fillers and the blank of Braille.
_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u17b4\u17b5")
_DROPPED = frozenset({"Cf", "Mn", "Me", "Co", "Cs", "Cn"})

_CHUNK = re.compile(r"(\S+)(\s*)")
_WORD = re.compile(r"[a-z0-9]+")
_EDGES = " \t\n.,;:?\"'()[]{}<>…"
_LETTER = r"[a-z0-9@$!+]"
# n.u.d.e, n-u-d-e, n_u_d_e: single letters with marks between them.
_DOTTED = re.compile(rf"{_LETTER}(?:[^a-z0-9@$!+\s]{{1,3}}{_LETTER}){{2,}}")
_INNER_MARKS = re.compile(r"(?<=[a-z0-9])[^a-z0-9\s]+(?=[a-z0-9])")
_SHORTEST_RUN = 3  # single letters in a row that we take for a word spelt out


def readings(text: str, segment: Segment) -> tuple[Reading, ...]:
    """Every way to read a text that differs from the others, plainest first.

    Args:
        text: anything; of any length.
        segment: splits letters that were spelt out one by one into words.

    Returns:
        At least one reading; empty words never occur.
    """
    found: dict[Reading, None] = {}
    for base in _bases(_decoded(text)):
        for folded in _foldings(base):
            for reading in _word_readings(folded, segment):
                found.setdefault(reading)
    return tuple(found)


def words_of(text: str) -> Reading:
    """The plain reading of a text that hides nothing, such as a rule of the lexicon."""
    return tuple(_WORD.findall(_ascii(unicodedata.normalize("NFKC", text))))


def _decoded(text: str) -> str:
    """Undo entities, percent signs and broken encodings, as often as they were stacked."""
    for _ in range(3):
        simpler = unquote(html.unescape(text), errors="ignore")
        if simpler == text:
            break
        text = simpler
    return ftfy.fix_text(text, unescape_html=False, normalization=None)


def _bases(text: str) -> Iterator[str]:
    """With hidden characters dropped; read as spaces; and from right to left where asked."""
    unhidden = _without_hidden(text, "")
    yield unhidden
    spaced = _without_hidden(text, " ")
    if spaced != unhidden:
        yield spaced
    if _BIDI.search(text):
        yield _without_hidden(_REVERSED_PART.sub(lambda part: part[1][::-1], text), "")
        yield unhidden[::-1]


def _without_hidden(text: str, instead: str) -> str:
    # Tag letters (U+E0020 to U+E007E) repeat ASCII invisibly; dropped like all of category Cf.
    kept = []
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if category == "Cc":
            kept.append(" ")
        elif category in {"Mn", "Me"}:  # accents and strokes never part a word
            continue
        elif category in _DROPPED or character in _BLANKS:
            kept.append(instead)
        else:
            kept.append(character)
    return "".join(kept)


def _foldings(text: str) -> Iterator[str]:
    yield (by_sound := _ascii(text))
    if not text.isascii() and (by_shape := _ascii(text.translate(_LOOKALIKES))) != by_sound:
        yield by_shape


def _ascii(text: str) -> str:
    # NFD first: anyascii would write the German umlauts as single letters either way, and this
    # makes every accent go the same way.
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    return str(anyascii(bare)).lower()


def _word_readings(text: str, segment: Segment) -> Iterator[Reading]:
    yield tuple(_WORD.findall(text))
    joined = _joined(text, segment)
    for spelling in dict.fromkeys((text, joined)):
        yield tuple(_WORD.findall(spelling))
        for leet in _LEET_READINGS:
            unleet = _unleet(spelling, leet)
            yield tuple(_WORD.findall(unleet))
            if unleet != _unleet(spelling, {}):  # "45 4 child": once digits are letters, all may be
                yield tuple(_WORD.findall(unleet.translate(leet)))
    # por-n, nu.de: marks inside a word dropped instead of read as spaces.
    yield tuple(_WORD.findall(_INNER_MARKS.sub("", text)))


def _unleet(text: str, leet: dict[int, str]) -> str:
    return " ".join(_unleet_chunk(chunk.strip(_EDGES + "!"), leet) for chunk in text.split())


def _unleet_chunk(chunk: str, leet: dict[int, str]) -> str:
    # A number stays a number; only among letters does a digit stand for one.
    return chunk.translate(leet) if any(c.isalpha() for c in chunk) else chunk


def _joined(text: str, segment: Segment) -> str:
    """Words spelt out letter by letter, put together again."""
    dotted = _DOTTED.sub(lambda found: _respelt(found[0], segment), text)
    chunks = [(chunk.strip(_EDGES), len(gap)) for chunk, gap in _CHUNK.findall(dotted)]
    out: list[str] = []
    run: list[tuple[str, int]] = []
    for chunk, gap in [*chunks, ("", 0)]:
        if len(chunk) == 1:
            run.append((chunk, gap))
            continue
        out.extend(_spelt_out(run, segment))
        run = []
        out.append(chunk)
    return " ".join(out)


def _spelt_out(run: list[tuple[str, int]], segment: Segment) -> list[str]:
    """Join a run of single letters; gaps wider than the narrowest one end a word."""
    if len(run) < _SHORTEST_RUN:
        return [letter for letter, _ in run]
    narrow = min(gap for _, gap in run[:-1])
    words, word = [], ""
    for letter, gap in run:
        word += letter
        if gap > narrow:
            words.append(word)
            word = ""
    return [_respelt(word, segment) for word in [*words, word] if word]


def _respelt(letters: str, segment: Segment) -> str:
    bare = re.sub(r"[^a-z0-9@$!+]", "", letters)
    # Read as letters before looking for words; digits that stand for themselves survive in the
    # plain reading.
    plain = " ".join(segment(bare)) if bare.isalnum() else bare
    return plain if bare.isalpha() else f"{plain} {_leet_segments(bare, segment)}"


def _leet_segments(letters: str, segment: Segment) -> str:
    read = (_unleet_chunk(letters, leet) for leet in _LEET_READINGS)
    return " ".join(" ".join(segment(_only_words(letters))) for letters in read)


def _only_words(letters: str) -> str:
    return "".join(_WORD.findall(letters))
