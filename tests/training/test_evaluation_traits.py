from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from imagine.backends.fake import FakeBackend
from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.core import ImageArray
from imagine.errors import InvalidInput
from imagine.traits import TRAITS
from tests.doubles import DoubleEncoder, SideBySideDetector, double_identity
from training.clock import Stopwatch
from training.evaluation_traits import (
    Drawn,
    DrawnPair,
    Studio,
    as_markdown,
    in_turns,
    measure,
    pair_figures,
    switches,
    trait_table,
)
from training.held_out import FaceJudge, HeldOutPerson


def drawn(person: int, trait: str, value: str, seen: str, distance: float | None) -> Drawn:
    return Drawn(person, trait, value, {"glasses": seen}, distance, 30.0)


class SeesNone:
    """A judge to whom nobody wears or has anything."""

    def probabilities(self, images: Sequence[ImageArray]) -> list[dict[str, dict[str, float]]]:
        return [{trait: {"none": 1.0} for trait in TRAITS} for _ in images]


def person(number: int) -> HeldOutPerson:
    me = double_identity(number)
    crop = me.crops[0]
    return HeldOutPerson(
        number, {}, crop, me.crops, me.embeddings, me.embedding, me.embedding, tried=4
    )


def studio(people: int) -> Studio:
    faces = cast("Any", FaceJudge.__new__(FaceJudge))
    faces.detector, faces.encoder = SideBySideDetector(), DoubleEncoder()
    judge = cast("AttributePromptJudge", SeesNone())
    return Studio(FakeBackend(), judge, faces, None, 1, [person(n) for n in range(people)])


def test_a_switch_is_compared_with_the_same_person_without_it() -> None:
    rows = trait_table(
        [
            drawn(1, "", "", "none", 0.50),
            drawn(2, "", "", "round", None),
            drawn(1, "glasses", "round", "round", 0.52),
            drawn(2, "glasses", "round", "round", 0.40),
        ]
    )
    (row,) = rows
    assert (row["right_with"], row["right_without"], row["people"]) == (1.0, 0.5, 2)
    # Only where both have a face: a lost face must not flatter the mean.
    assert (row["distance_with"], row["distance_without"]) == (0.52, 0.50)
    assert (row["found_with"], row["found_without"]) == (1.0, 0.5)


def test_taking_glasses_away_is_compared_with_a_prompt_that_asks_for_them() -> None:
    rows = trait_table(
        [
            drawn(1, "", "", "none", 0.5),
            drawn(1, "", "none", "round", 0.5),
            drawn(1, "glasses", "none", "none", 0.5),
        ]
    )
    assert rows[0]["right_without"] == 0.0


def test_every_value_of_every_trait_is_measured_person_by_person() -> None:
    turns = list(in_turns(2))
    assert len(turns) == 2 * len(switches()) == 2 * (2 + sum(map(len, TRAITS.values())))
    assert [number for number, _ in turns] == sorted(number for number, _ in turns)


def test_a_missing_face_is_a_wrong_assignment() -> None:
    figures = pair_figures(
        [
            DrawnPair(1, 2, 0, 0.4, 0.4, 0.2, 2),
            DrawnPair(2, 3, 1, 0.4, 0.5, 0.6, 2),
            DrawnPair(3, 4, 2, 0.4, None, None, 1),
            DrawnPair(4, 1, 1, 0.4, 0.4, 0.1, 3),
        ]
    )
    assert figures["assigned_right"] == 0.5
    assert (figures["both_found"], figures["both_found_at_once"]) == (0.75, 0.25)
    assert figures["blending"] == pytest.approx(0.3)


def test_a_second_run_goes_on_where_the_first_one_stopped(tmp_path: Path) -> None:
    first, _ = measure(studio(1), tmp_path, Stopwatch(600.0))
    again, _ = measure(studio(2), tmp_path, Stopwatch(600.0))
    assert again[: len(first)] == first and len(again) == 2 * len(first)
    assert "| glasses | none | 2 | 1.00 | 1.00 |" in as_markdown(trait_table(again))


def test_pictures_of_other_weights_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"model_revision": "other"}\n')
    with pytest.raises(InvalidInput, match="other"):
        measure(studio(2), tmp_path, Stopwatch(600.0), pairs=True)


def test_pairs_are_drawn_with_the_next_person_on_the_right(tmp_path: Path) -> None:
    _, pairs = measure(studio(2), tmp_path, Stopwatch(600.0), pairs=True)
    assert [(pair.left_person, pair.right_person) for pair in pairs] == [(0, 1), (1, 0)]
    assert pair_figures(pairs)["assigned_right"] == 1.0
    assert np.isfinite(pair_figures(pairs)["distance"])
