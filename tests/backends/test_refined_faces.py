import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from imagine.backends.embedded import LOCATOR_FOLDER, EmbeddedBackend, save_refiner, save_turn
from imagine.core import Request
from imagine.errors import CorruptWeights
from imagine.models.face_recogniser import FaceLocator
from imagine.models.face_refiner import FaceRefiner
from imagine.models.face_turn import FaceTurn
from tests.backends.tiny_embedded import drawn, save_tiny

CROPS, OTHER = np.random.default_rng(0).integers(0, 255, (2, 2, 128, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a refiner that does something; the face is the middle half of a picture."""
    torch.manual_seed(0)
    locator = FaceLocator(width=8)
    torch.nn.init.zeros_(locator.head.weight)
    with torch.no_grad():
        locator.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    refiner = FaceRefiner(widths=(8, 16, 16), heads=2, crop_size=32)
    torch.nn.init.normal_(refiner.leave.weight, std=0.3)
    folder = save_tiny(tmp_path_factory.mktemp("model"))
    save_refiner(folder, refiner, locator)
    return folder


@pytest.fixture(scope="module")
def backend(folder):
    return EmbeddedBackend.load(folder)


def wish(seed=1, likeness=0.7, **words):
    return Request("me, smiling", CROPS, seed, 3, 2.0, likeness, (0.0, 1.0), **words)


def pixels(backend, state):
    return backend.decode(state).astype(int)


def test_the_face_of_a_finished_picture_is_refined_and_the_preview_is_not(backend):
    (state,) = drawn(backend, wish())
    added = np.abs(pixels(backend, state) - backend.preview(state)).max(axis=2)
    assert added[32:96, 32:96].max() > 2
    added[30:98, 30:98] = 0
    assert not added.any()


def test_somebody_elses_selfies_make_another_face(backend):
    (state,) = drawn(backend, wish())
    window = replace(state.windows[0], person=backend.encode_person(OTHER))
    swapped = replace(state, windows=(window,))
    assert np.abs(pixels(backend, state) - pixels(backend, swapped)).max() > 1


def test_less_likeness_is_less_refinement_and_none_leaves_the_drawing_alone(backend):
    (state,) = drawn(backend, wish())
    moved = []
    for likeness in (0.7, 0.35):
        refinement = backend.prepare(wish(likeness=likeness)).windows[0].refinement
        window = replace(state.windows[0], refinement=refinement)
        shown = pixels(backend, replace(state, windows=(window,)))
        moved.append(np.abs(shown - backend.preview(state)).mean())
    assert 0 < moved[1] < 0.75 * moved[0]
    (nobody,) = drawn(backend, wish(likeness=0.0))
    assert np.array_equal(backend.decode(nobody), backend.preview(nobody))


def test_a_face_of_another_age_is_not_refined_by_selfies_that_do_not_show_it(backend):
    plain, old = (backend.prepare(wish(traits=traits)) for traits in ({}, {"age": "old"}))
    assert old.windows[0].refinement == 0.0
    assert plain.windows[0].refinement == 1.0


def test_glasses_that_the_prompt_asks_for_are_left_on(backend):
    glasses = backend.prepare(replace(wish(), prompt="me with round glasses"))
    assert glasses.windows[0].refinement < 1.0


def test_each_of_two_people_is_refined_by_their_own_selfies(backend):
    (state,) = drawn(backend, wish(beside=OTHER))
    left, right = state.windows
    stranger = replace(right, person=backend.encode_person(CROPS))
    changed = pixels(backend, replace(state, windows=(left, stranger)))
    before = pixels(backend, state)
    # The right window begins at column 96.
    assert np.array_equal(before[:, :96], changed[:, :96])
    assert not np.array_equal(before[:, 128:], changed[:, 128:])


def test_a_person_kept_in_memory_counts_what_the_refiner_keeps(backend):
    person = backend.encode_person(CROPS)
    kept = (person.tokens, person.detail, *person.selfies)
    assert person.nbytes == sum(tensor.nbytes for tensor in kept)


def test_a_refiner_that_cannot_find_the_face_is_corrupt_weights(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "blind")
    shutil.rmtree(tmp_path / "blind" / LOCATOR_FOLDER)
    with pytest.raises(CorruptWeights, match="git checkout"):
        EmbeddedBackend.load(tmp_path / "blind")


def test_a_finished_picture_has_the_fine_detail_of_its_persons_selfies(backend):
    (state,) = drawn(backend, wish())
    (window,) = state.windows
    without = replace(window, person=replace(window.person, detail=None))
    other = replace(window.person, detail=backend.encode_person(OTHER).detail)
    shown, plain, strange = (
        pixels(backend, replace(state, windows=(seen,)))
        for seen in (window, without, replace(window, person=other))
    )
    assert np.abs(shown - plain).max() > 2
    assert np.abs(shown - strange).max() > 2


def test_selfies_that_look_aside_are_left_out_or_count_less(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    save_turn(tmp_path / "model", FaceTurn())
    backend = EmbeddedBackend.load(tmp_path / "model")
    ahead, aside = np.full((1, 128, 128, 3), 90, np.uint8), CROPS[:1]
    straight, both = (backend.encode_person(one) for one in (ahead, np.concatenate([ahead, aside])))
    assert straight.ahead == both.ahead == 1.0
    assert torch.equal(straight.detail, both.detail)
    assert both.tokens.shape[1] == 2 * straight.tokens.shape[1]
    alone = backend.encode_person(aside)
    assert alone.ahead < 1.0
    refinement = backend.prepare(replace(wish(), crops=aside)).windows[0].refinement
    assert refinement == pytest.approx(alone.ahead)
