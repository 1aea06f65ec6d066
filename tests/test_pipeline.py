from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from imagine.backends import BackendInfo, RowState
from imagine.backends.fake import FakeBackend
from imagine.backends.selfie_traits import Reading
from imagine.core import REDRAW_STRIDE, Face, ImageArray, LikenessVerdict
from imagine.engine import Engine, Limits
from imagine.errors import Cancelled, CheckMissing, InvalidInput, PictureWithheld, PromptBlocked
from imagine.identity.fuse import fingerprint
from imagine.pipeline import (
    Audience,
    Candidate,
    Picture,
    Progress,
    Tools,
    Wanted,
    Wish,
    candidate_request,
    checker,
    keep_best,
    make_pictures,
)
from imagine.provenance import mark_image
from imagine.safety import CheckReport, CheckSettings, Outcome, OutputChecks, OutputTools, SeenFace
from imagine.settings import Settings
from imagine.traits import parse_traits
from tests.conftest import calm
from tests.doubles import DoubleDetector, DoubleEncoder, SideBySideDetector, double_identity

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
    detector, encoder = DoubleDetector(), DoubleEncoder()
    return Tools(engine, detector, encoder, Settings(), calm(detector, encoder))


def candidate(score: float, fit: float | None = None, copy: float | None = None) -> Candidate:
    request = candidate_request(replace(WISH, count=1), Wanted(WISH.prompt, {}, ME), 0)
    image = FakeBackend().decode(FakeBackend().prepare(request))
    return Candidate(image, request, LikenessVerdict(True, 0.1, score, copy, ""), fit)


def best(*candidates: Candidate) -> Picture:
    own = tools()
    kept = keep_best(candidates, ME, own, checker(own, ME))
    assert isinstance(kept, Picture)
    return kept


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
    make_pictures(replace(WISH, best_of=2), ME, tools(), Audience(seen.append))
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.num_steps for progress in seen} == {12}
    assert seen[-1].eta_seconds == 0.0


def test_cancelling_stops_before_the_next_step() -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled):
        make_pictures(WISH, ME, tools(), Audience(seen.append, lambda: len(seen) == 2))
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
    assert best(candidate(0.4, fit=1.0), candidate(0.6, fit=None)).verdict.score == 0.6


def test_prompt_fit_counts_as_much_as_likeness() -> None:
    kept = best(candidate(0.7, fit=0.1), candidate(0.6, fit=0.9))
    assert kept.why == "Best of 2: likeness 0.60 (others 0.70), prompt fit 0.90 (others 0.10)."


def test_a_picture_without_a_face_loses_however_well_it_shows_the_prompt() -> None:
    faceless = candidate(0.0, fit=1.0)
    faceless = replace(faceless, verdict=replace(faceless.verdict, face_found=False))
    assert best(faceless, candidate(0.4, fit=0.1)).verdict.score == 0.4


def test_a_copy_of_a_selfie_loses_to_an_honest_likeness() -> None:
    assert best(candidate(0.9, copy=0.95), candidate(0.5, copy=0.1)).verdict.score == 0.5


def test_marked_pictures_are_the_pictures_drawn() -> None:
    (picture,) = make_pictures(replace(WISH, count=1), ME, tools())
    again = mark_image(picture.marked.pixels, picture.recipe)
    assert again.to_bytes() == picture.marked.to_bytes()


def checks(**answers: object) -> OutputChecks:
    """Every check, with figures that the test chooses."""
    given = {
        "score_nudity": lambda image: 0.0,
        "see_faces": lambda image: [],
        "distance": DoubleEncoder().distance,
        "same_person_distance": 0.5,
        "estimate_ages": lambda image, faces: [30.0] * len(faces),
        "listed_distance": lambda embedding: math.inf,
    }
    tools = OutputTools(**{**given, **answers})  # type: ignore[arg-type]
    return OutputChecks(tools, CheckSettings(), lambda kind, facts: None)


def test_what_a_check_blocks_does_not_leave() -> None:
    nude = replace(tools(), checks=checks(score_nudity=lambda image: 0.9))
    with pytest.raises(PictureWithheld, match="nudity"):
        make_pictures(WISH, ME, nude)


