from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imagine.core import Recipe
from imagine.errors import InvalidInput
from imagine.provenance import MARKS_FOLDER, make_marking, open_verifier, read_recipe
from imagine.provenance.watermark_report import drawing
from imagine.settings import Settings

RECIPE = Recipe("on the moon", 7, 4, 2.5, 0.7, "fake", "fake-1", "ab" * 32, "0.1.0")


class Log:
    def __init__(self) -> None:
        self.entries: list[tuple[str, Mapping[str, object]]] = []

    def append(self, kind: str, facts: Mapping[str, object]) -> int:
        self.entries.append((kind, facts))
        return len(self.entries) - 1


def test_a_picture_gets_an_entry_that_says_nothing_private_and_is_remembered_by_its_looks(
    tmp_path: Path,
) -> None:
    log = Log()
    marked = make_marking(Settings(data_directory=tmp_path), log.append, "cd" * 32)(
        drawing(2, 128), RECIPE
    )
    assert marked.recipe and marked.recipe.record == 1  # entry 0 begins the log
    assert {kind for kind, _ in log.entries} == {"picture.marked"}
    assert "moon" not in str(log.entries) and "abab" not in str(log.entries)
    verifier = open_verifier(tmp_path / MARKS_FOLDER)
    assert verifier.hashes is not None and len(verifier.hashes.hashes_of(1)) == 1


def test_a_picture_made_again_keeps_its_entry_and_its_pixels(tmp_path: Path) -> None:
    log = Log()
    marking = make_marking(Settings(data_directory=tmp_path), log.append, "cd" * 32)
    first = marking(drawing(2, 128), RECIPE)
    count = len(log.entries)
    again = marking(drawing(2, 128), first.recipe)
    assert np.array_equal(first.pixels, again.pixels) and len(log.entries) == count
    hashes = open_verifier(tmp_path / MARKS_FOLDER).hashes
    assert hashes is not None and len(hashes) == 1


@pytest.mark.parametrize("note", ["none", "sealed", "open"])
def test_the_settings_say_who_may_read_the_recipe(tmp_path: Path, note: str) -> None:
    settings = Settings(data_directory=tmp_path, recipe_in_files=note)
    marked = make_marking(settings, lambda kind, facts: 3, "cd" * 32)(drawing(2, 128), RECIPE)
    data = marked.to_bytes(".png")
    assert (b"on the moon" in data) is (note == "open")
    if note == "none":
        with pytest.raises(InvalidInput, match="no recipe"):
            read_recipe(data, tmp_path / MARKS_FOLDER)
    else:
        assert read_recipe(data, tmp_path / MARKS_FOLDER) == replace(RECIPE, record=3)


def test_settings_of_the_marks_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path)
    for change, words in (
        ({"recipe_in_files": "aloud"}, "none, sealed, open"),
        ({"signing_key": "key.pem"}, "IMAGINE_SIGNING_ROOTS"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(words)):
            make_marking(replace(settings, **change), lambda kind, facts: 3, "cd" * 32)
