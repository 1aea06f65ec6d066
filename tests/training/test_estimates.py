from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.embedded import save_model, save_upsampler
from imagine.models.denoiser import Denoiser
from imagine.models.identity_adapter import IdentityAdapter
from imagine.models.upsampler import Upsampler
from training.estimates import (
    DRAWN,
    base_revision,
    estimates_path,
    make_estimates,
    read_estimates,
    shrink,
)
from training.people.cache import PhotoRecord, write_shard

LANDMARKS = [[100.0, 110.0], [156.0, 110.0], [128.0, 148.0], [108.0, 180.0], [148.0, 180.0]]


def record(person: int, photo: int, *, visible: bool = True) -> PhotoRecord:
    box = [68.0, 60.0, 188.0, 210.0]
    return PhotoRecord(person, photo, photo, "selfie", "me", {}, LANDMARKS, box, visible)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    denoiser = Denoiser(width=64, depth=1, heads=2, identity_width=32, bottleneck=16)
    # It answers with grey, whatever it is shown.
    save_model(folder, denoiser, IdentityAdapter(width=32, depth=1, heads=2, bottleneck=16))
    return folder


def test_every_photo_of_a_shard_gets_what_the_model_makes_of_it_once(model, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 256, 256, 3), dtype=np.uint8)
    records = [record(0, 0), record(0, 1), record(0, 2, visible=False), record(1, 0), record(0, 3)]
    write_shard(tmp_path, "shard-0000000", images, records)
    assert make_estimates(tmp_path, model) == 1
    assert make_estimates(tmp_path, model) == 0
    made = read_estimates(estimates_path(tmp_path, "shard-0000000", base_revision(model)))
    estimates = made.pictures
    assert estimates.shape == (5, 128, 128, 3)
    assert made.steps_left.astype(bool).tolist() == [True, True, False, False, True]
    # Not to be trusted, and without another photo of the same person: left out.
    assert [bool(estimate.any()) for estimate in estimates] == [True, True, False, False, True]
    assert np.abs(estimates[0].astype(int) - 128).max() <= 1


def test_photos_of_the_same_people_at_other_ages_are_drawn_with_the_plain_selfies(model, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
    halved = [[x / 2, y / 2] for x, y in LANDMARKS]
    plain = [replace(record(7, photo), landmarks=halved) for photo in range(2)]
    aged = [replace(photo, kind="aged") for photo in plain[:1]]
    write_shard(tmp_path, "shard-0000000", images, plain)
    write_shard(tmp_path, "shard-0000000-switched", images[:1], aged)
    assert make_estimates(tmp_path, model, kind=DRAWN) == 2
    # Alone in its shard: the selfies it was drawn with are those of the other one.
    path = estimates_path(tmp_path, "shard-0000000-switched", base_revision(model), DRAWN)
    drawn = read_estimates(path)
    assert drawn.pictures.any()
    assert drawn.steps_left[0] in DRAWN.steps_left


def test_an_upsampler_in_the_folder_leaves_the_estimates_valid(model, tmp_path):
    before = base_revision(model)
    save_upsampler(model, Upsampler(widths=(16, 16, 16), heads=2, identity_width=32))
    assert base_revision(model) == before


def test_shrinking_takes_the_mean_of_the_pixels():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, 0], image[:2, 1] = 100, 200
    assert shrink(image, 2)[0, 0].tolist() == [150, 150, 150]
