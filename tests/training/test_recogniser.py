import argparse

import numpy as np
import pytest
import torch

from imagine.backends.chooser import Chooser
from imagine.backends.embedded import CHOOSER_FOLDER, LOCATOR_FOLDER
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, aligned
from tests.training.tiny_photos import numbered_record
from training.choosing import add_chooser
from training.people.cache import write_shard
from training.recogniser import jitter, load_recogniser, mirrored, train

THETAS = torch.tensor([[[0.4, -0.1, 0.2], [0.1, 0.4, -0.1]]])


def test_the_face_of_a_mirrored_picture_is_the_mirrored_face():
    picture = torch.rand(1, 3, 64, 64)
    face = aligned(picture, THETAS, 32)
    assert torch.allclose(aligned(picture.flip(3), mirrored(THETAS), 32), face.flip(3), atol=1e-4)


def test_jitter_moves_crops_a_little_and_each_differently():
    torch.manual_seed(0)
    moved = jitter(THETAS.repeat(50, 1, 1))
    assert moved.std(0).min() > 0.005
    assert (moved - THETAS).abs().max() < 0.2


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A recogniser and a locator after a second each."""
    folder = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
    records = [numbered_record(number, 4, scale=0.5) for number in range(8)]
    write_shard(folder, "shard-0000000", images, records)
    out = folder / "recogniser"
    given = argparse.Namespace(
        data=folder, out=out, device="cpu", minutes=0.06, batch_size=8, width=8, seed=0,
        start_from=None, locator=True,
    )  # fmt: skip
    train(given)
    return out


def test_what_was_taught_is_read_back_frozen(taught):
    recogniser = load_recogniser(taught, "cpu")
    assert not any(parameter.requires_grad for parameter in recogniser.parameters())
    vectors, maps = recogniser(torch.rand(3, 3, 80, 80))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert len(maps) == 4


def test_a_model_is_given_its_chooser(taught, tmp_path):
    attributes = AttributeJudge({"expression": ["sad", "smiling"]}, width=8, features=16)
    attributes.save_pretrained(tmp_path / "attributes")
    add_chooser(tmp_path / "model", taught, tmp_path / "attributes")
    locator = FaceLocator.from_pretrained(tmp_path / "model" / LOCATOR_FOLDER, **OWN_MODELS)
    chooser = Chooser.load(tmp_path / "model" / CHOOSER_FOLDER, locator)
    face = chooser.describe(np.full((2, 128, 128, 3), 90, np.uint8))
    merits = chooser.merits(torch.rand(3, 3, 128, 128) * 2 - 1, face, {"expression": ("sad",)}, {})
    assert merits.shape == (3,)
    assert len(set(merits.tolist())) == 3
