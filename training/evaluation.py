"""Does it look like them? Measured on people and wishes the model has never met.

    python -m training.evaluation embedded --out runs/evaluation
    python -m training.evaluation embedded --people 24 --prompts 4     (a quick look)
    python -m training.evaluation --ceiling-only --people 40           (true renders only)

Likeness is dlib's L2 distance from the picture's largest face to the fused embedding of a
person's selfies; dlib never conditioned anything. Genuine pairs are pictures with the person they
were made of, impostor pairs the same pictures with everybody else. The floor asks the genuine
question about somebody else; the ceiling puts true renders of the scene in place of pictures.
As in the product, a picture in which no face can be found is drawn again, up to
`imagine.core.REDRAWS` times; "face found at once" is the share that needed none.
Set OMP_WAIT_POLICY=PASSIVE where other programs use the same cores.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from imagine.backends import BACKENDS
from imagine.backends.base import Backend, RowState
from imagine.backends.prompt_judge import AttributePromptJudge
from imagine.core import REDRAW_STRIDE, REDRAWS, ImageArray, Request
from imagine.errors import InvalidInput, MissingWeights
from training.clock import Stopwatch
from training.evaluation_report import write_report
from training.held_out import (
    GROUPS,
    WISHES,
    HeldOutPerson,
    HeldOutStudio,
    HeldOutWish,
    JudgedPicture,
    held_out_seeds,
)
from training.metrics import area_under_curve, copy_paste, prompt_accuracy, true_accept_rate

logger = logging.getLogger(__name__)

Seen = Mapping[str, Mapping[str, float]]
Progress = Callable[[int, int], None]
CACHE = Path("runs/evaluation-cache")
ROWS_AT_ONCE = 8
CEILING_SIZE = 256  # side of true renders where no backend says another, pixels
NEAR_COPY = 0.5  # copy score to the nearest selfie from which a picture counts as a near copy


@dataclass(frozen=True)
class PersonResult:
    """One person's pictures, one per wish, generated and true.

    Attributes:
        person: who.
        generated: by the backend; empty when only the ceiling is measured.
        true: rendered.
        found_at_once: for each generated picture, whether its first drawing had a face.
        generated_shows: what the attribute judge sees in `generated`; empty without a judge.
        true_shows: what it sees in `true`.
    """

    person: HeldOutPerson
    generated: Sequence[JudgedPicture]
    true: Sequence[JudgedPicture]
    found_at_once: Sequence[bool] = field(default=())
    generated_shows: Sequence[Seen] = field(default=())
    true_shows: Sequence[Seen] = field(default=())


def evaluate(
    backend_name: str | None,
    out: Path,
    people: int = 100,
    prompts: int = 8,
    assets: Path | None = None,
    model: Path | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
    *,
    likeness: float = 0.7,
    guidance_scale: float | None = None,
    workers: int = 2,
    cache: Path = CACHE,
    judge_folder: Path | None = None,
) -> int:
    """Measure a backend and write `evaluation.json`, `evaluation.md` and `sheet.png`.

    Args:
        backend_name: a registered image model; None measures the ceiling only.
        out: folder of the report.
        people: how many held-out people, at least 2.
        prompts: how many of `held_out.WISHES`.
        assets: the people assets; None takes their usual place.
        model: folder of weights; None takes the backend's own.
        steps: denoising steps; None takes the backend's default.
        minutes: stop taking up more people after this long and report on those done.
        progress: called with people done and people in all; None shows a bar.
        likeness: as in `imagine.core.Request`.
        guidance_scale: None takes the backend's default.
        workers: processes that render and find faces; 1 does it in this one.
        cache: where renders and their embeddings are kept.
        judge_folder: weights of the attribute judge; None takes the shipped ones.

    Returns:
        0, the exit status.
    """
    if people < 2:
        raise InvalidInput(f"people is {people}; comparing people needs at least 2.")
    if steps is not None and steps < 1:
        raise InvalidInput(f"steps is {steps}; a picture needs at least 1.")
    if not 1 <= prompts <= len(WISHES):
        raise InvalidInput(f"prompts is {prompts}; there are 1 to {len(WISHES)} to choose from.")
    backend = BACKENDS.get(backend_name).load(model) if backend_name else None
    size = backend.info.image_size[0] if backend else CEILING_SIZE
    wishes = WISHES[:prompts]
    settings = drawing_settings(backend, steps, likeness, guidance_scale)
    clock = Stopwatch(60 * minutes if minutes else float("inf"))
    judge = open_attribute_judge(judge_folder)
    results: list[PersonResult] = []
    seeds = held_out_seeds(people)
    with _Workshop(cache, assets, size, workers) as workshop:
        for seed, (person, true) in zip(seeds, workshop.people(seeds, wishes), strict=True):
            if person is not None:
                generated, at_once = (
                    draw_until_found(
                        backend, person.crops, person.seed, wishes, settings, workshop.judge
                    )
                    if backend
                    else ([], [])
                )
                result = PersonResult(person, generated, true, at_once)
                results.append(_with_attributes(judge, result))
            (progress or workshop.show)(seeds.index(seed) + 1, people)
            if clock.is_over and len(results) >= 2:
                break
    if len(results) < 2:
        raise InvalidInput(
            f"Only {len(results)} of {people} people gave enough usable selfies. "
            "Look at their renders: python -m training.people.preview --start-seed 100000"
        )
    summary = summarise(results, wishes, judge.accuracy if judge else {})
    summary["settings"] = {
        "backend": backend_name,
        "model_revision": backend.info.model_revision if backend else None,
        "seconds": round(clock.elapsed, 1),
        **settings,
    }
    write_report(out, summary, results, wishes)
    return 0


def drawing_settings(
    backend: Backend | None, steps: int | None, likeness: float, guidance_scale: float | None
) -> dict[str, Any]:
    """Fields of `imagine.core.Request`, the backend's defaults where left out."""
    if backend is None:
        return {}
    info = backend.info
    return {
        "num_inference_steps": info.default_steps if steps is None else steps,
        "guidance_scale": info.default_guidance_scale if guidance_scale is None else guidance_scale,
        "likeness": likeness,
        "guidance_interval": info.default_guidance_interval,
    }


