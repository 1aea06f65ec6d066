from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagine.core import Identity, ImageArray, PairVerdict
from imagine.identity.likeness import copy_score, judge_likeness, judge_pair, likeness_score
from tests.doubles import (
    DoubleDetector,
    DoubleEncoder,
    SideBySideDetector,
    double_crops,
    double_identity,
)

ENCODER = DoubleEncoder()


def judge(image: ImageArray, identity: Identity) -> str:
    return judge_likeness(image, identity, DoubleDetector(), ENCODER).words


def on_a_line(*places: float) -> Identity:
    """Somebody whose selfies stand at these places of a line in embedding space."""
    embeddings = np.zeros((len(places), 27), dtype=np.float32)
    embeddings[:, 0] = places
    return replace(double_identity(), embeddings=embeddings, embedding=embeddings.mean(axis=0))


def test_a_picture_of_the_person_looks_like_them() -> None:
    me = double_identity(person=3)
    assert judge(double_crops(person=3, photos=1)[0], me) == "This looks like you."


def test_a_picture_of_somebody_else_does_not_look_like_them() -> None:
    stranger = double_crops(person=4, photos=1)[0]
    assert judge(stranger, double_identity(person=3)) == "This does not look like you."


def test_a_picture_in_between_has_something_of_them() -> None:
    me = double_identity(person=3)
    far = replace(me, embedding=me.embedding + np.float32(0.5 / np.sqrt(27)))
    assert judge(me.crops[0], far) == "This has something of you."


def test_a_picture_without_a_face_scores_nothing_and_says_so() -> None:
    blank = np.full((64, 64, 3), 90, dtype=np.uint8)
    verdict = judge_likeness(blank, double_identity(), DoubleDetector(), ENCODER)
    assert (verdict.face_found, verdict.score, verdict.distance) == (False, 0.0, None)
    assert verdict.words == "No face could be found in this picture."


def test_the_score_falls_with_distance_and_is_a_half_at_the_threshold() -> None:
    scores = [likeness_score(distance, 0.6) for distance in (0.0, 0.45, 0.6, 0.8, 100.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] == pytest.approx(0.5)
    assert scores[1] == pytest.approx(0.92, abs=0.01) and scores[3] == pytest.approx(0.03, abs=0.01)


def test_a_copy_of_one_selfie_scores_one_and_a_new_picture_none() -> None:
    selfies = on_a_line(0.0, 0.4, 0.4).embeddings
    assert copy_score(selfies[0], selfies, ENCODER) == pytest.approx(1.0)
    assert copy_score(on_a_line(0.2).embedding, selfies, ENCODER) == pytest.approx(0.0, abs=1e-6)


def test_one_selfie_alone_cannot_tell_a_copy() -> None:
    selfies = on_a_line(0.0).embeddings
    assert copy_score(selfies[0], selfies, ENCODER) is None


def test_nearly_equal_selfies_do_not_make_a_likeness_a_copy() -> None:
    selfies = on_a_line(0.0, 0.01).embeddings
    score = copy_score(selfies[0], selfies, ENCODER)
    assert score is not None and score < 0.2


def test_a_copied_selfie_is_called_a_copy() -> None:
    me = double_identity(person=3)
    other = me.embeddings[1] + np.float32(0.4 / np.sqrt(27))
    spread = np.stack([me.embeddings[0], other])
    identity = replace(me, embeddings=spread, embedding=me.embeddings[0])
    assert judge(me.crops[0], identity) == "This is close to a copy of your photo."


FIRST, SECOND = double_identity(person=3), double_identity(person=4)


def pair_of(left: ImageArray, right: ImageArray) -> PairVerdict:
    image = np.concatenate([left, right], axis=1)
    return judge_pair(image, (FIRST, SECOND), SideBySideDetector(), ENCODER)


def test_two_people_in_their_places_look_like_themselves_and_are_not_mixed() -> None:
    pair = pair_of(FIRST.crops[0], SECOND.crops[0])
    assert pair.is_assigned and pair.blending == pytest.approx(0.0, abs=0.1)
    assert pair.left.words == "The face on the left looks like its person."
    assert pair.right.words == "The face on the right looks like its person."


def test_two_people_who_changed_places_are_each_the_other() -> None:
    pair = pair_of(SECOND.crops[0], FIRST.crops[0])
    assert not pair.is_assigned and pair.blending == pytest.approx(1.0, abs=0.1)
    assert pair.left.words == "The face on the left does not look like its person."


def test_a_face_half_way_between_two_people_is_half_blended() -> None:
    middle = (FIRST.crops[0] / 2.0 + SECOND.crops[0] / 2.0).astype(np.uint8)
    assert pair_of(middle, SECOND.crops[0]).blending == pytest.approx(0.5, abs=0.1)


def test_one_face_alone_belongs_to_the_side_it_stands_on() -> None:
    pair = pair_of(np.full_like(FIRST.crops[0], 90), SECOND.crops[0])
    assert (pair.left.face_found, pair.right.face_found) == (False, True)
    assert pair.left.words == "No face could be found on the left."
    assert pair.blending is None and not pair.is_assigned
