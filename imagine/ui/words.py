"""What the page says, in the language of whoever reads it.

The table is `words.yaml`, with `words_offices.yaml` for the pages around the studio and
`words_camera.yaml` for the camera check. A key that
ends in "@service" is what is said instead where a service keeps things. English is the language of
the rooms inside: what they say about a photo, a picture or an error is shown as it is, other
languages say the same without the figures.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

from imagine.core import LikenessVerdict, PhotoReport, PhotoVerdict
from imagine.errors import ImagineError
from imagine.identity.likeness import COPY, LOOKS_LIKE, SOMETHING_OF

LANGUAGES = ("en", "it", "pt", "de", "es")


class Spoken(ImagineError):
    """Marks an error whose message is in the visitor's language already."""


class Words:
    """The words of one language; what it lacks is said in English.

    Args:
        language: one of LANGUAGES; another one is English.
        house: where this is said, "service" or "" for a program in memory only.
    """

    def __init__(self, language: str, house: str = "") -> None:
        self.language = language if language in LANGUAGES else "en"
        self.house = house

    def __call__(self, key: str, **facts: object) -> str:
        """The words of a key, blanks filled."""
        return self.raw(key).format(**facts)

    def raw(self, key: str) -> str:
        """The words of a key with their blanks."""
        entry = table().get(f"{key}@{self.house}") or table()[key]
        return entry.get(self.language, entry.get("en", ""))

    def error(self, error: ImagineError) -> str:
        """What happened and what to do."""
        if self.language == "en" or isinstance(error, Spoken):
            return str(error)
        for kind in type(error).__mro__:
            if f"error.{kind.__name__}" in table():
                return self(f"error.{kind.__name__}")
        return str(error)

    def advice(self, report: PhotoReport) -> tuple[str, ...]:
        """Sentences about a photo, most important first."""
        if self.language == "en":
            return report.sentences
        codes = report.codes or ("good",)
        known = [self(f"photo.{code}") for code in codes if f"photo.{code}" in table()]
        return tuple(known) or report.sentences

    def verdict(self, verdict: PhotoVerdict) -> str:
        """The verdict on a photo in a word or two."""
        keys = {
            PhotoVerdict.KEEP: "verdict.keep",
            PhotoVerdict.KEEP_WITH_ADVICE: "verdict.advice",
            PhotoVerdict.REFUSE: "verdict.refuse",
        }
        return self(keys[verdict])

    def likeness(self, verdict: LikenessVerdict) -> str:
        """How much a picture looks like the person."""
        return verdict.words if self.language == "en" else self(f"likeness.{grade(verdict)}")


def grade(verdict: LikenessVerdict) -> str:
    """A verdict as one of: looks, something, not, copy, no_face."""
    if not verdict.face_found:
        return "no_face"
    if verdict.score >= LOOKS_LIKE:
        return "copy" if (verdict.copy_score or 0.0) >= COPY else "looks"
    return "something" if verdict.score >= SOMETHING_OF else "not"


def preferred_language(accept_language: str | None) -> str:
    """The first language we speak of an Accept-Language header (RFC 9110, section 12.5.4)."""
    ranked = []
    for place, part in enumerate((accept_language or "").split(",")):
        tag, _, parameters = part.strip().partition(";")
        weight = 1.0
        if parameters.strip().startswith("q="):
            try:
                weight = float(parameters.strip()[2:])
            except ValueError:
                weight = 0.0
        ranked.append((-weight, place, tag.split("-")[0].lower()))
    wanted = [tag for negative_weight, _, tag in sorted(ranked) if negative_weight < 0]
    return next((tag for tag in wanted if tag in LANGUAGES), "en")


@cache
def table() -> dict[str, dict[str, str]]:
    """Key -> language -> words."""
    entries: dict[str, dict[str, str]] = {}
    for name in ("words.yaml", "words_offices.yaml", "words_camera.yaml"):
        text = resources.files("imagine.ui").joinpath(name).read_text(encoding="utf-8")
        entries |= yaml.safe_load(text)
    return entries
