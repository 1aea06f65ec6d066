from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.embedded import (
    CUT_AT_TOP,
    FULL_LIKENESS_GUIDANCE,
    TRAIT_UNTIL,
    EmbeddedBackend,
    cut_to,
    save_model,
    save_upsampler,
    side_by_side,
)
from imagine.core import Request
from imagine.errors import CorruptWeights, InvalidInput, MissingWeights
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.upsampler import Upsampler
from tests.backends.tiny_embedded import drawn, save_tiny

CROPS, OTHER = np.random.default_rng(0).integers(0, 255, (2, 2, 128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def backend(folder) -> EmbeddedBackend:
    return EmbeddedBackend.load(folder)


def request(
    prompt: str = "me",
    likeness: float = 0.5,
    guidance_scale: float = 2.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> Request:
    return Request(prompt, CROPS, 1, 3, guidance_scale, likeness, guidance_interval)


def test_an_empty_folder_is_missing_weights_and_names_the_command(tmp_path):
    with pytest.raises(MissingWeights, match="git checkout"):
        EmbeddedBackend.load(tmp_path)


def test_cut_weights_are_corrupt(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "cut")
    weights = next((tmp_path / "cut" / "denoiser").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CorruptWeights, match="cannot be loaded"):
        EmbeddedBackend.load(tmp_path / "cut")


def test_weights_of_another_architecture_are_corrupt(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "other")
    config = tmp_path / "other" / "denoiser" / "config.json"
    config.write_text(config.read_text().replace('"width": 64', '"width": 128'))
    with pytest.raises(CorruptWeights):
        EmbeddedBackend.load(tmp_path / "other")


def test_the_revision_follows_the_weights(folder, backend, tmp_path):
    torch.manual_seed(5)
    other = Denoiser(width=64, depth=2, heads=2, identity_width=32, bottleneck=16)
    save_model(tmp_path, other, IdentityAdapter(width=32, depth=1, heads=2, bottleneck=16))
    assert EmbeddedBackend.load(folder).info.model_revision == backend.info.model_revision
    assert EmbeddedBackend.load(tmp_path).info.model_revision != backend.info.model_revision


@pytest.mark.parametrize(
    ("likeness", "guidance_scale", "weights"),
    [
        (0.0, 1.0, [1.0]),  # the prompt alone: nothing else is computed
        (0.0, 2.0, [-1.0, 2.0]),
        (0.5, 2.0, [-1.0, 2.0 - FULL_LIKENESS_GUIDANCE / 2, FULL_LIKENESS_GUIDANCE / 2]),
    ],
)
def test_guidance_rows_add_up_to_one_and_useless_ones_are_left_out(
    backend, likeness, guidance_scale, weights
):
    state = backend.prepare(request(likeness=likeness, guidance_scale=guidance_scale))
    assert [weight for weight, _ in state.shares] == pytest.approx(weights)
    assert sum(weights) == pytest.approx(1.0)


def test_prompt_and_person_are_encoded_once_not_at_every_step(backend, monkeypatch):
    calls = []
    forward = backend._adapter.forward
    monkeypatch.setattr(
        backend._adapter, "forward", lambda crops: calls.append(len(crops)) or forward(crops)
    )
    state = backend.prepare(request())
    while state.step < state.num_steps:
        (state,) = backend.denoise_step([state])
    assert calls == [2]


def test_every_photo_keeps_tokens_of_its_own(backend):
    state = backend.prepare(request())
    assert {key.shape[2] for key, _ in state.windows[0].identity} == {
        2 * backend._adapter.tokens_per_photo
    }


def test_more_likeness_moves_the_picture_further_from_nobody(backend):
    nobody = backend.draw("me", None, num_inference_steps=3).astype(int)
    distances = [
        np.abs(backend.draw("me", CROPS, num_inference_steps=3, likeness=strength) - nobody).mean()
        for strength in (0.0, 0.3, 1.0)
    ]
    assert distances[0] < 0.01  # masked tokens change the order of float sums, nothing more
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("likeness", [0.0, 0.5, 1 / FULL_LIKENESS_GUIDANCE])
def test_outside_the_guidance_interval_a_picture_is_drawn_as_with_scale_one(backend, likeness):
    resting = backend.prepare(request(likeness=likeness, guidance_interval=(0.0, 0.0)))
    plain = backend.prepare(request(likeness=likeness, guidance_scale=1.0))
    assert backend.forward_rows(resting) == backend.forward_rows(plain) <= 2
    while plain.step < plain.num_steps:
        (resting,) = backend.denoise_step([resting])
        (plain,) = backend.denoise_step([plain])
    assert torch.equal(resting.image, plain.image)


def test_rows_that_only_serve_text_guidance_come_and_go_with_its_interval(backend):
    state = backend.prepare(request(guidance_interval=(1 / 3, 2 / 3)))
    rows, sums = [], []
    while state.step < state.num_steps:
        rows.append(backend.forward_rows(state))
        sums.append(sum(weight for weight, _ in state.shares))
        (state,) = backend.denoise_step([state])
    assert rows == [2, 3, 2]
    assert sums == pytest.approx([1.0, 1.0, 1.0])


def test_a_switched_trait_costs_one_row_until_its_share_of_the_schedule(backend):
    state = backend.prepare(replace(request(), traits={"hair_colour": "pink"}))
    rows, sums = [], []
    while state.step < state.num_steps:
        rows.append(backend.forward_rows(state))
        sums.append(sum(weight for weight, _ in state.shares))
        (state,) = backend.denoise_step([state])
    assert rows == [4, 4, 4 if TRAIT_UNTIL * 3 > 2 else 3]
    assert sums == pytest.approx([1.0, 1.0, 1.0])


def test_what_is_said_by_silence_costs_no_row_and_draws_the_prompt_without_it(backend):
    silent = replace(request("in a park, wearing glasses"), traits={"glasses": "none"})
    (bare,) = drawn(backend, request("in a park"))
    (switched,) = drawn(backend, silent)
    assert torch.equal(switched.image, bare.image)


def test_traits_work_without_a_person(backend):
    nobody = replace(request(), crops=None, traits={"expression": "sad"})
    assert backend.forward_rows(backend.prepare(nobody)) == 3


def test_two_people_stand_in_a_wide_picture_left_and_right(backend):
    (state,) = drawn(backend, replace(request(), beside=OTHER))
    assert backend.decode(state).shape == (128, 224, 3)
    assert backend.forward_rows(backend.prepare(replace(request(), beside=OTHER))) == 6


def test_a_window_sees_its_own_person_only(backend):
    overlap = 32
    one = drawn(backend, replace(request(), beside=OTHER))[0].image
    left_changed = drawn(backend, replace(request(), crops=OTHER, beside=OTHER))[0].image
    right_changed = drawn(backend, replace(request(), beside=CROPS))[0].image
    first = backend.denoise_step([backend.prepare(replace(request(), beside=OTHER))])[0]
    swapped = backend.denoise_step([backend.prepare(replace(request(), beside=CROPS))])[0]
    # Before their first step the windows know nothing of each other at all.
    assert torch.equal(first.image[..., : 128 - overlap], swapped.image[..., : 128 - overlap])
    assert not torch.equal(first.image[..., 128:], swapped.image[..., 128:])
    assert not torch.equal(one, left_changed) and not torch.equal(one, right_changed)


def test_pairs_in_one_call_do_not_touch_each_other(backend):
    mine = replace(request(), beside=OTHER)
    others = replace(request("in a park"), crops=OTHER, beside=CROPS)
    together = drawn(backend, mine, others)
    for state, alone in zip(together, (mine, others), strict=True):
        assert torch.allclose(state.image, drawn(backend, alone)[0].image, atol=1e-4)


def test_both_people_may_come_encoded(backend):
    wish = replace(request(), beside=OTHER)
    people = [backend.encode_person(crops) for crops in (CROPS, OTHER)]
    ready = backend.prepare(wish, *people)
    fresh = backend.prepare(wish)
    assert torch.equal(
        backend.denoise_step([ready])[0].image, backend.denoise_step([fresh])[0].image
    )


def test_a_row_with_an_interval_shares_a_call_with_one_without(backend):
    wishes = [request(guidance_interval=(0.5, 1.0)), request("you")]
    together = backend.denoise_step([backend.prepare(wish) for wish in wishes])
    for wish, row in zip(wishes, together, strict=True):
        (alone,) = backend.denoise_step([backend.prepare(wish)])
        assert torch.allclose(row.image, alone.image, atol=1e-5)  # sums in another order


def test_another_shape_is_the_square_cut_and_costs_nothing(backend):
    (square,) = drawn(backend, request())
    whole = backend.decode(square)
    cuts = {"3:4": whole[:, 16:112], "2:3": whole[:, 21:107]}
    for aspect_ratio, wanted in cuts.items():
        (cut,) = drawn(backend, replace(request(), aspect_ratio=aspect_ratio))
        assert torch.equal(cut.image, square.image) and cut.batch_key == square.batch_key
        assert np.array_equal(backend.decode(cut), wanted)


def test_a_wide_shape_keeps_every_column_and_more_of_the_bottom_or_the_top_as_measured():
    square = np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3)
    cut = cut_to(square, "4:3")
    assert cut.shape == (192, 256, 3)
    top = round(64 * CUT_AT_TOP)
    assert np.array_equal(cut, square[top : top + 192])


def test_two_people_are_never_cut(backend):
    with pytest.raises(InvalidInput, match="one shape only, 224x128 pixels"):
        backend.prepare(replace(request(), beside=OTHER, aspect_ratio="3:4"))


@pytest.fixture(scope="module")
def larger(folder, tmp_path_factory) -> EmbeddedBackend:
    """The same model with an upsampler beside it, as if trained: nothing in it is zero."""
    import shutil

    torch.manual_seed(3)
    upsampler = Upsampler(widths=(16, 16, 16), heads=2, identity_width=32)
    for parameter in upsampler.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    both = tmp_path_factory.mktemp("larger") / "model"
    shutil.copytree(folder, both)
    save_upsampler(both, upsampler)
    return EmbeddedBackend.load(both)


def test_an_upsampler_in_the_folder_doubles_the_pictures_and_not_the_previews(larger):
    (state,) = drawn(larger, request())
    assert larger.info.image_size == (256, 256)
    assert larger.decode(state).shape == (256, 256, 3)
    assert larger.preview(state).shape == (128, 128, 3)


def test_the_upsampler_is_part_of_the_revision_and_of_nothing_that_is_denoised(backend, larger):
    assert larger.info.model_revision != backend.info.model_revision
    (small,), (same,) = drawn(backend, request()), drawn(larger, request())
    assert torch.equal(small.image, same.image)


def test_an_upsampler_of_another_shape_is_corrupt(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "other")
    save_upsampler(tmp_path / "other", Upsampler(widths=(16, 16, 16), heads=2, identity_width=32))
    config = tmp_path / "other" / "upsampler" / "config.json"
    config.write_text(config.read_text().replace("32", "64"))
    with pytest.raises(CorruptWeights):
        EmbeddedBackend.load(tmp_path / "other")


def test_the_upsampler_looks_at_the_person_unless_only_the_prompt_speaks(larger):
    (state,) = drawn(larger, request())
    window = replace(state.windows[0], person=larger.encode_person(OTHER))
    swapped = replace(state, windows=(window,))
    assert not np.array_equal(larger.decode(state), larger.decode(swapped))
    (nobody,) = drawn(larger, request(likeness=0.0))
    assert nobody.windows[0].person.tokens.shape[1] == 0


def test_a_large_picture_of_one_call_with_others_is_the_same_as_alone(larger):
    wishes = [request(), request("in a park", likeness=1.0)]
    for state, wish in zip(drawn(larger, *wishes), wishes, strict=True):
        (alone,) = drawn(larger, wish)
        same = replace(alone, estimate=state.estimate)
        assert np.array_equal(larger.decode(state), larger.decode(same))


def test_each_half_of_a_large_pair_is_drawn_with_its_own_person(larger):
    (state,) = drawn(larger, replace(request(), beside=OTHER))
    picture = larger.decode(state)
    assert picture.shape == (*larger.info.pair_size, 3) == (256, 448, 3)
    left, right = state.windows
    stranger = replace(right, person=larger.encode_person(OTHER[:1]))
    changed = larger.decode(replace(state, windows=(left, stranger)))
    # The right window begins at column 192; what is left of it has never met its person.
    assert np.array_equal(picture[:, :192], changed[:, :192])
    assert not np.array_equal(picture[:, 256:], changed[:, 256:])


def test_windows_fade_into_each_other_where_they_meet():
    windows = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    (picture,) = side_by_side(windows, 13)
    row = picture[0, 0]
    assert picture.shape == (3, 8, 13)
    assert row[:5].eq(0).all() and row[8:].eq(1).all()
    assert (row[4:9].diff() > 0).all()
    agreeing = side_by_side(torch.full((2, 3, 8, 8), 0.5), 13)
    torch.testing.assert_close(agreeing, torch.full((1, 3, 8, 13), 0.5))