def test_one_picture_that_may_not_leave_does_not_take_the_others_with_it() -> None:
    scores = iter([0.9, 0.0])
    told: list[tuple[Candidate, CheckReport]] = []
    careful = replace(tools(), checks=checks(score_nudity=lambda image: next(scores)))
    (kept,) = make_pictures(WISH, ME, careful, Audience(withheld=lambda *words: told.append(words)))
    assert kept.recipe.seed == 8
    assert [(c.request.seed, report.outcome) for c, report in told] == [(7, Outcome.BLOCK)]


def test_the_next_best_candidate_leaves_when_the_best_may_not() -> None:
    scores = iter([0.9, 0.0])
    careful = replace(tools(), checks=checks(score_nudity=lambda image: next(scores)))
    kept = keep_best([candidate(0.5), candidate(0.9)], ME, careful, checker(careful, ME))
    assert isinstance(kept, Picture) and kept.verdict.score == 0.5


def test_a_face_unlike_the_person_leaves_with_its_verdict() -> None:
    stranger = SeenFace(Face((0, 0, 9, 9), np.zeros((5, 2), np.float32), 1.0), ME.embedding + 0.2)
    seen = checks(see_faces=lambda image: [stranger])
    assert make_pictures(WISH, ME, replace(tools(), checks=seen))


def test_a_check_that_cannot_run_lets_nothing_out() -> None:
    with pytest.raises(CheckMissing, match="estimate_ages"):
        make_pictures(WISH, ME, replace(tools(), checks=checks(estimate_ages=None)))


class Choosy(DoubleDetector):
    """Finds no face in the pictures of its list: first, second, ... looked at."""

    def __init__(self, *faceless: int) -> None:
        self._faceless = faceless
        self._looked = -1

    def detect(self, image: ImageArray) -> list[Face]:
        self._looked += 1
        return [] if self._looked in self._faceless else super().detect(image)


def test_a_picture_without_a_face_is_drawn_again_from_a_seed_far_from_all_others() -> None:
    choosy = replace(tools(), detector=Choosy(1))
    first, second = make_pictures(replace(WISH, redraws=2), ME, choosy)
    assert (first.recipe.seed, second.recipe.seed) == (7, 8 + REDRAW_STRIDE)
    assert second.why.startswith("Best of 2: likeness 0.92 (others 0.00), 1 without a face;")


def test_a_face_that_may_not_leave_is_no_reason_to_hand_out_a_picture_without_one() -> None:
    scores = iter([0.9, 0.0])
    careful = replace(tools(), checks=checks(score_nudity=lambda image: next(scores)))
    (picture,) = make_pictures(replace(WISH, count=1, redraws=1), ME, careful)
    assert picture.verdict.face_found and picture.recipe.seed == 7 + REDRAW_STRIDE


def test_drawing_again_ends_and_hands_out_what_there_is() -> None:
    choosy = replace(tools(), detector=Choosy(*range(9)))
    (picture,) = make_pictures(replace(WISH, count=1, redraws=2), ME, choosy)
    assert not picture.verdict.face_found and picture.why.startswith("Best of 3")


def test_the_audience_hears_of_every_candidate_and_of_the_steps_of_redraws() -> None:
    seen: list[Progress] = []
    numbers: set[int] = set()
    audience = Audience(seen.append, status=lambda number, status: numbers.add(number))
    choosy = replace(tools(), detector=Choosy(1))
    make_pictures(replace(WISH, redraws=2), ME, choosy, audience)
    assert numbers == {0, 1, 3}  # the redraw of picture 1
    assert [progress.step for progress in seen] == list(range(1, 10))
    assert [progress.num_steps for progress in seen] == [6] * 6 + [9] * 3


def test_a_picture_drawn_again_can_be_replayed_from_its_recipe() -> None:
    choosy = replace(tools(), detector=Choosy(0))
    (picture,) = make_pictures(replace(WISH, count=1, redraws=1), ME, choosy)
    again = replace(WISH, count=1, seed=picture.recipe.seed)
    (same,) = make_pictures(again, ME, tools())
    assert np.array_equal(same.marked.pixels, picture.marked.pixels)


