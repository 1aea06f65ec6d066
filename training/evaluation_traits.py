"""Do the trait switches work, and two people in one picture? Measured on held-out people.

    python -m training.evaluation_traits --out runs/evaluation-traits --people 20
    python -m training.evaluation_traits --out runs/evaluation-traits --pairs 20
    python -m training.evaluation_traits --model runs/x/model --minutes 10     (a quick look)

A switch is right when the attribute judge, which never saw a generated picture, sees the value;
"without" are the same prompts and seeds without the switch. Likeness is dlib's distance to the
person's selfies. Age has no classifier that knows renders: it is given in years by a network for
photographs, to be compared between rows only. Pictures already judged are kept in the folder, so
a second run goes on where the first one stopped; other weights need another folder.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagine.backends.base import Backend, draw_alone
from imagine.backends.embedded import EmbeddedBackend
from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.core import REDRAW_STRIDE, Face, Identity, ImageArray, PairVerdict, Request
from imagine.errors import InvalidInput
from imagine.identity.likeness import judge_pair
from imagine.traits import TRAITS
from training.clock import Stopwatch
from training.evaluation import CACHE
from training.held_out import FaceJudge, HeldOutPerson, HeldOutStudio, held_out_seeds

logger = logging.getLogger(__name__)

PROMPTS = ("me in a forest", "a photo of me in a photo studio", "me, in the city in a blue t-shirt")
PAIR_PROMPTS = ("in a park", "in a photo studio", "at sunset", "smiling, in the city")
LIKENESS = 0.7
REDRAWS = 2  # as the product does where a face is missing
AgeInYears = Callable[[ImageArray, Sequence[Face]], Sequence[float]]


@dataclass(frozen=True)
class Switch:
    """A trait set to a value; nothing set is the picture without."""

    trait: str = ""
    value: str = ""

    def prompt(self, person: int) -> str:
        """Of the person of this number; what is to be taken away is asked for first."""
        plain = PROMPTS[person % len(PROMPTS)]
        return f"{plain}, wearing round glasses" if self.value == "none" else plain


@dataclass(frozen=True)
class Drawn:
    """One judged picture.

    Attributes:
        person: seed of who was drawn.
        trait: that was switched; "" for a picture without.
        value: it was switched to; "none" with no trait: prompted with glasses and not switched.
        seen: attribute -> the likeliest class.
        distance: dlib's to the person; None where no face was found.
        years: how old the face looks; None where unknown.
    """

    person: int
    trait: str
    value: str
    seen: Mapping[str, str]
    distance: float | None
    years: float | None


@dataclass(frozen=True)
class DrawnPair:
    """One judged picture of two people; distances as in `Drawn`, blending as in `PairVerdict`.

    `redraw` counts the pictures before it, in which a face was missing.
    """

    left_person: int
    right_person: int
    redraw: int
    left: float | None
    right: float | None
    blending: float | None
    faces: int


@dataclass
class Studio:
    """What pictures are drawn and judged with."""

    backend: Backend
    judge: AttributePromptJudge
    faces: FaceJudge
    ages: AgeInYears | None
    steps: int
    people: Sequence[HeldOutPerson] = field(repr=False)

    def draw(self, request: Request) -> ImageArray:
        """One picture."""
        return draw_alone(self.backend, request)

    def request(self, person: HeldOutPerson, prompt: str, **more: Any) -> Request:
        """The backend's own guidance; the person fixes the seed."""
        info = self.backend.info
        guidance = (info.default_guidance_scale, LIKENESS, info.default_guidance_interval)
        return Request(prompt, person.crops, person.seed * 10, self.steps, *guidance, **more)


def switches() -> list[Switch]:
    """The pictures of one person: two without a switch, then every value of every trait."""
    values = [Switch(trait, value) for trait in TRAITS for value in TRAITS[trait]]
    return [Switch(), Switch("", "none"), *values]


def in_turns(people: int) -> Iterator[tuple[int, Switch]]:
    """Every switch for the first person, then for the next, so that stopping early is fair."""
    for person in range(people):
        for switch in switches():
            yield person, switch


def draw_switch(studio: Studio, number: int, switch: Switch) -> tuple[Drawn, ImageArray]:
    """Draw and judge one picture of one person."""
    person = studio.people[number]
    traits = {switch.trait: switch.value} if switch.trait else {}
    image = studio.draw(studio.request(person, switch.prompt(number), traits=traits))
    (probabilities,) = studio.judge.probabilities([image])
    seen = {name: max(classes, key=lambda c: classes[c]) for name, classes in probabilities.items()}
    embedding = studio.faces.judge(image).embedding
    distance = None if embedding is None else float(np.linalg.norm(embedding - person.embedding))
    drawn = Drawn(person.seed, switch.trait, switch.value, seen, distance, _years(studio, image))
    return drawn, image


