from dataclasses import replace

import pytest

from training.people.cache import choose_scenes, doubles_name, finished_shards, is_finished
from training.people.doubles import PHOTOS_OF_ONE, doubled
from training.people.person import sample_person
from training.people.renderer import Renderer
from training.people.scene import facts
from training.people.splits import split_of
from training.people.switched import aged

PEOPLE = [sample_person(seed) for seed in range(20)]


def test_a_double_has_another_face_and_all_that_is_not_the_face():
    for person in PEOPLE:
        double = doubled(person, 0)
        assert double != person
        for name in ("sex", "age", "skin_tone", "skin_rgb", "hair_style", "hair_rgb", "wrinkles"):
            assert getattr(double, name) == getattr(person, name)
        ours, theirs = dict(person.face_shapes), dict(double.face_shapes)
        assert ours.keys() == theirs.keys()
        assert sum(abs(ours[name] - theirs[name]) > 0.05 for name in ours) > len(ours) / 3
        assert dict(double.phenotype)["age"] == dict(person.phenotype)["age"]
        assert double.age_band == person.age_band
        assert split_of(double.seed) == "train"
        for scene in choose_scenes(person.seed, 8):
            assert facts(double, scene) | {"beard": ""} == facts(person, scene) | {"beard": ""}


def test_some_photos_in_turn_have_the_same_double_and_others_another():
    person = PEOPLE[0]
    doubles = [doubled(person, photo) for photo in range(2 * PHOTOS_OF_ONE)]
    assert len(set(doubles[:PHOTOS_OF_ONE])) == 1
    assert len(set(doubles)) == 2
    assert doubled(person, 0) == doubles[0]


def test_a_double_is_as_old_as_the_photo_shows_the_person():
    person = next(person for person in PEOPLE if person.age_band == "young")
    older = aged(person, 70)
    double = doubled(older, 0)
    assert double.age == 70
    assert double.wrinkles == older.wrinkles
    assert double.skin_texture.startswith("old")


def test_some_men_have_other_beards_and_no_woman_has_one():
    men = [person for person in map(sample_person, range(200)) if person.sex == "man"]
    other = [doubled(person, 0).beard != person.beard for person in men]
    assert 0.05 < sum(other) / len(other) < 0.4
    assert all(doubled(p, 0).beard == "none" for p in PEOPLE if p.sex == "woman")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(size=128)


def test_the_double_stands_where_the_person_stood(renderer):
    person = PEOPLE[1]
    scene = replace(choose_scenes(person.seed, 4)[3], glasses="none", hat="none")
    true = renderer.photograph(person, scene, 128)
    double = renderer.photograph(doubled(person, 3), scene, 128)
    assert abs(true.landmarks - double.landmarks).mean() < 3.0
    apart = abs(true.image.astype(int) - double.image.astype(int)).mean(2)
    left, top, right, bottom = (round(v) for v in true.face_box)
    face = apart[top:bottom, left:right].mean()
    corner = apart[:20, :20].mean()
    assert face > 3.0
    assert corner < face / 2


def test_photos_with_doubles_are_no_shard_of_people(tmp_path):
    (tmp_path / f"{doubles_name('shard-0000064-switched')}.jsonl").touch()
    assert finished_shards(tmp_path) == []
    assert is_finished(tmp_path, "doubles-0000064-switched")
