import pytest

from training.people.captions import EXPRESSION_WORDS, GLASSES_WORDS, write_caption
from training.people.person import (
    DYED_COLOURS,
    HAIR_COLOURS,
    sample_person,
    streak_colour,
)
from training.people.scene import (
    BESIDE_THE_FACE,
    CLOTHING_COLOURS,
    EXPRESSIONS,
    FARTHEST_TURN,
    FARTHEST_TURN_BESIDE_HAIR,
    GARMENTS,
    HAIR_WORDS,
    PLACES,
    facts,
    sample_scene,
)
from training.people.splits import HELD_OUT, SPLITS, is_held_out, split_of

PEOPLE = [sample_person(seed) for seed in range(60)]
PHOTOS = [(person, sample_scene(person, i)) for person in PEOPLE for i in range(6)]


def test_the_same_seed_is_the_same_person_and_another_is_another() -> None:
    assert sample_person(5) == PEOPLE[5]
    assert len({person.face_shapes for person in PEOPLE}) == len(PEOPLE)


def test_the_same_seeds_are_the_same_photo() -> None:
    person = PEOPLE[3]
    assert sample_scene(person, 2, "selfie") == sample_scene(person, 2, "selfie")
    assert sample_scene(person, 2, "selfie") != sample_scene(person, 2, "scene")


def test_everybody_is_an_adult_and_people_differ() -> None:
    assert all(20 <= person.age <= 78 for person in PEOPLE)
    assert {person.sex for person in PEOPLE} == {"man", "woman"}
    assert {person.tone_word for person in PEOPLE} == {"light", "medium", "dark"}
    assert len({person.hair_style for person in PEOPLE}) >= 6


def test_a_persons_hair_is_their_own_in_every_selfie() -> None:
    for person in PEOPLE:
        selfie = sample_scene(person, 0, "selfie")
        assert selfie.hair_colour == person.hair_colour and not selfie.hair_changed
        assert selfie.style == "colour photo" and selfie.hat == "none"


def test_no_face_is_turned_so_far_that_an_eye_is_hidden() -> None:
    turns: dict[bool, list[float]] = {True: [], False: []}
    for person in map(sample_person, range(200)):
        for seed, kind in ((0, "selfie"), (1, "scene"), (2, "scene")):
            scene = sample_scene(person, seed, kind)
            turn = abs(scene.head[0] + scene.body_yaw)
            turns[person.hair_style in BESIDE_THE_FACE].append(turn)
    assert 0.8 * FARTHEST_TURN < max(turns[False]) <= FARTHEST_TURN + 1e-6
    assert 10 < max(turns[True]) <= FARTHEST_TURN_BESIDE_HAIR + 1e-6


def test_every_fact_is_a_word_from_a_known_list() -> None:
    for person, scene in PHOTOS:
        words = facts(person, scene)
        assert words["place"] in PLACES and words["expression"] in EXPRESSIONS
        assert words["hair_colour"] in {*HAIR_COLOURS, *DYED_COLOURS, "none"}
        assert words["garment"] in GARMENTS.values()
        assert words["hair_style"] in HAIR_WORDS.values()


def test_grey_hair_mixes_dark_and_light_strands() -> None:
    person = PEOPLE[0]
    grey, brown = HAIR_COLOURS["grey"], HAIR_COLOURS["brown"]
    assert min(streak_colour(person, "grey", grey)) > 2 * max(grey)
    streak = streak_colour(person, "brown", brown)
    assert all(1.1 < light / own < 1.9 for light, own in zip(streak, brown, strict=True))


def test_what_is_worn_on_the_head_fits_its_word() -> None:
    for person in [sample_person(seed) for seed in range(300)]:
        words = facts(person, sample_scene(person, 0, "selfie"))
        assert (words["hair_colour"] == "none") == (words["hair_style"] == "bald")
        assert person.hair_style not in ("crop", "wreath") or person.sex == "man"
        assert (person.beard_length > 0) == (person.beard != "none")


def test_captions_are_many_and_of_readable_length() -> None:
    captions = [write_caption(*photo, 0) for photo in PHOTOS]
    assert len(set(captions)) > 0.97 * len(captions)
    lengths = [len(caption.split()) for caption in captions]
    assert 7 < sum(lengths) / len(lengths) < 20
    assert max(lengths) <= 36
    assert len({write_caption(*PHOTOS[0], seed) for seed in range(50)}) > 25


def test_a_caption_names_no_colour_that_is_not_worn() -> None:
    for person, scene in PHOTOS:
        text = write_caption(person, scene, 1).lower().replace("cool blue tones", "")
        text = text.replace("blue sky", "").replace("green lawn", "").replace("green lab", "")
        text = text.replace("black and white", "").replace("black-and-white", "")
        said = {colour for colour in CLOTHING_COLOURS if f" {colour} " in f" {text} "}
        hair = set(scene.hair_colour.split())
        assert said <= {scene.clothing_colour} | hair, (text, scene.clothing_colour, hair)


def test_a_caption_says_only_the_expression_and_glasses_that_hold() -> None:
    for person, scene in PHOTOS:
        text = write_caption(person, scene, 2).lower()
        if "glasses" in text:
            assert scene.glasses != "none"
            assert ("sunglasses" in text) == (scene.glasses == "sunglasses")
        for expression, phrases in EXPRESSION_WORDS.items():
            if scene.expression != expression and not _shared(expression, scene.expression):
                assert not any(text.endswith(phrase) for phrase in phrases)


def _shared(first: str, second: str) -> bool:
    """Phrases may end alike: "not smiling" and "smiling", "surprised" and "surprised"."""
    return {first, second} <= {"neutral", "soft smile", "smiling", "laughing"}


def test_glasses_words_exist_for_every_kind() -> None:
    assert {scene.glasses for _, scene in PHOTOS} <= {"none", *GLASSES_WORDS}


def test_splits_do_not_overlap_and_unknown_seeds_are_refused() -> None:
    ranges = list(SPLITS.values())
    for i, first in enumerate(ranges):
        for second in ranges[i + 1 :]:
            assert first.stop <= second.start or second.stop <= first.start
    assert split_of(100_000) == "evaluate"
    with pytest.raises(ValueError, match="belongs to no split"):
        split_of(-1)


def test_a_held_out_wish_is_recognised_and_its_parts_alone_are_not() -> None:
    wish = HELD_OUT[0]
    assert is_held_out({**wish, "style": "sepia"})
    for key, value in wish.items():
        assert not is_held_out({key: value})
