import numpy as np
import pytest

from imagine.core import PhotoVerdict
from training.evaluation_portraits import PORTRAITS, compare, open_portrait, seen_in_neighbours
from training.held_out import FaceJudge, JudgedPicture

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


@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda p: f"{p.package}-{p.face}")
def test_public_portraits_pass_the_products_own_door(portrait):
    if portrait.package != "matplotlib":
        pytest.importorskip(portrait.package)
    person = open_portrait(portrait, FaceJudge())
    assert person.reports[0].verdict is not PhotoVerdict.REFUSE
