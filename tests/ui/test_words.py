from __future__ import annotations

import re
import string

import pytest

from imagine import errors
from imagine.core import LikenessVerdict, PhotoReport, PhotoVerdict
from imagine.errors import ImagineError, NoFaceFound, PromptBlocked
from imagine.ui.words import LANGUAGES, Words, grade, preferred_language, table


@pytest.mark.parametrize("key", table())
def test_every_language_says_every_key_with_the_same_blanks(key: str) -> None:
    entry = table()[key]
    assert set(LANGUAGES) - set(entry) <= {"en"}
    blanks = {
        frozenset(name for _, name, _, _ in string.Formatter().parse(words) if name)
        for words in entry.values()
    }
    assert len(blanks) == 1


def test_only_what_the_rooms_say_themselves_has_no_english() -> None:
    without = {key.split(".")[0] for key, entry in table().items() if "en" not in entry}
    assert without == {"photo", "likeness", "error"}


def test_every_finding_about_a_photo_has_words() -> None:
    import inspect

    from imagine.identity import fuse, quality

    source = inspect.getsource(quality) + inspect.getsource(fuse)
    codes = set(re.findall(r'_(?:refuse|advise)\(\s*"(\w+)"', source))
    codes |= set(re.findall(r'(?:finding|_with_finding|Finding)\([^"]*"(\w+)"', source))
    assert codes >= {"no_face", "several_faces", "blurred", "different_person", "duplicate"}
    assert {f"photo.{code}" for code in codes} <= set(table())


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("fr,pt-BR;q=0.7,en;q=0.3", "pt"),
        ("en;q=0.1, it", "it"),
        ("fr, nl", "en"),
        ("es;q=0", "en"),
        ("es;q=nonsense, it;q=0.1", "it"),
    ],
)
def test_the_browser_chooses_the_language(header: str | None, language: str) -> None:
    assert preferred_language(header) == language


def test_english_gives_the_rooms_own_sentence() -> None:
    assert Words("en").error(NoFaceFound("Photo 2 shows no face.")) == "Photo 2 shows no face."


def test_another_language_says_what_kind_of_error_it_was() -> None:
    assert "Regeln" in Words("de").error(PromptBlocked("not allowed", category="nudity"))
    assert Words("it").error(ImagineError("odd")) == table()["error.ImagineError"]["it"]


def test_every_error_has_words_in_every_language() -> None:
    kinds = [
        k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, ImagineError)
    ]
    for language in ("it", "pt", "de", "es"):
        for kind in kinds:
            extra = ("job",) if kind.__name__ == "JobStillRunning" else ()
            assert Words(language).error(kind("english words", *extra)) != "english words"


def test_advice_follows_the_codes_of_a_report() -> None:
    report = PhotoReport("a.jpg", PhotoVerdict.REFUSE, ("No face found.",), ("no_face",))
    assert Words("en").advice(report) == ("No face found.",)
    assert Words("es").advice(report) == (table()["photo.no_face"]["es"],)
    good = PhotoReport("a.jpg", PhotoVerdict.KEEP, ("A good photo.",))
    assert Words("pt").advice(good) == ("Uma boa foto.",)


@pytest.mark.parametrize(
    ("found", "score", "copy", "expected"),
    [
        (False, 0.0, None, "no_face"),
        (True, 0.9, None, "looks"),
        (True, 0.9, 0.9, "copy"),
        (True, 0.5, 0.9, "something"),
        (True, 0.1, None, "not"),
    ],
)
def test_a_verdict_has_one_grade(
    found: bool, score: float, copy: float | None, expected: str
) -> None:
    verdict = LikenessVerdict(found, 0.5, score, copy, "words")
    assert grade(verdict) == expected
    assert Words("de").likeness(verdict) == table()[f"likeness.{expected}"]["de"]
