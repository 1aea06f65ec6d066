from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imagine.core import Identity, ImageArray
from imagine.identity.likeness import copy_score, judge_likeness, likeness_score
from tests.doubles import DoubleDetector, DoubleEncoder, double_crops, double_identity

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
