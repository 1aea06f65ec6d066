"""Photos in which somebody looks as a trait switch asks: another age, greyed hair, a soft smile.

Nobody's ordinary photos show them at another age, so a model that sees only those may read the age
off the selfies and ignore the word. Here the references stay as they are and the target is the
same face, decades older or younger, with a caption that says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.people.captions import EXPRESSION_WORDS, write_caption
from training.people.person import HAIR_COLOURS, Person
from training.people.scene import Scene, facts, sample_scene
from training.people.splits import is_held_out

AGED = "aged"  # kind of a photo whose person is older or younger than in all the others
AGES = {"young": (20, 31), "middle-aged": (42, 55), "old": (64, 79)}
_BANDS = {"young": "young", "middle-aged": "middleage", "old": "old"}
_AGE_WORDS: dict[str, tuple[str, ...]] = {
    "young": ("a young person", "as a young {noun}", "as a young adult", "in their twenties",
              "{age} years old"),
    "middle-aged": ("a middle-aged person", "as a middle-aged {noun}", "in middle age",
                    "{age} years old", "middle-aged"),
    "old": ("an old person", "as an old {noun}", "as an elderly {noun}", "in old age",
            "{age} years old", "as a senior", "with wrinkles"),
}  # fmt: skip
_SAID = {"young": ("young ",), "middle-aged": ("middle-aged ",), "old": ("old ",)}
_GREYED = ("grey", "white")
_SMILE = "soft smile"
_SEEDS = 5000  # scene seeds of these photos start here, away from those of ordinary ones


def aged(person: Person, age: int) -> Person:
    """The same person at another age: bones stay; skin, lines, hair and its line do not.

    Args:
        person: as they are.
        age: years, 20 to 78.
    """
    g = np.random.default_rng([person.seed, age, 7919, 4])
    years = age - person.age
    older = replace(person, age=age)
    phenotype = dict(person.phenotype) | {"age": 2 / 3 + (age - 25) / 65 / 3}
    texture = person.skin_texture.split("_", 1)[1]
    if older.age_band != "young":
        texture = texture.replace("|3", "|2")  # only the young have three
    colour, rgb = person.hair_colour, person.hair_rgb
    if age > 56 and colour not in _GREYED and g.random() < 0.85:
        colour = str(g.choice(_GREYED))
        rgb = HAIR_COLOURS[colour]
    elif age < 50 and colour in _GREYED:
        colour = str(g.choice(["black", "dark brown"] + ["brown"] * (person.skin_tone < 0.5)))
        rgb = HAIR_COLOURS[colour]
    man = person.sex == "man"
    return replace(
        older,
        phenotype=tuple(phenotype.items()),
        skin_texture=f"{_BANDS[older.age_band]}_{texture}",
        hair_colour=colour,
        hair_rgb=rgb,
        wrinkles=float(np.clip(person.wrinkles + years / 45, 0.0, 1.0)),
        hairline=float(np.clip(person.hairline + man * years / 90, 0.0, 1.0)),
        crown=float(np.clip(person.crown + years / 50, 0.0, 1.0)) if man else 0.0,
    )


def switched_photos(person: Person, photos: int) -> list[tuple[Person, Scene, str, str]]:
    """Who is seen how, the kind of photo, and its caption.

    Of four photos two show the person at the ages that are not theirs, one with grey or white hair
    and one with a soft smile. Whoever has no hair to grey smiles twice.

    Args:
        person: as they are.
        photos: how many.
    """
    others = [band for band in AGES if band != person.age_band]
    bare = person.hair_style in ("bald", "buzz", "wreath")
    result = []
    for photo in range(photos):
        seed = _SEEDS + photo
        g = np.random.default_rng([person.seed, photo, 7919, 5])
        what = photo % 4
        if what < 2:
            shown = aged(person, int(g.integers(*AGES[others[what]])))
            scene = _scene(shown, seed)
            caption = _with_age(write_caption(shown, scene, seed), shown, g)
            result.append((shown, scene, AGED, caption))
        elif what == 2 and not bare:
            colour = str(g.choice([name for name in _GREYED if name != person.hair_colour]))
            scene = _scene(person, seed, hair=colour)
            caption = _naming(person, scene, seed, (f"{colour} ",))
            result.append((person, scene, "scene", caption))
        else:
            scene = _scene(person, seed, expression=_SMILE)
            caption = _naming(person, scene, seed, EXPRESSION_WORDS[_SMILE])
            result.append((person, scene, "scene", caption))
    return result


def _scene(person: Person, seed: int, expression: str = "", hair: str = "") -> Scene:
    """A scene of that expression or hair that is not among the held-out wishes."""
    while True:
        scene = sample_scene(person, seed)
        if hair:
            scene = replace(
                scene, hair_colour=hair, hair_rgb=HAIR_COLOURS[hair], hair_changed=True, hat="none"
            )
        fits = not expression or scene.expression == expression
        if fits and not is_held_out(facts(person, scene)):
            return scene
        seed += 1000


def _naming(person: Person, scene: Scene, seed: int, words: tuple[str, ...]) -> str:
    """A caption that names one of these."""
    while True:
        caption = write_caption(person, scene, seed)
        if any(word.lower() in caption.lower() for word in words):
            return caption
        seed += 1000


def _with_age(caption: str, person: Person, g: np.random.Generator) -> str:
    if any(word in caption.lower() for word in _SAID[person.age_band]) and g.random() < 0.5:
        return caption
    words = str(g.choice(_AGE_WORDS[person.age_band]))
    words = words.format(noun=person.sex, age=person.age)
    return f"{caption.rstrip('.')}, {words}" if g.random() < 0.8 else f"{words}, {caption}"
