import numpy as np
import pytest
import torch

from imagine.backends.embedded import TURN_FOLDER
from imagine.backends.weight_files import OWN_MODELS
from imagine.models.face_turn import FaceTurn, differences
from training.people.cache import PhotoRecord, mark_look, shard_name, write_shard
from training.turning import add_turn, teach, true_turn


def record(photo, nose):
    """A photo of 128 pixels whose nose is that far off the middle, in eye distances."""
    landmarks = [[48.0, 56.0], [80.0, 56.0], [64.0 + 32 * nose, 76.0], [52.0, 92.0], [76.0, 92.0]]
    return PhotoRecord(0, photo, 0, "scene", "a photo", {}, landmarks, [40, 40, 90, 100], True)


def picture(one):
    image = np.full((128, 128, 3), 128, np.uint8)
    for left in (44, 76):
        image[52:60, left : left + 8] = 20
    nose = round(one.landmarks[2][0])
    image[62:80, nose - 3 : nose + 3] = 240
    return image


def test_the_truth_is_the_nose_off_the_middle_in_eye_distances():
    assert true_turn(record(0, 0.25)) == pytest.approx(0.25)
    assert true_turn(record(0, -0.1)) == pytest.approx(-0.1)


def test_least_squares_find_the_reading_that_made_the_turns():
    torch.manual_seed(0)
    turn = FaceTurn()
    seen = torch.randn(4000, turn.read.in_features) * 10
    taught = teach(seen, (seen @ turn.read.weight[0]).detach())
    assert torch.allclose(taught.read.weight, turn.read.weight, atol=1e-3)


def test_a_model_is_told_which_selfies_look_aside(tmp_path):
    noses = np.random.default_rng(0).uniform(-0.3, 0.3, 200)
    records = [record(photo, nose) for photo, nose in enumerate(noses)]
    mark_look(tmp_path / "people")
    images = np.stack([picture(one) for one in records])
    write_shard(tmp_path / "people", shard_name(0), images, records)
    assert add_turn(tmp_path / "model", tmp_path / "people") > 0.8
    read = FaceTurn.from_pretrained(tmp_path / "model" / TURN_FOLDER, **OWN_MODELS)
    assert read.read.in_features == differences(torch.zeros(1, 3, 96, 96)).shape[1]


def test_a_folder_without_photos_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"training\.people\.cache"):
        add_turn(tmp_path / "model", tmp_path / "people")