def draw_pair(studio: Studio, number: int) -> tuple[DrawnPair, ImageArray]:
    """Draw and judge one picture of a person with the next one beside."""
    left, right = studio.people[number], studio.people[(number + 1) % len(studio.people)]
    prompt = PAIR_PROMPTS[number % len(PAIR_PROMPTS)]
    detector, encoder = studio.faces.detector, studio.faces.encoder
    people = (_identity(left), _identity(right))
    drawn: list[tuple[PairVerdict, ImageArray]] = []
    while len(drawn) <= REDRAWS and not any(v.blending is not None for v, _ in drawn):
        request = studio.request(left, prompt, beside=right.crops)
        request = replace(request, seed=request.seed + len(drawn) * REDRAW_STRIDE)
        image = studio.draw(request)
        drawn.append((judge_pair(image, people, detector, encoder), image))
    redraw = max(range(len(drawn)), key=lambda index: _least_likeness(drawn[index][0]))
    verdict, image = drawn[redraw]
    pair = DrawnPair(
        left.seed,
        right.seed,
        redraw,
        verdict.left.distance,
        verdict.right.distance,
        verdict.blending,
        len(detector.detect(image)),
    )
    return pair, image


def _least_likeness(verdict: PairVerdict) -> float:
    return min(verdict.left.score, verdict.right.score)


