import numpy as np
import pytest

from imagine.backends.embedded import EmbeddedBackend
from imagine.core import PhotoVerdict
from training.evaluation_portraits import (
    PORTRAITS,
    RenderedSelfies,
    compare,
    glasses_shown,
    open_portrait,
    right_among_renders,
    seen_in_neighbours,
    vectors,
)
from training.held_out import WISHES, FaceJudge, JudgedPicture

GREY = np.full((8, 8, 3), 127, np.uint8)


def test_pictures_nearest_to_their_own_person_are_counted_and_lost_faces_are_not():
    people = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    own = [[JudgedPicture(GREY, people[0]), JudgedPicture(GREY, None)],
           [JudgedPicture(GREY, people[1]), JudgedPicture(GREY, people[0])]]  # fmt: skip
    figures = compare(own, people)
    assert figures["face_found"] == 0.75
    assert figures["nearest_is_own"] == 0.5
    assert figures["by_chance"] == 0.5


def test_the_nearest_rendered_people_vote():
    tokens = np.eye(8, dtype=np.float32)
    truths = [{"sex": "woman" if index < 4 else "man"} for index in range(8)]
    token = np.array([3, 3, 3, 3, 2, 2, 1, 0], np.float32)
    assert seen_in_neighbours(token, tokens, truths, ["sex"]) == {"sex": "woman"}


def test_a_rendered_selfie_is_compared_with_other_people_only():
    women, men = np.tile([[1.0, 0.1]], (8, 1)), np.tile([[0.1, 1.0]], (8, 1))
    vectors = {"one": np.concatenate([women, men]).astype(np.float32)}
    truths = [{"sex": "woman"}] * 8 + [{"sex": "man"}] * 8
    apart = RenderedSelfies(vectors, truths, np.arange(16))
    assert right_among_renders(apart, ["sex"]) == {"one": {"sex": 1.0}}
    one_woman = RenderedSelfies(vectors, truths, np.array([0] * 8 + [*range(1, 9)]))
    assert right_among_renders(one_woman, ["sex"]) == {"one": {"sex": 0.5}}


@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda p: f"{p.package}-{p.face}")
def test_public_portraits_pass_the_products_own_door(portrait):
    if portrait.package != "matplotlib":
        pytest.importorskip(portrait.package)
    person = open_portrait(portrait, FaceJudge())
    assert person.reports[0].verdict is not PhotoVerdict.REFUSE


class _SeesGlasses:
    """Sees round glasses in dark pictures and none in others."""

    def probabilities(self, images):
        dark = [float(np.mean(image) < 100) for image in images]
        return [{"glasses": {"none": 1 - share, "round": share}} for share in dark]


def test_glasses_count_only_where_the_wish_says_nothing_of_them():
    black = np.zeros((8, 8, 3), np.uint8)
    silent = [wish for wish in WISHES if "glasses" not in wish.wants][:3]
    asked = next(wish for wish in WISHES if "glasses" in wish.wants)
    pictures = [JudgedPicture(image, None) for image in (black, GREY, GREY, black)]
    assert glasses_shown(_SeesGlasses(), pictures, [*silent, asked]) == pytest.approx(1 / 3)


def test_a_selfie_is_described_by_all_that_tell_people_apart():
    backend = EmbeddedBackend.load(candidates=1)
    crop = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    found = vectors(backend, crop, np.full(128, 3.0))
    assert set(found) == {"identity adapter", "chooser", "dlib"}
    assert all(np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5) for one in found.values())
