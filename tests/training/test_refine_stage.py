import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.models.attribute_judge import AttributeJudge
from imagine.models.face_recogniser import FaceLocator, FaceRecogniser, aligned
from imagine.models.face_refiner import FaceRefiner
from tests.training.tiny_photos import NoWords, numbered_record
from training.estimates import DRAWN, estimates_path
from training.people.cache import write_shard
from training.refining import (
    FAR_STEPS,
    RefiningFaces,
    Teacher,
    correction,
    feature_weights,
    refining_loss,
)
from training.side_networks import save_state
from training.stages.refine import load_state
from training.trainer import load_state as load_model

PEOPLE = 4


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    images = np.random.default_rng(0).integers(0, 255, (4 * PEOPLE, 128, 128, 3), dtype=np.uint8)
    write_shard(folder, "shard-0000000", images, [numbered_record(n, 4) for n in range(4 * PEOPLE)])
    return folder


@pytest.fixture(scope="module")
def locator():
    """One that takes the middle of every picture for the face."""
    locator = FaceLocator(width=8).eval().requires_grad_(False)
    torch.nn.init.zeros_(locator.head.weight)
    locator.head.bias.copy_(torch.tensor([0.4, 0.0, 0.0, 0.1]))
    return locator


@pytest.fixture(scope="module")
def drawn_folder(photo_folder, tmp_path_factory) -> Path:
    """The photos with drawings beside them: half near, half far, two not drawn at all."""
    import shutil

    folder = tmp_path_factory.mktemp("drawn") / "photos"
    shutil.copytree(photo_folder, folder)
    left = np.tile([2, FAR_STEPS], 2 * PEOPLE)
    left[:2] = 0
    pictures = np.random.default_rng(1).integers(0, 255, (4 * PEOPLE, 128, 128, 3), dtype=np.uint8)
    path = estimates_path(folder, "shard-0000000", "some", DRAWN)
    np.savez(path, pictures=pictures, steps_left=left)
    return folder


@pytest.fixture
def faces(drawn_folder, locator) -> RefiningFaces:
    return RefiningFaces(drawn_folder, "some", NoWords(), locator, "cpu", 0)


@pytest.fixture
def refiner() -> FaceRefiner:
    torch.manual_seed(0)
    refiner = FaceRefiner(widths=(8, 16, 16), heads=2, crop_size=32)
    torch.nn.init.normal_(refiner.leave.weight, std=0.1)
    return refiner


def test_people_kept_back_and_photos_not_drawn_are_not_trained_on(faces):
    # The last of the four people is kept back; of the first, two photos were not drawn.
    assert faces.face_count == 10
    assert len(faces.kept_back) == 2
    for _ in range(20):
        assert not (faces.sample_refining(4, 32).people == 3).any()


def test_near_rows_are_to_become_the_photo_and_far_rows_keep_what_was_drawn(faces):
    batch = faces.whole([2, 3], 32)
    assert batch.is_far.tolist() == [False, True]
    assert torch.equal(batch.true[1], batch.faces[1])
    assert torch.equal(batch.kept[1], batch.pictures[1])
    assert not torch.equal(batch.true[0], batch.faces[0])
    assert torch.equal(batch.faces, aligned(batch.pictures, batch.thetas, 32))


def test_some_rows_are_to_stay_as_they_are_and_some_of_those_hold_no_face(faces):
    batches = [faces.sample_refining(8, 32) for _ in range(40)]
    stays = torch.cat([batch.weights > 1 for batch in batches])
    far = torch.cat([batch.is_far for batch in batches])
    has_face = torch.cat([batch.has_face for batch in batches])
    same = torch.cat([(b.faces - b.true).abs().amax((1, 2, 3)) < 1e-6 for b in batches])
    assert 0 < stays.sum() < 80
    assert torch.equal(same, stays | far)
    assert (~has_face).any() and not (~has_face & ~stays).any()


def test_the_loss_is_least_for_the_truth_and_asks_for_the_person(faces, refiner):
    torch.manual_seed(0)
    batch = faces.whole([2, 6, 10], 32)
    perfect = (batch.true - batch.faces).clone()
    assert float(refining_loss(perfect, batch)) < 1e-6
    assert float(refining_loss(torch.zeros_like(perfect), batch)) > 0.1
    recogniser = FaceRecogniser(width=8, crop_size=32).requires_grad_(False)
    known = torch.nn.functional.normalize(torch.randn(PEOPLE, 160), dim=1)
    judge = AttributeJudge({"expression": ["sad", "smiling"]}, width=8, features=16)
    teachers = Teacher(recogniser, known, judge.requires_grad_(False))
    loss = refining_loss(correction(refiner, batch), batch, teachers)
    loss.backward()
    assert all(parameter.grad is not None for parameter in refiner.parameters())
    own = recogniser(batch.true)[0]
    known[batch.people] = own
    torch.manual_seed(1)
    helped = refining_loss(perfect, batch, Teacher(recogniser, known))
    torch.manual_seed(1)
    stranger = Teacher(recogniser, known.roll(1, 0))
    assert helped < refining_loss(perfect, batch, stranger)


def test_eyes_count_most_and_what_is_beside_the_face_least():
    weights = feature_weights(96)[0, 0]
    assert weights[45, 35] == weights.max() == 3.0
    assert weights[2, 2] == weights.min() < weights[60, 30] == 1.0


def test_the_stage_draws_trains_goes_on_and_adds_itself_to_a_model(photo_folder, locator, tmp_path):
    model, run = tmp_path / "model", tmp_path / "run"
    state = load_model(tmp_path / "nothing", "tiny", "cpu")
    save_model(model, state.denoiser, state.adapter)
    locator.save_pretrained(tmp_path / "locator")
    FaceRecogniser(width=8).save_pretrained(tmp_path / "recogniser")
    command = [sys.executable, "-m", "training.stages.refine", "--data", str(photo_folder)]
    command += ["--model", str(model), "--run", str(run), "--minutes", "0.01", "--size", "tiny"]
    command += ["--locator", str(tmp_path / "locator"), "--batch-size", "4"]
    command += ["--recognisers", str(tmp_path / "recogniser")]
    for extra in ([], ["--export", str(model)]):
        subprocess.run([*command, *extra], check=True, capture_output=True)
    first, second = map(json.loads, (run / "stages.jsonl").read_text().splitlines())
    assert second["step"] > first["step"] > 0
    assert {"error_drawn", "error_refined", "recognised_true_0"} <= set(first)
    assert list(run.glob("refiner-sheet-*.png"))
    crops = np.random.default_rng(0).integers(0, 255, (1, 96, 96, 3), dtype=np.uint8)
    assert EmbeddedBackend.load(model).encode_person(crops).selfies is not None


def test_a_checkpoint_restores_weights_averages_and_counters(tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path, "tiny", "cpu")
    state.step, state.images_seen = 7, 28
    save_state(tmp_path, state)
    torch.manual_seed(1)
    again = load_state(tmp_path, "tiny", "cpu")
    assert (again.step, again.images_seen) == (7, 28)
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name