def trait_table(drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Per trait and value: share right and likeness, with and without, over the same people."""
    without = {(one.person, one.value == "none"): one for one in drawn if not one.trait}
    rows = []
    for trait in TRAITS:
        for value in TRAITS[trait]:
            ours = [one for one in drawn if (one.trait, one.value) == (trait, value)]
            pairs = [
                (one, without[one.person, value == "none"])
                for one in ours
                if (one.person, value == "none") in without
            ]
            if pairs:
                rows.append({"trait": trait, "value": value, **_compared(trait, value, pairs)})
    return rows


def _compared(trait: str, value: str, pairs: Sequence[tuple[Drawn, Drawn]]) -> dict[str, Any]:
    both = [(a, b) for a, b in pairs if a.distance is not None and b.distance is not None]
    aged = [(a.years, b.years) for a, b in pairs if a.years is not None and b.years is not None]
    row: dict[str, Any] = {"people": len(pairs)}
    if trait != "age":
        row["right_with"] = float(np.mean([a.seen[trait] == value for a, _ in pairs]))
        row["right_without"] = float(np.mean([b.seen[trait] == value for _, b in pairs]))
    elif aged:
        row["years_with"], row["years_without"] = (float(mean) for mean in np.mean(aged, axis=0))
    if both:
        row["distance_with"] = float(np.mean([a.distance for a, _ in both]))
        row["distance_without"] = float(np.mean([b.distance for _, b in both]))
    row["found_with"] = float(np.mean([a.distance is not None for a, _ in pairs]))
    row["found_without"] = float(np.mean([b.distance is not None for _, b in pairs]))
    return row


def pair_figures(drawn: Sequence[DrawnPair]) -> dict[str, float]:
    """Shares over all pairs: a missing face is a wrong assignment."""
    blending = [one.blending for one in drawn if one.blending is not None]
    distances = [d for one in drawn for d in (one.left, one.right) if d is not None]
    return {
        "pairs": len(drawn),
        "both_found_at_once": float(
            np.mean([one.blending is not None and one.redraw == 0 for one in drawn])
        ),
        "both_found": float(np.mean([one.blending is not None for one in drawn])),
        "two_faces_exactly": float(np.mean([one.faces == 2 for one in drawn])),
        "assigned_right": float(
            np.mean([one.blending is not None and one.blending < 0.5 for one in drawn])
        ),
        "blending": float(np.mean(blending)) if blending else float("nan"),
        "distance": float(np.mean(distances)) if distances else float("nan"),
    }


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the report."""
    lines = [
        "| trait | value | people | right with | without | distance with | without | face found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["trait"] == "age":
            shown = [f"{row[k]:.0f} years" if k in row else "-" for k in ("years_with",)]
            shown += [f"{row['years_without']:.0f} years" if "years_without" in row else "-"]
        else:
            shown = [f"{row['right_with']:.2f}", f"{row['right_without']:.2f}"]
        for name in ("distance_with", "distance_without"):
            shown.append(f"{row[name]:.3f}" if name in row else "-")
        found = f"{row['found_with']:.2f} / {row['found_without']:.2f}"
        lines.append(
            f"| {row['trait']} | {row['value']} | {row['people']} | {' | '.join(shown)} | {found} |"
        )
    return "\n".join(lines) + "\n"


def _years(studio: Studio, image: ImageArray) -> float | None:
    if studio.ages is None:
        return None
    found = studio.faces.detector.detect(image)
    if not found:
        return None
    largest = max(found, key=lambda face: face.width * face.height)
    return float(studio.ages(image, [largest])[0])


def _identity(person: HeldOutPerson) -> Identity:
    return Identity(
        crops=person.crops,
        embeddings=person.embeddings,
        embedding=person.embedding,
        recogniser="dlib",
        reports=(),
        fingerprint=f"{person.seed:064d}",
    )


def _open_ages() -> AgeInYears | None:
    # Training code does not import the safety room; this is a measuring stick, fetched by name.
    try:
        estimator = import_module("imagine.safety.apparent_age").AgeEstimator()
        estimator.check_ready()
    except Exception as error:  # not installed, or not the published file
        logger.warning("Age is not measured: %s", error)
        return None
    ages: AgeInYears = estimator
    return ages


def _people(count: int, cache: Path, assets: Path | None, size: int) -> list[HeldOutPerson]:
    studio = HeldOutStudio(cache, assets, size)
    people: list[HeldOutPerson] = []
    for seed in held_out_seeds(2 * count):
        person = studio.person(seed)
        if person is not None:
            people.append(person)
        if len(people) == count:
            return people
    raise InvalidInput(f"Only {len(people)} of {2 * count} people gave enough usable selfies.")


def _kept(path: Path, revision: str) -> list[dict[str, Any]]:
    """What an earlier run judged; a folder holds the pictures of one model only."""
    if not path.exists():
        path.write_text(json.dumps({"model_revision": revision}) + "\n")
        return []
    first, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    if first["model_revision"] != revision:
        raise InvalidInput(
            f"{path} holds pictures of weights {first['model_revision']}; these are {revision}. "
            "Choose another folder with --out."
        )
    return rest


def _keep(path: Path, facts: Mapping[str, Any], image: ImageArray, name: str) -> None:
    with path.open("a") as file:
        file.write(json.dumps(facts) + "\n")
    Image.fromarray(image).save(path.parent / f"{name}.png")


def measure(
    studio: Studio, out: Path, clock: Stopwatch, *, pairs: bool = False
) -> tuple[list[Drawn], list[DrawnPair]]:
    """Draw what is not drawn yet until the time is up, and return all there is."""
    out.mkdir(parents=True, exist_ok=True)
    revision = studio.backend.info.model_revision
    place = out / ("pairs.jsonl" if pairs else "traits.jsonl")
    kept = _kept(place, revision)
    if pairs:
        have = [DrawnPair(**facts) for facts in kept]
        for number in range(len(have), len(studio.people)):
            if clock.is_over:
                break
            pair, image = draw_pair(studio, number)
            _keep(place, asdict(pair), image, f"pair-{number:03d}")
            have.append(pair)
        return [], have
    drawn = [Drawn(**facts) for facts in kept]
    done = {(one.person, one.trait, one.value) for one in drawn}
    for number, switch in in_turns(len(studio.people)):
        if clock.is_over:
            break
        if (studio.people[number].seed, switch.trait, switch.value) in done:
            continue
        one, image = draw_switch(studio, number, switch)
        name = f"{number:03d}-{switch.trait or 'without'}-{switch.value or 'plain'}"
        _keep(place, asdict(one), image, name.replace(" ", "-"))
        drawn.append(one)
    return drawn, []


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation-traits"))
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=0, help="measure so many pairs instead")
    parser.add_argument("--model", type=Path, default=None, help="folder of weights")
    parser.add_argument("--judge", type=Path, default=None, help="attribute judge's weights")
    parser.add_argument("--assets", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    backend = EmbeddedBackend.load(given.model)
    count = given.pairs or given.people
    studio = Studio(
        backend,
        AttributePromptJudge.load(given.judge),
        FaceJudge(),
        _open_ages(),
        given.steps or backend.info.default_steps,
        _people(count, given.cache, given.assets, backend.info.image_size[0]),
    )
    clock = Stopwatch(60 * given.minutes if given.minutes else float("inf"))
    drawn, pairs = measure(studio, given.out, clock, pairs=bool(given.pairs))
    if pairs:
        text = json.dumps(pair_figures(pairs), indent=2) + "\n"
        (given.out / "pairs.json").write_text(text)
    else:
        text = as_markdown(trait_table(drawn))
        (given.out / "traits.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
