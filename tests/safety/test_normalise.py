from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagine.safety.normalise import readings, words_of


def parted(letters: str) -> list[str]:
    """As the lexicon would, knowing two words."""
    return {"redcat": ["red", "cat"]}.get(letters, [letters] if letters else [])


@pytest.mark.parametrize(
    "disguised",
    [
        "RED CAT",
        "r e d   c a t",
        "r e d c a t",
        "r.e.d c.a.t",
        "r_e_d_c_a_t",
        "r3d c4t",
        "r3d c@t!",
        "r\u200bed ca\u00adt",
        "гed саt",  # noqa: RUF001 (Cyrillic)
        "ｒｅｄ ｃａｔ",  # noqa: RUF001 (full width)
        "r\u0336e\u0336d\u0336 c\u0336a\u0336t\u0336",
        "ⓡⓔⓓ ⓒⓐⓣ",
        "𝓇ℯ𝒹 𝒸𝒶𝓉",  # noqa: RUF001 (script letters)
        "&#114;ed &amp;#99;at",
        "%72ed%20cat",
        "\u202etac der\u202c",
        "réd çàt",
        "r-ed ca-t",
        "r\u3164ed cat",
    ],
)
def test_a_disguise_is_seen_through(disguised: str) -> None:
    assert ("red", "cat") in readings(disguised, parted)


def test_an_honest_text_has_one_reading() -> None:
    assert readings("A red cat, by the sea.", parted) == (("a", "red", "cat", "by", "the", "sea"),)


def test_numbers_stay_numbers_in_the_plain_reading() -> None:
    assert readings("15 red cats", parted) == (("15", "red", "cats"),)


def test_accents_are_folded_in_rules_as_in_texts() -> None:
    assert words_of("Mädchen, niña, é") == ("madchen", "nina", "e")


@given(st.text(max_size=80))
def test_any_text_has_readings_of_plain_words(text: str) -> None:
    found = readings(text, parted)
    assert found
    assert all(word.isascii() and word.isalnum() for reading in found for word in reading)