def open_attribute_judge(folder: Path | None) -> AttributePromptJudge | None:
    """The attribute judge; without it prompts go unmeasured, which is said once."""
    try:
        return AttributePromptJudge.load(folder)
    except MissingWeights as error:
        logger.warning("Prompt accuracy is not measured: %s", error)
        return None


def draw_until_found(
    backend: Backend,
    crops: ImageArray,
    seed: int,
    wishes: Sequence[HeldOutWish],
    settings: Mapping[str, Any],
    judge: Callable[[Sequence[ImageArray]], list[JudgedPicture]],
) -> tuple[list[JudgedPicture], list[bool]]:
    """A judged picture per wish, and whether its first drawing had a face.

    Args:
        backend: draws.
        crops: (photos, CROP_SIZE, CROP_SIZE, 3) uint8 of one person.
        seed: of the person; wish and redraw change it.
        wishes: what to draw.
        settings: the other fields of `imagine.core.Request`.
        judge: finds the faces.
    """
    pictures: dict[int, JudgedPicture] = {}
    lost = list(range(len(wishes)))
    found_at_once: list[bool] = []
    for redraw in range(1 + REDRAWS):
        drawn = judge(draw(backend, crops, seed, wishes, settings, lost, redraw))
        pictures |= dict(zip(lost, drawn, strict=True))
        lost = [index for index in lost if pictures[index].embedding is None]
        found_at_once = found_at_once or [index not in lost for index in range(len(wishes))]
        if not lost:
            break
    return [pictures[index] for index in range(len(wishes))], found_at_once


def draw(
    backend: Backend,
    crops: ImageArray,
    seed: int,
    wishes: Sequence[HeldOutWish],
    settings: Mapping[str, Any],
    chosen: Sequence[int],
    redraw: int = 0,
) -> list[ImageArray]:
    """One picture per chosen wish, several rows to a step. Arguments as `draw_until_found`."""
    pictures: list[ImageArray] = []
    for start in range(0, len(chosen), ROWS_AT_ONCE):
        states: list[RowState] = [
            backend.prepare(
                Request(
                    prompt=wishes[index].prompt,
                    crops=crops,
                    seed=seed * 1000 + index + redraw * REDRAW_STRIDE,
                    **settings,
                )
            )
            for index in chosen[start : start + ROWS_AT_ONCE]
        ]
        while states[0].step < states[0].num_steps:
            states = backend.denoise_step(states)
        pictures += [backend.decode(state) for state in states]
    return pictures


def _with_attributes(judge: AttributePromptJudge | None, result: PersonResult) -> PersonResult:
    if judge is None:
        return result
    return replace(
        result,
        generated_shows=judge.probabilities([picture.image for picture in result.generated]),
        true_shows=judge.probabilities([picture.image for picture in result.true]),
    )


# ------------------------------------------------------------------------------ the figures


def summarise(
    results: Sequence[PersonResult],
    wishes: Sequence[HeldOutWish],
    judge_accuracy: Mapping[str, float],
) -> dict[str, Any]:
    """All figures of an evaluation, ready for JSON.

    Args:
        results: at least two people.
        wishes: in the order of the pictures.
        judge_accuracy: the attribute judge's own accuracy on true renders.
    """
    rows: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    if results[0].generated:
        rows["generated"] = _row(results, wishes, "generated")
        rows["floor"] = _floor(results, wishes)
    rows["ceiling"] = _row(results, wishes, "true")
    for group in GROUPS:
        for value in sorted({r.person.groups[group] for r in results}):
            groups[f"{group}: {value}"] = _group(results, wishes, group, value)
    tried = sum(result.person.tried for result in results)
    return {
        "people": len(results),
        "prompts": [wish.prompt for wish in wishes],
        "rows": rows,
        "groups": groups,
        "selfies_refused": 1 - (len(results[0].person.embeddings) + 1) * len(results) / tried,
        "judge_accuracy": dict(judge_accuracy),
    }


