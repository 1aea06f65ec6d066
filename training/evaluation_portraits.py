"""Do real photographs come through? Eight faces on public pictures that lie inside packages.

    python -m training.evaluation_portraits --out runs/portraits

Renders taught the reference encoder; here it meets scikit-image's astronaut, matplotlib's portrait
of Grace Hopper and insightface's sample group photo, read where their packages keep them and
stored nowhere. Three questions. Do the nearest rendered people look like the person (sex, age,
skin, hair): nearest by the identity adapter's tokens, by the recogniser that chooses among
drawings, and, for comparison, by dlib, which knows real faces? Selfies of rendered people are asked
the same about all others, which shows how much can be right at all. Do pictures whose wish says
nothing of glasses show them on whoever wears them, by the attribute judge? And is a generated
picture nearer to its own person than to the seven others, by dlib, which conditioned nothing?
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from imagine.backends.embedded import EmbeddedBackend
from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.core import FloatArray, Identity, ImageArray
from imagine.errors import MissingExtra
from imagine.identity import build_identity
from training.evaluation import CACHE, draw_until_found, drawing_settings
from training.held_out import (
    WISHES,
    FaceJudge,
    HeldOutStudio,
    HeldOutWish,
    JudgedPicture,
    held_out_seeds,
)
from training.metrics import area_under_curve
from training.people.person import sample_person
from training.people.scene import facts, sample_scene

NEIGHBOURS = 7  # odd: a vote of two classes has a winner
LENGTHS = {"short": "short", "shaved": "short", "bald": "short", "afro": "short"}
PROMPTS = 8


@dataclass(frozen=True)
class Portrait:
    """A face on a public photograph, and what anybody sees of it.

    Attributes:
        package: whose data it is.
        file: where in it.
        face: which face, 0 is left.
        looks: attribute -> words of the renders that fit; several where people would differ.
        wears_glasses: on the photograph.
    """

    package: str
    file: str
    face: int
    looks: Mapping[str, tuple[str, ...]] = field(repr=False)
    wears_glasses: bool = False


def _looks(sex: str, age: str, hair: str, length: str) -> dict[str, tuple[str, ...]]:
    return {
        "sex": (sex,),
        "age_band": tuple(age.split("/")),
        "skin_tone": ("light",),
        "hair_colour": tuple(hair.split("/")),
        "hair_length": tuple(length.split("/")),
    }


_GROUP = ("insightface", "data/images/t1.jpg")
_DARK = "black/dark brown"
PORTRAITS: tuple[Portrait, ...] = (
    Portrait("skimage", "data/astronaut.png", 0,
             _looks("woman", "young/middle-aged", "brown/auburn/red/dark brown", "short/long")),
    Portrait("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 0,
             _looks("woman", "middle-aged/old", "grey/white/brown/dark brown", "short"),
             wears_glasses=True),
    Portrait(*_GROUP, 0, _looks("woman", "young", "blonde/brown/auburn", "long")),
    Portrait(*_GROUP, 1, _looks("woman", "young", _DARK, "long/short")),
    Portrait(*_GROUP, 2, _looks("man", "young", _DARK, "short")),
    Portrait(*_GROUP, 3, _looks("man", "young", _DARK + "/brown", "short")),
    Portrait(*_GROUP, 4, _looks("man", "young", _DARK, "short")),
    Portrait(*_GROUP, 5, _looks("woman", "young", "blonde", "long")),
)  # fmt: skip


def open_portrait(portrait: Portrait, judge: FaceJudge) -> Identity:
    """The identity of a portrait, by the product's own door.

    Raises:
        MissingExtra: its package is not installed; says which extra has it.
        InvalidInput: the photograph is refused.
    """
    try:
        place = files(portrait.package).joinpath(portrait.file)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The portrait of {portrait.package} needs that package. "
            "Run: pip install 'imagine-yourself[dev]'"
        ) from error
    choice = {0: portrait.face} if portrait.package == "insightface" else None
    photo = place.read_bytes()
    return build_identity([photo], judge.detector, judge.encoder, judge.settings, choice)


@dataclass(frozen=True)
class RenderedSelfies:
    """Selfies of rendered people, among whom neighbours are sought.

    Attributes:
        vectors: (selfies, d) of each encoder of `vectors`.
        truths: what is true of each.
        seeds: whose each is.
    """

    vectors: Mapping[str, NDArray[np.float32]] = field(repr=False)
    truths: Sequence[Mapping[str, str]] = field(repr=False)
    seeds: NDArray[np.int64] = field(repr=False)


def rendered_people(
    studio: HeldOutStudio, backend: EmbeddedBackend, people: int
) -> RenderedSelfies:
    """Selfies of the first held-out people."""
    rows: list[dict[str, NDArray[np.float32]]] = []
    truths: list[dict[str, str]] = []
    seeds: list[int] = []
    for seed in held_out_seeds(people):
        person = studio.person(seed)
        if person is None:
            continue
        known = sample_person(seed)
        truth = facts(known, sample_scene(known, 0, "selfie"))
        truth["hair_length"] = LENGTHS.get(truth["hair_style"], "long")
        for crop, embedding in zip(person.crops, person.embeddings, strict=True):
            rows.append(vectors(backend, crop, embedding))
            truths.append(truth)
            seeds.append(seed)
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return RenderedSelfies(stacked, truths, np.array(seeds))


def vectors(
    backend: EmbeddedBackend, crop: ImageArray, embedding: FloatArray
) -> dict[str, NDArray[np.float32]]:
    """By whom a selfie is told from others -> (d,) of length 1.

    Args:
        backend: whose identity adapter and chooser look at it.
        crop: (size, size, 3) uint8, aligned and masked.
        embedding: dlib's.
    """
    person = backend.encode_person(crop[None])
    found = {"identity adapter": person.tokens.flatten().numpy(), "dlib": embedding}
    if person.face is not None:
        found["chooser"] = person.face.numpy()
    return {name: np.asarray(one / np.linalg.norm(one), np.float32) for name, one in found.items()}


def seen_in_neighbours(
    token: NDArray[np.float32],
    tokens: NDArray[np.float32],
    truths: Sequence[Mapping[str, str]],
    attributes: Sequence[str],
) -> dict[str, str]:
    """What most of the nearest rendered people are, for each attribute."""
    nearest = np.argsort(tokens @ token)[::-1][:NEIGHBOURS]
    return {
        name: Counter(truths[index][name] for index in nearest).most_common(1)[0][0]
        for name in attributes
    }


def right_among_renders(
    rendered: RenderedSelfies, attributes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Encoder -> attribute -> share right for the rendered selfies, each among all other people."""
    right: dict[str, dict[str, float]] = {}
    for by, vectors_ in rendered.vectors.items():
        hits: dict[str, list[bool]] = {name: [] for name in attributes}
        for seed, vector, truth in zip(rendered.seeds, vectors_, rendered.truths, strict=True):
            others = np.flatnonzero(rendered.seeds != seed)
            truths = [rendered.truths[int(index)] for index in others]
            seen = seen_in_neighbours(vector, vectors_[others], truths, attributes)
            for name in attributes:
                hits[name].append(seen[name] == truth[name])
        right[by] = {name: float(np.mean(found)) for name, found in hits.items()}
    return right


