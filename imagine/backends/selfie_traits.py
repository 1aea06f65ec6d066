"""What the selfies of a person say of the traits one may ask to keep.

Glasses, hair colour and expression are read by the attribute judge, age by the estimator that is
handed in. What cannot be told is said to be unknown: then nothing is asked for, and the selfies
speak for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagine.core import CROP_SIZE, ImageArray
from imagine.errors import MissingWeights
from imagine.traits import TRAITS

if TYPE_CHECKING:
    from imagine.backends.prompt_judge import AttributePromptJudge

# A crop as the judge knows faces: drawn smaller and higher, which reads glasses right on 287 of
# 288 held-out selfies, hair colour on 84 of 100 people, expression on 238 of 288.
_SIDE, _LEFT, _TOP = 111, 8, -5
_GREY = (128, 128, 128)
# The judge was taught with softened labels: 0.4 is a clear opinion among twelve colours.
_SURE = {"glasses": 0.6, "hair_colour": 0.4, "expression": 0.4}
_AGE_BORDERS = (36.0, 58.0)  # years; from young to middle-aged, from there to old
_AGE_MARGIN = 4.0  # nearer to a border nobody can tell


@dataclass(frozen=True, slots=True)
class Reading:
    """One trait as the selfies show it.

    Attributes:
        trait: a name of `TRAITS`.
        value: one of its values; None where it cannot be told.
        words: what was read, as a sentence.
    """

    trait: str
    value: str | None
    words: str


def read_selfies(
    crops: ImageArray,
    traits: Sequence[str],
    judge: AttributePromptJudge,
    estimate_age: Callable[[ImageArray], float],
) -> list[Reading]:
    """Read the asked traits.

    Args:
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8 of one person.
        traits: names of `TRAITS`.
        judge: sees glasses, hair and expression.
        estimate_age: crop -> years.
    """
    visible = {
        reading.trait: reading
        for reading in read_visible(crops, [trait for trait in traits if trait != "age"], judge)
    }
    return [
        _age([estimate_age(crop) for crop in crops]) if trait == "age" else visible[trait]
        for trait in traits
    ]


def read_visible(
    crops: ImageArray, traits: Sequence[str], judge: AttributePromptJudge
) -> list[Reading]:
    """Read what the judge sees: glasses, hair colour, expression; arguments as `read_selfies`."""
    seen = judge.probabilities([_as_portrait(crop) for crop in crops]) if traits else []
    return [_seen(trait, [probabilities[trait] for probabilities in seen]) for trait in traits]


def read_shipped(
    crops: ImageArray, traits: Sequence[str], estimate_age: Callable[[ImageArray], float]
) -> list[Reading]:
    """As `read_selfies`, with the shipped attribute judge.

    Raises:
        MissingWeights: the judge is not installed.
    """
    # Brings torch along, which nobody needs who keeps nothing.
    from imagine.backends.prompt_judge import shipped_prompt_judge

    judge = shipped_prompt_judge()
    if judge is None:
        raise MissingWeights(
            "Traits cannot be kept: the attribute judge that reads them from the selfies is not "
            "installed. Restore it with: git checkout -- assets/models, or ask with `change`."
        )
    return read_selfies(crops, traits, judge, estimate_age)


def _as_portrait(crop: ImageArray) -> ImageArray:
    picture = Image.new("RGB", (CROP_SIZE, CROP_SIZE), _GREY)
    picture.paste(Image.fromarray(crop).resize((_SIDE, _SIDE)), (_LEFT, _TOP))
    return np.asarray(picture)


def _seen(trait: str, photos: Sequence[Mapping[str, float]]) -> Reading:
    mean = {value: sum(photo[value] for photo in photos) / len(photos) for value in photos[0]}
    best = max(mean, key=lambda value: mean[value])
    named = trait.replace("_", " ")
    if mean[best] < _SURE[trait] or best not in TRAITS[trait]:
        return Reading(
            trait, None, f"The {named} cannot be told from the selfies; nothing was asked for."
        )
    return Reading(trait, best, f"Kept from the selfies: {named} {best}.")


def _age(years: Sequence[float]) -> Reading:
    age = float(np.mean(years))
    if min(abs(age - border) for border in _AGE_BORDERS) < _AGE_MARGIN:
        return Reading(
            "age", None, "The age cannot be told from the selfies; nothing was asked for."
        )
    value = TRAITS["age"][sum(age >= border for border in _AGE_BORDERS)]
    return Reading("age", value, f"Kept from the selfies: age {value}.")
