"""Who may be trained on, and which wishes are kept back to test whether the model understands.

People are told apart by seed alone:

| split    | seeds             | for                                        |
|----------|-------------------|--------------------------------------------|
| train    | 0 .. 99 999       | training                                   |
| evaluate | 100 000 .. 109 999| figures in `training/LOG.md`               |
| sample   | 200 000 .. 200 999| the people shipped in `assets/people`      |

A few combinations never occur in training photos (`is_held_out`), though each of their parts
does: a model that draws them has learnt to combine, not to remember.
"""

from __future__ import annotations

from collections.abc import Mapping

SPLITS: dict[str, range] = {
    "train": range(0, 100_000),
    "evaluate": range(100_000, 110_000),
    "sample": range(200_000, 201_000),
}

HELD_OUT: tuple[dict[str, str], ...] = (
    {"place": "forest", "expression": "laughing"},
    {"place": "venice", "expression": "surprised"},
    {"place": "workshop", "expression": "angry"},
    {"place": "park", "expression": "sad"},
    {"place": "city", "clothing_colour": "yellow"},
    {"place": "night", "clothing_colour": "red"},
    {"place": "lab", "glasses": "round"},
    {"place": "sunset", "style": "black and white"},
    {"hair_colour": "blue", "clothing_colour": "green"},
    {"hair_colour": "pink", "expression": "surprised"},
)


def split_of(seed: int) -> str:
    """Name the split that a person's seed belongs to."""
    for name, seeds in SPLITS.items():
        if seed in seeds:
            return name
    known = ", ".join(f"{name} {seeds.start}..{seeds.stop - 1}" for name, seeds in SPLITS.items())
    raise ValueError(f"Person seed {seed} belongs to no split; choose one of {known}.")


def is_held_out(facts: Mapping[str, str]) -> bool:
    """Whether a photo with these facts (see `scene.facts`) must not be trained on."""
    return any(all(facts.get(k) == v for k, v in wish.items()) for wish in HELD_OUT)
