import numpy as np
import pytest

from training.people.person import HAIR_COLOURS, sample_person
from training.people.scene import facts
from training.people.splits import is_held_out
from training.people.switched import AGED, AGES, aged, switched_photos

PEOPLE = [sample_person(seed) for seed in range(60)]


@pytest.mark.parametrize("age", [25, 50, 75])
def test_age_changes_skin_and_hair_and_leaves_the_bones(age):
    for person in PEOPLE:
        older = aged(person, age)
        assert (older.seed, older.sex, older.skin_tone) == (
            person.seed,
            person.sex,
            person.skin_tone,
        )
        assert older.face_shapes == person.face_shapes
        assert older.age == age
        assert dict(older.phenotype)["african"] == dict(person.phenotype)["african"]
        assert older.wrinkles >= person.wrinkles if age > person.age else True
        assert older.skin_texture.split("_")[0] == {25: "young", 50: "middleage", 75: "old"}[age]


def test_most_grow_grey_and_nobody_young_is():
    old = [aged(person, 75) for person in PEOPLE]
    young = [aged(person, 25) for person in PEOPLE]
    grey = [person.hair_colour in ("grey", "white") for person in old]
    assert 0.7 < np.mean(grey) < 1.0
    assert not any(person.hair_colour in ("grey", "white") for person in young)
    assert all(person.hair_colour in HAIR_COLOURS for person in young)


def test_four_photos_show_two_other_ages_grey_hair_and_a_soft_smile():
    for person in PEOPLE:
        photos = switched_photos(person, 4)
        ages = [shown.age_band for shown, _, kind, _ in photos if kind == AGED]
        assert sorted([*ages, person.age_band]) == sorted(AGES)
        (_, third, _, said), (_, fourth, kind, _) = photos[2:]
        bare = person.hair_style in ("bald", "buzz", "wreath")
        assert bare or (third.hair_colour in ("grey", "white") and third.hair_colour in said)
        assert fourth.expression == "soft smile"
        assert kind == "scene"
        assert not any(is_held_out(facts(shown, scene)) for shown, scene, _, _ in photos)


def test_a_caption_says_the_age_it_shows():
    words = {
        "young": ("young", "twenties", "years old"),
        "middle-aged": ("middle", "years old"),
        "old": ("old", "elderly", "senior", "wrinkles"),
    }
    for person in PEOPLE:
        for shown, _, kind, caption in switched_photos(person, 4):
            if kind == AGED:
                assert any(word in caption.lower() for word in words[shown.age_band]), caption
                assert "{" not in caption


def test_the_same_person_gives_the_same_photos():
    assert switched_photos(PEOPLE[3], 4) == switched_photos(PEOPLE[3], 4)
