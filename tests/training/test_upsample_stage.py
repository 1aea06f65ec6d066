import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.embedded import EmbeddedBackend, save_model
from training.people.cache import PhotoRecord, write_shard
from training.side_networks import save_state
from training.stages.upsample import load_state, make_optimizer
from training.trainer import load_state as load_model

LANDMARKS = [[100.0, 110.0], [156.0, 110.0], [128.0, 148.0], [108.0, 180.0], [148.0, 180.0]]


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    images = np.random.default_rng(0).integers(0, 255, (6, 256, 256, 3), dtype=np.uint8)
    box = [68.0, 60.0, 188.0, 210.0]
    records = [
        PhotoRecord(person, photo, photo, "selfie", "me", {}, LANDMARKS, box, visible=True)
        for person in range(3)
        for photo in range(2)
    ]
    write_shard(folder, "shard-0000000", images, records)
    return folder


def test_the_stage_makes_its_inputs_trains_goes_on_and_adds_itself_to_a_model(
    photo_folder, tmp_path
):
    model, run = tmp_path / "model", tmp_path / "run"
    state = load_model(tmp_path / "nothing", "tiny", "cpu")
    save_model(model, state.denoiser, state.adapter)
    command = [sys.executable, "-m", "training.stages.upsample", "--data", str(photo_folder)]
    command += ["--model", str(model), "--run", str(run), "--minutes", "0.01", "--size", "tiny"]
    for extra in ([], ["--export", str(model)]):
        subprocess.run([*command, "--batch-size", "2", *extra], check=True, capture_output=True)
    first, second = map(json.loads, (run / "stages.jsonl").read_text().splitlines())
    assert second["step"] > first["step"] > 0
    assert {"psnr_estimate_bicubic", "psnr_estimate_upsampled_eyes"} <= set(first)
    assert list(run.glob("upsampler-sheet-*.png"))
    picture = EmbeddedBackend.load(model).draw("me", None, num_inference_steps=2)
    assert picture.shape == (256, 256, 3)


def test_a_checkpoint_restores_weights_averages_and_counters(tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path, "tiny", 64, "cpu")
    state.step, state.images_seen = 7, 28
    save_state(tmp_path, state)
    torch.manual_seed(1)
    again = load_state(tmp_path, "tiny", 64, "cpu")
    assert (again.step, again.images_seen) == (7, 28)
    for name, tensor in state.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_gates_learn_ten_times_faster(tmp_path):
    state = load_state(tmp_path, "tiny", 64, "cpu")
    others, gates = make_optimizer(state.network, 0.001).param_groups
    assert len(gates["params"]) == 3
    assert gates["initial_lr"] == pytest.approx(10 * others["initial_lr"])
