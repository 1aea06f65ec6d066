import pytest

from imagine.backends.prompt_judge import asked_attributes
from imagine.errors import InvalidInput, MissingWeights
from training.held_out import WISHES, held_out_seeds, open_renderer, staged_scene
from training.people.captions import write_caption
from training.people.person import sample_person
from training.people.scene import PLACES, facts, sample_scene
from training.people.splits import HELD_OUT, is_held_out, split_of


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.prompt)
def test_the_prompt_reader_finds_what_every_wish_wants(wish):
    assert asked_attributes(wish.prompt) == dict(wish.wants)


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.prompt)
def test_the_staged_scene_shows_what_was_wished(wish):
    person = next(
        p for p in map(sample_person, range(100_000, 100_099)) if p.hair_style == "long01"
    )
    shown = facts(person, staged_scene(person, wish.scene, seed=3))
    assert {name: shown[name] for name in wish.scene} == dict(wish.scene)
    assert all(shown[name] in classes for name, classes in wish.wants.items())


def test_nothing_unasked_is_worn_in_a_staged_scene():
    person = sample_person(100_003)
    scenes = [staged_scene(person, {"place": "park"}, seed) for seed in range(30)]
    assert {(s.glasses, s.hat, s.style, s.hair_changed) for s in scenes} == {
        ("none", "none", "colour photo", False)
    }


def test_most_wishes_are_combinations_that_training_leaves_out():
    assert sum(is_held_out(wish.scene) for wish in WISHES) >= len(HELD_OUT)


def test_no_wish_names_who_the_person_is():
    words = {word.strip(",:.") for wish in WISHES for word in wish.prompt.lower().split()}
    assert not words & {"man", "woman", "boy", "girl", "old", "young", "he", "she", "his", "her"}


def test_people_of_the_evaluation_are_never_trained_on():
    assert {split_of(seed) for seed in held_out_seeds(100)} == {"evaluate"}


def test_more_people_than_are_kept_back_are_refused():
    with pytest.raises(InvalidInput, match="kept for evaluation"):
        held_out_seeds(10**6)


def test_places_are_read_from_the_words_that_captions_use():
    read = {name: {asked_attributes(f"me {words}").get("place") for words in phrases}
            for name, phrases in PLACES.items()}  # fmt: skip
    assert read == {name: {(name,)} for name in PLACES}


def test_captions_are_read_as_what_the_photo_shows():
    wrong = []
    for seed in range(300):
        person = sample_person(seed)
        scene = sample_scene(person, seed)
        caption, shown = write_caption(person, scene, seed), facts(person, scene)
        for name, classes in asked_attributes(caption).items():
            if shown[name] not in classes:
                wrong.append((name, caption, shown[name]))
    assert wrong == []


def test_missing_people_assets_are_named_with_what_to_do(tmp_path):
    with pytest.raises(MissingWeights, match="IMAGINE_PEOPLE_ASSETS"):
        open_renderer(tmp_path / "nowhere")