def reader(**seen: str | None) -> Callable[[ImageArray, Sequence[str]], list[Reading]]:
    """Reads these values from any selfie."""
    return lambda crops, traits: [Reading(t, seen[t], f"{t}: {seen[t]}") for t in traits]


def test_a_kept_trait_is_read_from_the_selfies_asked_for_and_said() -> None:
    wish = replace(WISH, count=1, keep=("hair_colour",), change={"glasses": "none"})
    (picture,) = make_pictures(wish, ME, replace(tools(), read_selfies=reader(hair_colour="red")))
    assert picture.recipe.traits == "glasses=none; hair_colour=red"
    assert picture.notes == ("hair_colour: red",)


def test_a_trait_the_selfies_do_not_tell_is_said_and_not_asked_for() -> None:
    wish = replace(WISH, count=1, keep=("age",))
    (picture,) = make_pictures(wish, ME, replace(tools(), read_selfies=reader(age=None)))
    assert picture.recipe.traits == "" and picture.notes == ("age: None",)


def test_a_switched_trait_changes_the_picture_and_its_recipe_draws_it_again() -> None:
    (plain,) = make_pictures(replace(WISH, count=1), ME, tools())
    (sad,) = make_pictures(replace(WISH, count=1, change={"expression": "sad"}), ME, tools())
    (same,) = make_pictures(replace(WISH, count=1, change=parse_traits(sad.recipe.traits)), ME,
                            tools())  # fmt: skip
    assert not np.array_equal(plain.marked.pixels, sad.marked.pixels)
    assert np.array_equal(same.marked.pixels, sad.marked.pixels)


def test_policy_sees_the_prompt_together_with_the_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(
        "imagine.pipeline.allow_prompt", lambda prompt, settings: seen.append(prompt) or prompt
    )
    make_pictures(replace(WISH, change={"age": "young"}), ME, tools())
    assert seen == ["in a forest", "in a forest, as a young adult"]


def two_at_once() -> Tools:
    engine = Engine(FakeBackend(), Limits(max_forward_rows=1))
    detector, encoder = SideBySideDetector(), DoubleEncoder()
    return Tools(engine, detector, encoder, Settings(), calm(detector, encoder))


def test_somebody_beside_is_drawn_judged_and_named_in_the_recipe() -> None:
    other = double_identity(1)
    (picture,) = make_pictures(replace(WISH, count=1), ME, two_at_once(), beside=other)
    assert picture.marked.pixels.shape == (128, 256, 3)
    assert picture.pair is not None and picture.pair.is_assigned
    assert picture.verdict == picture.pair.left
    assert picture.recipe.beside_fingerprint == fingerprint(other.crops)


def test_a_picture_in_which_one_of_two_is_missing_is_drawn_again() -> None:
    class HalfBlind(SideBySideDetector):
        looked = 0

        def detect(self, image: ImageArray) -> list[Face]:
            self.looked += 1
            return super().detect(image)[: 1 if self.looked == 1 else 2]

    blind = replace(two_at_once(), detector=HalfBlind())
    wish = replace(WISH, count=1, redraws=1)
    (picture,) = make_pictures(wish, ME, blind, beside=double_identity(1))
    assert picture.recipe.seed == 7 + REDRAW_STRIDE
    assert "1 without a face" in picture.why


def test_a_backend_that_draws_one_person_refuses_two_by_name() -> None:
    class Lonely(FakeBackend):
        @property
        def info(self) -> BackendInfo:
            return replace(super().info, name="lonely", draws_two=False)

    with pytest.raises(InvalidInput, match="'lonely' draws one person"):
        make_pictures(WISH, ME, tools(Lonely()), beside=double_identity(1))


def test_pictures_have_the_shape_that_was_wished_for() -> None:
    pictures = make_pictures(replace(WISH, aspect_ratio="9:16"), ME, tools())
    assert {picture.marked.pixels.shape for picture in pictures} == {(168, 96, 3)}
    assert {picture.recipe.aspect_ratio for picture in pictures} == {"9:16"}


def test_a_shape_the_model_does_not_draw_is_refused_before_anything_is_drawn() -> None:
    watched = WatchedBackend()
    with pytest.raises(InvalidInput, match="'7:5'"):
        make_pictures(replace(WISH, aspect_ratio="7:5"), ME, tools(watched))
    assert not watched.batches
