"""Doubles: the same photos with somebody else's face in them.

A double stands where the person stood: same place, light, pose, expression, hair, glasses and
age, another face. Whoever makes a double's face the person's learns what to change and what to
leave alone, since the true picture is known to the pixel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.people.person import Pairs, Person, sample_person
from training.people.splits import SPLITS

PHOTOS_OF_ONE = 4  # so many photos in turn have the same double
MIXED = (0.45, 1.0)  # how far a double is from the person towards somebody else
MARKED = (0.3, 1.0)  # share of that somebody's features: drawn faces are average ones
OTHER_BEARD = 0.3  # share of men's doubles
# What makes no face, but says how old somebody is or how large.
_KEPT_TRAITS = ("gender", "age", "height", "proportions")


def doubled(person: Person, photo: int) -> Person:
    """Whoever stands in for a person in a photo.

    Args:
        person: as the photo shows them, see `switched.aged`.
        photo: number of the photo among the person's.
    """
    g = np.random.default_rng([person.seed, person.age, photo // PHOTOS_OF_ONE, 7919, 6])
    other = _another(g, person)
    share, marked = float(g.uniform(*MIXED)), float(g.uniform(*MARKED))
    double = replace(
        person,
        seed=other.seed,
        phenotype=_between(person.phenotype, other.phenotype, share, 1.0),
        face_shapes=_between(person.face_shapes, other.face_shapes, share, marked),
        skin_texture=other.skin_texture if _same_skin(person, other) else person.skin_texture,
        iris=other.iris,
        brow=other.brow,
        brow_strength=other.brow_strength,
        lash=other.lash,
        freckles=other.freckles,
        moles=other.moles,
        blush=other.blush,
        lip_redness=other.lip_redness,
        lipstick=other.lipstick,
        eyeshadow=other.eyeshadow,
        ruddiness=other.ruddiness,
        oiliness=other.oiliness,
        lash_strength=other.lash_strength,
        brow_height=other.brow_height,
    )
    if g.random() < OTHER_BEARD:
        double = replace(
            double,
            beard=other.beard,
            beard_density=other.beard_density,
            beard_length=other.beard_length,
        )
    return double


def _another(g: np.random.Generator, person: Person) -> Person:
    """Somebody of the training split and the same sex."""
    people = SPLITS["train"]
    while True:
        other = sample_person(int(g.integers(people.start, people.stop)))
        if other.sex == person.sex and other.seed != person.seed:
            return other


def _same_skin(person: Person, other: Person) -> bool:
    """Whether both have lines of the same age and the same base tone."""
    return person.skin_texture.split("|")[0] == other.skin_texture.split("|")[0]


def _between(ours: Pairs, theirs: Pairs, share: float, marked: float) -> Pairs:
    """Values so far towards somebody else's, of which so much is left."""
    others = dict(theirs)
    return tuple(
        (
            name,
            value if name in _KEPT_TRAITS else (1 - share) * value + share * marked * others[name],
        )
        for name, value in ours
    )
