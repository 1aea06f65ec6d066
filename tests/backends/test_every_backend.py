"""What every image model promises, whoever wrote it."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from imagine.backends import BACKENDS, Backend, RowState
from imagine.backends.base import NEAR_ENOUGH, shape_of
from imagine.core import REDRAW_STRIDE, ImageArray, Request
from imagine.errors import InvalidInput, MissingWeights
from imagine.settings import Settings
from tests.doubles import double_crops

STEPS = 3
# Batched matrix products add in another order than single ones; float32 sums then differ in the
# last bits, which moves a rounded pixel by at most a level or two of 255.
BATCH_TOLERANCE = 2

WEIGHTS = {"embedded": "imagine-mini"}
# Big models take part with few and random weights of their genuine architecture and layout.
TINY = {
    "flux2_klein": "tests.backends.tiny_flux2_klein",
    "sd15_faceid": "tests.backends.tiny_faceid",
    "sdxl_faceid": "tests.backends.tiny_faceid",
}


@pytest.fixture(scope="module", params=BACKENDS.names())
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    if request.param in TINY:
        tiny = import_module(TINY[request.param])
        loaded: Backend = tiny.load_tiny(request.param, tmp_path_factory.mktemp("tiny"))
        return loaded
    folder = WEIGHTS.get(request.param)
    if folder and not (Settings().assets_directory / "models" / folder).is_dir():
        pytest.skip(f"the weights of {request.param} are not in assets/models")
    return BACKENDS.get(request.param).load()


def wish(**changes: object) -> Request:
    plain = Request("in a forest", double_crops(), 7, STEPS, 2.0, 0.7)
    return replace(plain, **changes)  # type: ignore[arg-type]


def advance(backend: Backend, state: RowState, steps: int) -> RowState:
    for _ in range(steps):
        (state,) = backend.denoise_step([state])
    return state


def draw(backend: Backend, request: Request) -> ImageArray:
    return backend.decode(advance(backend, backend.prepare(request), STEPS))


def largest_difference(first: ImageArray, second: ImageArray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def test_a_loaded_backend_is_a_backend_under_its_own_name(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.info.name in BACKENDS.names()
    assert backend.info.model_revision and backend.info.licence
    assert backend.info.default_steps >= 1


def test_pictures_have_the_promised_size_and_type(backend: Backend) -> None:
    picture = draw(backend, wish())
    assert picture.shape == (*backend.info.image_size, 3)
    assert picture.dtype == np.uint8


def test_every_shape_on_offer_comes_out_as_promised_and_as_it_is_called(backend: Backend) -> None:
    assert len(backend.info.sizes) > 1
    for aspect_ratio, size in backend.info.sizes.items():
        picture = draw(backend, wish(aspect_ratio=aspect_ratio))
        assert picture.shape == (*size, 3)
        across, down = shape_of(aspect_ratio)
        assert size[1] / size[0] == pytest.approx(across / down, rel=NEAR_ENOUGH)


def test_no_two_shapes_are_one_size_and_none_needs_more_memory_than_the_square(
    backend: Backend,
) -> None:
    sizes = list(backend.info.sizes.values())
    assert len(set(sizes)) == len(sizes)
    assert max(height * width for height, width in sizes) == math.prod(backend.info.image_size)


def test_previews_have_the_shape_of_their_picture(backend: Backend) -> None:
    for aspect_ratio, (height, width) in backend.info.sizes.items():
        state = advance(backend, backend.prepare(wish(aspect_ratio=aspect_ratio)), 1)
        rows, columns = backend.preview(state).shape[:2]
        # Both sides of a preview are whole pixels.
        assert rows * width == pytest.approx(columns * height, abs=max(height, width))


def test_pictures_of_two_shapes_come_out_as_if_alone_or_do_not_share_a_pass(
    backend: Backend,
) -> None:
    lying = next(ratio for ratio, size in backend.info.sizes.items() if size[0] < size[1])
    states = [backend.prepare(wish()), backend.prepare(wish(aspect_ratio=lying))]
    if states[0].batch_key != states[1].batch_key:
        with pytest.raises(ValueError, match=r"batch.key"):
            backend.denoise_step(states)
        return
    for state, row in zip(states, backend.denoise_step(states), strict=True):
        (alone,) = backend.denoise_step([state])
        difference = largest_difference(backend.decode(row), backend.decode(alone))
        assert difference <= BATCH_TOLERANCE


def test_a_shape_that_is_not_offered_is_refused_with_the_list(backend: Backend) -> None:
    with pytest.raises(InvalidInput, match=r"'21:9'.*does not draw.*1:1 \(\d+x\d+\), \d+:\d+ \("):
        backend.prepare(wish(aspect_ratio="21:9"))


def test_a_state_half_way_can_be_looked_at(backend: Backend) -> None:
    preview = backend.decode(advance(backend, backend.prepare(wish()), 1))
    assert preview.shape == (*backend.info.image_size, 3)


def test_a_preview_is_a_small_picture_that_follows_the_estimate(backend: Backend) -> None:
    states = [advance(backend, backend.prepare(wish(seed=seed)), 2) for seed in (7, 8)]
    first, other = (backend.preview(state) for state in states)
    assert first.dtype == np.uint8 and first.shape[2] == 3
    assert first.shape[0] <= backend.info.image_size[0]
    assert not np.array_equal(first, other)


def test_every_row_counts_its_own_steps(backend: Backend) -> None:
    state = backend.prepare(wish())
    assert (state.step, state.num_steps) == (0, STEPS)
    assert advance(backend, state, 2).step == 2


def test_the_same_seed_draws_the_same_picture_bit_for_bit(backend: Backend) -> None:
    assert np.array_equal(draw(backend, wish()), draw(backend, wish()))


def test_two_people_are_drawn_side_by_side_or_refused_by_name(backend: Backend) -> None:
    together = wish(beside=double_crops(person=5))
    if not backend.info.draws_two:
        with pytest.raises(InvalidInput, match=backend.info.name):
            backend.prepare(together)
        return
    with pytest.raises(InvalidInput, match="two people are drawn in one shape only, "):
        backend.prepare(replace(together, aspect_ratio="16:9"))
    picture = draw(backend, together)
    assert picture.shape == (*(backend.info.pair_size or ()), 3)
    assert picture.shape[0] == backend.info.image_size[0] < picture.shape[1]
    changed = draw(backend, wish(beside=double_crops(person=6)))
    apart = np.abs(picture.astype(int) - changed.astype(int)).mean(axis=(0, 2))
    left, right = np.array_split(apart, 2)
    assert right.mean() > 2 * left.mean()  # the second person is on the right


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"seed": wish().seed + REDRAW_STRIDE},
        {"prompt": "on a beach"},
        {"crops": double_crops(person=5)},
        {"traits": {"hair_colour": "pink"}},
    ],
)
def test_another_seed_prompt_or_person_draws_another_picture(
    backend: Backend, change: dict[str, object]
) -> None:
    assert not np.array_equal(draw(backend, wish()), draw(backend, wish(**change)))


def test_rows_at_different_steps_share_a_call_and_come_out_as_if_alone(backend: Backend) -> None:
    wishes = [wish(), wish(seed=8, prompt="on a sunny beach at noon"), wish(seed=9, likeness=0.3)]
    starts = [advance(backend, backend.prepare(w), i) for i, w in enumerate(wishes)]
    together = backend.denoise_step(starts)
    for start, row in zip(starts, together, strict=True):
        (alone,) = backend.denoise_step([start])
        assert row.step == alone.step == start.step + 1
        difference = largest_difference(backend.decode(row), backend.decode(alone))
        assert difference <= BATCH_TOLERANCE


def test_the_given_states_are_not_changed_so_a_caller_may_retry(backend: Backend) -> None:
    states = [advance(backend, backend.prepare(wish(seed=seed)), 1) for seed in (1, 2)]
    before = [backend.decode(state) for state in states]
    first, second = backend.denoise_step(states), backend.denoise_step(states)
    assert [state.step for state in states] == [1, 1]
    assert all(np.array_equal(backend.decode(s), b) for s, b in zip(states, before, strict=True))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(backend.decode(one), backend.decode(other))


def test_the_rows_a_step_takes_are_told_before_and_a_resting_guidance_takes_no_more(
    backend: Backend,
) -> None:
    guided, resting = wish(), wish(guidance_interval=(0.0, 0.0))
    rows = [backend.forward_rows(backend.prepare(one)) for one in (guided, resting)]
    assert 1 <= rows[1] <= rows[0] <= 3


def test_without_likeness_the_person_is_ignored(backend: Backend) -> None:
    somebody, another = double_crops(person=1), double_crops(person=2)
    pictures = [draw(backend, wish(crops=crops, likeness=0.0)) for crops in (somebody, another)]
    assert np.array_equal(*pictures)


def test_swapping_one_rows_person_leaves_the_other_rows_alone(backend: Backend) -> None:
    mine, yours = backend.prepare(wish()), backend.prepare(wish(crops=double_crops(person=1)))
    swapped = backend.prepare(wish(crops=double_crops(person=2)))
    before, _ = backend.denoise_step([mine, yours])
    after, _ = backend.denoise_step([mine, swapped])
    assert np.array_equal(backend.decode(before), backend.decode(after))


def test_one_photo_and_many_photos_are_both_welcome(backend: Backend) -> None:
    for photos in (1, 5):
        assert draw(backend, wish(crops=double_crops(photos=photos))).any()


def test_a_picture_of_nobody_in_particular_can_be_drawn(backend: Backend) -> None:
    assert draw(backend, wish(crops=None)).shape == (*backend.info.image_size, 3)


def test_a_finished_row_is_refused(backend: Backend) -> None:
    finished = advance(backend, backend.prepare(wish()), STEPS)
    with pytest.raises(ValueError, match="finished"):
        backend.denoise_step([finished])


def test_rows_with_different_batch_keys_are_refused(backend: Backend) -> None:
    mixed = [backend.prepare(wish()), backend.prepare(wish(crops=None))]
    if mixed[0].batch_key == mixed[1].batch_key:
        pytest.skip("this backend batches them, which is allowed")
    with pytest.raises(ValueError, match=r"batch.key"):
        backend.denoise_step(mixed)


def test_a_state_of_somebody_elses_is_refused(backend: Backend) -> None:
    class Stranger:
        step, num_steps, batch_key = 0, 1, ("stranger",)

    with pytest.raises(TypeError, match="Stranger"):
        backend.denoise_step([Stranger()])


@pytest.mark.parametrize("name", BACKENDS.names())
def test_a_missing_weights_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="nowhere"):
        BACKENDS.get(name).load(tmp_path / "nowhere")