def compare(
    pictures: Sequence[Sequence[JudgedPicture]], people: Sequence[FloatArray]
) -> dict[str, float]:
    """How near generated pictures are to their own person and to the others.

    Args:
        pictures: of each person; those without a face count as lost.
        people: (d,) embedding of each person.
    """
    table = np.full((len(people), len(pictures[0]), len(people)), np.inf)
    for row, made in enumerate(pictures):
        for column, picture in enumerate(made):
            if picture.embedding is not None:
                table[row, column] = [np.linalg.norm(picture.embedding - one) for one in people]
    own = table[np.arange(len(people)), :, np.arange(len(people))]
    others = table.transpose(0, 2, 1)[~np.eye(len(people), dtype=bool)].ravel()
    nearest = table.argmin(axis=2) == np.arange(len(people))[:, None]
    found = np.isfinite(own)
    return {
        "pictures": float(own.size),
        "face_found": float(found.mean()),
        "nearest_is_own": float((nearest & found).mean()),
        "by_chance": 1 / len(people),
        "auc": area_under_curve(own.ravel(), others),
    }


def glasses_shown(
    judge: AttributePromptJudge, pictures: Sequence[JudgedPicture], wishes: Sequence[HeldOutWish]
) -> float:
    """Share of the pictures of one person with glasses, where the wish says nothing of them."""
    silent = [
        picture.image
        for picture, wish in zip(pictures, wishes, strict=True)
        if "glasses" not in wish.wants
    ]
    seen = [row["glasses"] for row in judge.probabilities(silent)]
    return float(np.mean([max(row, key=lambda name: row[name]) != "none" for row in seen]))


