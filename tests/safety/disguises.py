"""Fifteen ways to write a text so that people still read it and a naive filter does not."""

from __future__ import annotations

import re
from collections.abc import Callable

_CYRILLIC = str.maketrans("aceopxyisjkmtbhn", "асеорхуіѕјкмтвнп")
_LEET = str.maketrans("aeiost", "431057")


def _each_letter(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: re.sub("[a-zA-Z]", lambda found: change(found[0]), text)


def _between(separator: str) -> Callable[[str], str]:
    """Put something between the letters of every word of letters; words stay apart."""
    return lambda text: re.sub(
        r"[^\W\d_]{2,}", lambda found: separator.join(found[0]), text.replace(" ", "   ")
    )


def _shifted(lower: int, upper: int) -> Callable[[str], str]:
    return _each_letter(
        lambda c: chr(lower + ord(c) - 97) if c.islower() else chr(upper + ord(c) - 65)
    )


def _stretch(text: str) -> str:
    """The second letter of every word of four or more, four times."""
    return re.sub("[a-zA-Z]{4,}", lambda word: word[0][0] + word[0][1] * 4 + word[0][2:], text)


def _accented(text: str) -> str:
    marks = "\u0301\u0308\u0303"
    return re.sub("[aeiounc]", lambda found: found[0] + marks[found.start() % 3], text)


DISGUISES: dict[str, Callable[[str], str]] = {
    "cyrillic": lambda text: text.translate(_CYRILLIC),
    "fullwidth": _shifted(0xFF41, 0xFF21),
    "bold mathematics": _shifted(0x1D41A, 0x1D400),
    "circled": _shifted(0x24D0, 0x24B6),
    "struck through": _each_letter(lambda c: c + "\u0336"),
    "zero width": _between("\u200b"),
    "soft hyphens": _between("\u00ad"),
    "tag characters": _between("\U000e0061"),
    "leet": lambda text: text.translate(_LEET),
    "spaced": _between(" "),
    "dotted": _between("."),
    "right to left": lambda text: f"\u202e{text[::-1]}\u202c",
    "stretched": _stretch,
    "entities": _each_letter(lambda c: f"&#{ord(c)};"),
    "accented": _accented,
}
