from __future__ import annotations

import base64

import pytest

from imagine.provenance.recipe_note import RecipeBox

SECRET = b"s" * 32


def test_what_is_sealed_opens_here_and_nowhere_else() -> None:
    sealed = RecipeBox(SECRET).seal("auf dem Mond, \u00f6 \U0001f304")
    assert RecipeBox(SECRET).open(sealed) == "auf dem Mond, \u00f6 \U0001f304"
    assert RecipeBox(b"t" * 32).open(sealed) is None


def test_the_length_tells_little() -> None:
    box = RecipeBox(SECRET)
    assert len(box.seal("moon")) == len(box.seal("on a beach at sunset with my dog"))


@pytest.mark.parametrize("sealed", ["", "!", "AAAA", base64.b64encode(bytes(99)).decode()])
def test_anything_else_opens_as_nothing(sealed: str) -> None:
    assert RecipeBox(SECRET).open(sealed) is None


def test_a_changed_letter_opens_as_nothing_and_the_key_never_shows() -> None:
    box = RecipeBox(SECRET)
    data = bytearray(base64.b64decode(box.seal("moon")))
    data[20] ^= 1
    assert box.open(base64.b64encode(bytes(data)).decode()) is None
    assert "sss" not in repr(box)