def evaluate_portraits(
    out: Path, model: Path | None = None, people: int = 100, prompts: int = PROMPTS
) -> dict[str, Any]:
    """Measure, and write `portraits.json` and the contact sheet `portraits.png`.

    Args:
        out: folder of the report; only generated pictures and figures go into it.
        model: folder of weights; None takes the shipped ones.
        people: rendered people among whom neighbours are sought.
        prompts: how many of `held_out.WISHES`.
    """
    backend = EmbeddedBackend.load(model)
    judge = FaceJudge()
    persons = [open_portrait(portrait, judge) for portrait in PORTRAITS]
    rendered = rendered_people(
        HeldOutStudio(CACHE, None, backend.info.image_size[0], judge), backend, people
    )
    right: dict[str, dict[str, list[bool]]] = {by: {} for by in rendered.vectors}
    for portrait, person in zip(PORTRAITS, persons, strict=True):
        for by, vector in vectors(backend, person.crops[0], person.embeddings[0]).items():
            seen = seen_in_neighbours(
                vector, rendered.vectors[by], rendered.truths, list(portrait.looks)
            )
            for name, words in portrait.looks.items():
                right[by].setdefault(name, []).append(seen[name] in words)
    settings = drawing_settings(backend, None, 0.7, None)
    wishes = WISHES[:prompts]
    pictures = [
        draw_until_found(
            backend,
            person.crops,
            index,
            wishes,
            settings,
            lambda i: [judge.judge(one) for one in i],
        )[0]
        for index, person in enumerate(tqdm(persons, unit="person"))
    ]
    report = {
        "model_revision": backend.info.model_revision,
        "likeness": compare(pictures, [person.embedding for person in persons]),
        "neighbours_right": {
            by: {name: float(np.mean(hits)) for name, hits in names.items()}
            for by, names in right.items()
        },
        "neighbours_right_of_renders": right_among_renders(rendered, list(PORTRAITS[0].looks)),
        "glasses_shown": [
            {
                "wears_glasses": portrait.wears_glasses,
                "shown": glasses_shown(AttributePromptJudge.load(), made, wishes),
            }
            for portrait, made in zip(PORTRAITS, pictures, strict=True)
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "portraits.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    rows = [np.hstack([picture.image for picture in made]) for made in pictures]
    Image.fromarray(np.vstack(rows)).save(out / "portraits.png")
    return report


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/portraits"))
    parser.add_argument("--model", type=Path, default=None, help="folder of weights")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    given = parser.parse_args()
    print(
        json.dumps(
            evaluate_portraits(given.out, given.model, given.people, given.prompts), indent=1
        )
    )


if __name__ == "__main__":
    main()
