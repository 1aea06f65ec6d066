"""Files that were damaged on purpose, read for their recipe: an answer or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagine.core import Recipe
from imagine.errors import InvalidInput
from imagine.provenance import MarkedImage, read_recipe

MUTATIONS = 120


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("note", ["sealed", "open"])
def test_no_damage_to_a_file_is_more_than_an_error(
    sealed: MarkedImage, marks: Path, suffix: str, note: str
) -> None:
    whole = sealed.to_bytes(suffix, note)
    rng = np.random.default_rng(len(whole) % 7)
    begin = whole.find(b"<x:xmpmeta")
    outcomes = set()
    for number in range(MUTATIONS):
        data = bytearray(whole)
        # Every other time in the metadata itself, where the recipe stands.
        low, high = (begin, begin + 3000) if number % 2 else (0, len(data))
        for place in rng.integers(low, min(high, len(data)), 4):
            data[place] = int(rng.integers(256))
        if number % 5 == 0:
            del data[int(rng.integers(1, len(data))) :]
        try:
            outcomes.add(type(read_recipe(bytes(data), marks)))
        except InvalidInput as error:
            assert len(str(error)) > 30
            outcomes.add(InvalidInput)
    # Every byte of a PNG is under a checksum, so there nothing damaged is read.
    assert outcomes == ({InvalidInput} if suffix == ".png" else {Recipe, InvalidInput})


@pytest.mark.parametrize(
    "data", [b"{", b"{}", b'{"prompt": 3}', b"[1]", b"{" * 100_000, b'{"prompt": "x"}', b"\0" * 99]
)
def test_what_is_no_recipe_is_an_error(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        read_recipe(data, tmp_path)
