from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from imagine.backends import RowState
from imagine.backends.fake import FakeBackend
from imagine.core import ImageArray, LikenessVerdict
from imagine.engine import Engine, Limits
from imagine.errors import Cancelled, PromptBlocked
from imagine.pipeline import (
    Picture,
    Progress,
    Tools,
    Wish,
    best_candidate,
    make_pictures,
)
from imagine.provenance import mark_image
from imagine.settings import Settings
from tests.doubles import DoubleDetector, DoubleEncoder, double_identity

WISH = Wish("in a forest", 7, count=2, num_inference_steps=3, guidance_scale=2.0, likeness=0.9)
ME = double_identity()


class WatchedBackend(FakeBackend):
    """The fake, remembering how many rows each step had."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def denoise_step(self, states: Sequence[RowState]) -> list[RowState]:
        self.batches.append(len(states))
        return super().denoise_step(states)


class JudgingBackend(FakeBackend):
    """The fake with an opinion on the prompt: the brighter the better."""

    def prompt_fit(self, image: ImageArray, prompt: str) -> float | None:
        return float(image.mean()) / 255.0


def tools(backend: FakeBackend | None = None, rows_at_once: int = 1) -> Tools:
    backend = backend or FakeBackend()
    engine = Engine(backend, Limits(max_forward_rows=rows_at_once))
    return Tools(engine, DoubleDetector(), DoubleEncoder(), Settings())


def candidate(score: float, fit: float | None = None, copy: float | None = None) -> Picture:
    (picture,) = make_pictures(replace(WISH, count=1), ME, tools())
    verdict = LikenessVerdict(True, 0.1, score, copy, "")
    return Picture(picture.marked, picture.recipe, verdict, fit, "")


def test_every_picture_is_judged_and_marked_with_its_own_recipe() -> None:
    first, second = make_pictures(WISH, ME, tools())
    assert (first.recipe.seed, second.recipe.seed) == (7, 8)
    assert first.recipe.identity_fingerprint == ME.fingerprint
    assert first.marked.recipe == first.recipe
    assert first.verdict.words == "This looks like you."


def test_a_blocked_prompt_draws_nothing() -> None:
    backend = WatchedBackend()
    with pytest.raises(PromptBlocked):
        make_pictures(replace(WISH, prompt="naked"), ME, tools(backend))
    assert backend.batches == []


def test_batched_and_one_by_one_draw_the_same_pictures() -> None:
    alone = make_pictures(WISH, ME, tools(rows_at_once=1))
    together = make_pictures(WISH, ME, tools(rows_at_once=8))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.marked.pixels, other.marked.pixels)


@pytest.mark.parametrize(("rows_at_once", "batches"), [(1, [1] * 15), (4, [4] * 3 + [1] * 3)])
def test_no_step_takes_more_rows_than_allowed(rows_at_once: int, batches: list[int]) -> None:
    backend = WatchedBackend()
    make_pictures(replace(WISH, count=5), ME, tools(backend, rows_at_once))
    assert backend.batches == batches


def test_progress_counts_every_step_of_every_picture() -> None:
    seen: list[Progress] = []
    make_pictures(replace(WISH, best_of=2), ME, tools(), seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.num_steps for progress in seen} == {12}
    assert seen[-1].eta_seconds == 0.0


def test_cancelling_stops_before_the_next_step() -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled):
        make_pictures(WISH, ME, tools(), seen.append, is_cancelled=lambda: len(seen) == 2)
    assert len(seen) == 2


def test_the_best_candidate_of_each_picture_is_kept_and_the_reason_given() -> None:
    wish = replace(WISH, best_of=3)
    kept = make_pictures(wish, ME, tools())
    assert [picture.recipe.seed % 2 for picture in kept] == [1, 0]  # 7, 9, 11 and 8, 10, 12
    assert all(picture.why.startswith("Best of 3: likeness") for picture in kept)
    assert all("cannot judge prompt fit" in picture.why for picture in kept)


def test_a_backend_that_judges_prompts_is_heard() -> None:
    kept = make_pictures(replace(WISH, best_of=2), ME, tools(JudgingBackend()))
    assert all(picture.prompt_fit is not None for picture in kept)
    assert all("prompt fit 0." in picture.why for picture in kept)


def test_likeness_decides_when_prompt_fit_is_not_known_for_all() -> None:
    best = best_candidate([candidate(0.4, fit=1.0), candidate(0.6, fit=None)])
    assert best.verdict.score == 0.6


def test_prompt_fit_counts_as_much_as_likeness() -> None:
    best = best_candidate([candidate(0.7, fit=0.1), candidate(0.6, fit=0.9)])
    assert best.why == "Best of 2: likeness 0.60 (others 0.70), prompt fit 0.90 (others 0.10)."


def test_a_copy_of_a_selfie_loses_to_an_honest_likeness() -> None:
    best = best_candidate([candidate(0.9, copy=0.95), candidate(0.5, copy=0.1)])
    assert best.verdict.score == 0.5


def test_marked_pictures_are_the_pictures_drawn() -> None:
    (picture,) = make_pictures(replace(WISH, count=1), ME, tools())
    again = mark_image(picture.marked.pixels, picture.recipe)
    assert again.to_bytes() == picture.marked.to_bytes()