def distance_table(results: Sequence[PersonResult], kind: str) -> NDArray[np.float64]:
    """(people, wishes, people) distances of each picture to each person; inf without a face."""
    fused = np.stack([result.person.embedding for result in results]).astype(np.float64)
    table = np.full((len(results), len(_pictures(results[0], kind)), len(results)), np.inf)
    for row, result in enumerate(results):
        for column, picture in enumerate(_pictures(result, kind)):
            if picture.embedding is not None:
                table[row, column] = np.linalg.norm(fused - picture.embedding, axis=1)
    return table


def split_pairs(
    table: NDArray[np.float64], claimed: NDArray[np.int64], allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Genuine (people, wishes) and impostor (pairs,) distances.

    Args:
        table: as `distance_table`.
        claimed: (people,) whom each person's pictures are said to show.
        allowed: (people, people), which others may be impostors; None allows all. The person the
            picture was made of and the one claimed never are.
    """
    count = len(table)
    genuine = table[np.arange(count), :, claimed]
    impostors = np.ones((count, count), bool) if allowed is None else allowed.copy()
    impostors[np.arange(count), np.arange(count)] = False
    impostors[np.arange(count), claimed] = False
    return genuine, table.transpose(0, 2, 1)[impostors].ravel()


def _likeness(
    results: Sequence[PersonResult],
    kind: str,
    claimed: NDArray[np.int64],
    only: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Likeness figures of the pictures of the people in `only` (all, where left out)."""
    only = np.ones(len(results), bool) if only is None else only
    table = distance_table(results, kind)
    mine = np.broadcast_to(only[:, None], (len(results), len(results)))
    genuine, impostor = split_pairs(table, claimed, mine)
    genuine = genuine[only]
    look_alikes = split_pairs(table, claimed, mine & _same_group(results))[1]
    found = np.isfinite(genuine)
    per_person = np.array([area_under_curve(row, impostor) for row in genuine])
    return {
        "face_found": float(found.mean()),
        "auc": area_under_curve(genuine.ravel(), impostor),
        "auc_standard_error": float(per_person.std(ddof=1) / np.sqrt(len(per_person)))
        if len(per_person) > 1
        else float("nan"),
        "tar_at_far_1": true_accept_rate(genuine.ravel(), impostor),
        "auc_where_found": area_under_curve(genuine[found], impostor),
        "auc_look_alikes": area_under_curve(genuine.ravel(), look_alikes),
        "genuine_distance": float(genuine[found].mean()) if found.any() else float("nan"),
        "impostor_distance": _finite_mean(impostor),
    }


def _finite_mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _same_group(results: Sequence[PersonResult]) -> NDArray[np.bool_]:
    """(people, people): same skin tone, age band and sex."""
    words = [tuple(result.person.groups[group] for group in GROUPS) for result in results]
    return np.array([[first == second for second in words] for first in words])


def _row(
    results: Sequence[PersonResult], wishes: Sequence[HeldOutWish], kind: str
) -> dict[str, Any]:
    row: dict[str, Any] = _likeness(results, kind, np.arange(len(results)))
    if kind == "generated":
        row["face_found_at_once"] = float(np.mean([r.found_at_once for r in results]))
    row |= _copying(results, kind)
    row["prompt"] = _prompts(results, [wish.wants for wish in wishes], kind)
    return row


def _floor(results: Sequence[PersonResult], wishes: Sequence[HeldOutWish]) -> dict[str, Any]:
    """Pictures made of the previous person and, for the prompt, of the previous wish."""
    somebody_else = np.roll(np.arange(len(results)), -1)
    row: dict[str, Any] = _likeness(results, "generated", somebody_else)
    wants = [wish.wants for wish in wishes]
    row["prompt"] = _prompts(results, [*wants[1:], wants[0]], "generated")
    return row


def _copying(results: Sequence[PersonResult], kind: str) -> dict[str, float]:
    """Mean copy score over selfies and found faces, and the share of near copies of one selfie."""
    scores = [
        [copy_paste(picture.embedding, reference, result.person.target)
         for reference in result.person.embeddings]
        for result in results
        for picture in _pictures(result, kind)
        if picture.embedding is not None
    ]  # fmt: skip
    if not scores:
        return {"copy_paste": float("nan"), "near_copies": float("nan")}
    table = np.array(scores)
    return {
        "copy_paste": float(table.mean()),
        "near_copies": float((table.max(axis=1) > NEAR_COPY).mean()),
    }


def _prompts(
    results: Sequence[PersonResult],
    wants: Sequence[Mapping[str, Sequence[str]]],
    kind: str,
) -> dict[str, float]:
    seen = [
        shown if picture.embedding is not None else None
        for result in results
        for picture, shown in zip(_pictures(result, kind), _shown(result, kind), strict=False)
    ]
    return prompt_accuracy(seen, list(wants) * len(results)) if seen else {}


def _group(
    results: Sequence[PersonResult], wishes: Sequence[HeldOutWish], group: str, value: str
) -> dict[str, Any]:
    members = np.array([result.person.groups[group] == value for result in results])
    chosen = [result for result in results if result.person.groups[group] == value]
    figures: dict[str, Any] = {"people": int(members.sum())}
    for kind in ("generated", "true"):
        if _pictures(results[0], kind):
            row: dict[str, Any] = _likeness(results, kind, np.arange(len(results)), members)
            row["prompt"] = _prompts(chosen, [wish.wants for wish in wishes], kind)
            figures["generated" if kind == "generated" else "ceiling"] = row
    return figures


def _pictures(result: PersonResult, kind: str) -> Sequence[JudgedPicture]:
    return result.generated if kind == "generated" else result.true


def _shown(result: PersonResult, kind: str) -> Sequence[Seen]:
    return result.generated_shows if kind == "generated" else result.true_shows


# ------------------------------------------------------------------- rendering and judging

Prepared = tuple[HeldOutPerson | None, list[JudgedPicture]]
_studio: HeldOutStudio | None = None  # one per worker process


def _open_studio(cache: Path, assets: Path | None, size: int) -> None:
    global _studio
    _studio = HeldOutStudio(cache, assets, size)


def _prepare(seed: int, wishes: Sequence[HeldOutWish]) -> Prepared:
    assert _studio is not None
    person = _studio.person(seed)
    return person, [_studio.true_picture(seed, wish) for wish in wishes] if person else []


def _judge(image: ImageArray) -> JudgedPicture:
    assert _studio is not None
    return _studio.judge.judge(image)


class _Workshop:
    """Renders and finds faces in other processes while this one draws."""

    def __init__(self, cache: Path, assets: Path | None, size: int, workers: int) -> None:
        self._facts = (cache, assets, size)
        self._workers = workers
        self._executor: Executor | None = None
        self._bar: Any = None

    def __enter__(self) -> _Workshop:
        if self._workers > 1:
            # "spawn": neither OpenGL contexts nor torch's threads survive a fork.
            self._executor = ProcessPoolExecutor(
                self._workers, get_context("spawn"), _open_studio, self._facts
            )
        else:
            _open_studio(*self._facts)
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        if self._bar is not None:
            self._bar.close()

    def people(self, seeds: Sequence[int], wishes: Sequence[HeldOutWish]) -> Iterator[Prepared]:
        """Prepared people in order; a few are worked on ahead."""
        prepare = partial(_prepare, wishes=wishes)
        if self._executor is None:
            yield from map(prepare, seeds)
            return
        ahead = [self._executor.submit(prepare, seed) for seed in seeds[: 2 * self._workers]]
        for seed in [*seeds[len(ahead) :], *[None] * len(ahead)]:
            yield ahead.pop(0).result()
            if seed is not None:
                ahead.append(self._executor.submit(prepare, seed))

    def judge(self, images: Sequence[ImageArray]) -> list[JudgedPicture]:
        """Embed the largest face of each picture."""
        mapped = self._executor.map(_judge, images) if self._executor else map(_judge, images)
        return list(mapped)

    def show(self, done: int, total: int) -> None:
        """Draw the default progress bar."""
        self._bar = self._bar or tqdm(total=total, unit="person")
        self._bar.update(done - self._bar.n)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", nargs="?", default="embedded", choices=BACKENDS.names())
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--assets", type=Path, default=None)
    parser.add_argument("--model", type=Path, default=None, help="folder of weights")
    parser.add_argument("--judge", type=Path, default=None, help="attribute judge's weights")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--likeness", type=float, default=0.7)
    parser.add_argument("--guidance-scale", type=float, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--ceiling-only", action="store_true", help="true renders, no model")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    evaluate(
        None if given.ceiling_only else given.backend,
        given.out,
        given.people,
        given.prompts,
        given.assets,
        given.model,
        given.steps,
        given.minutes,
        likeness=given.likeness,
        guidance_scale=given.guidance_scale,
        workers=given.workers,
        cache=given.cache,
        judge_folder=given.judge,
    )
    print((given.out / "evaluation.md").read_text())


if __name__ == "__main__":
    main()
