import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from imagine.backends.embedded import EmbeddedBackend, save_model
from imagine.models.face_recogniser import FaceRecogniser
from training.people.cache import PhotoRecord, write_shard
from training.train_mini import SHARES, commands
from training.trainer import MODEL_SIZES, load_state, save_state, schedule


def record(person: int, photo: int) -> PhotoRecord:
    return PhotoRecord(
        person_seed=person,
        photo=photo,
        scene_seed=photo,
        kind="selfie" if photo < 2 else "scene",
        caption=f"me in place {photo}",
        facts={},
        landmarks=[[50, 55], [78, 55], [64, 74], [54, 90], [74, 90]],
        face_box=[34.0, 30.0, 94.0, 105.0],
        visible=True,
    )


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    images = np.random.default_rng(0).integers(0, 255, (16, 128, 128, 3), dtype=np.uint8)
    records = [record(person, photo) for person in range(4) for photo in range(4)]
    write_shard(folder, "shard-0000000", images, records)
    return folder


def run_stage(stage: str, data: Path, run: Path, *extra: str) -> None:
    command = [sys.executable, "-m", f"training.stages.{stage}", "--data", str(data)]
    command += ["--run", str(run), "--minutes", "0.02", "--model", "tiny", "--batch-size", "4"]
    subprocess.run([*command, *extra], check=True, capture_output=True)


def test_stages_continue_one_run_and_export_a_model_that_loads(photo_folder, tmp_path):
    run, export = tmp_path / "run", tmp_path / "export"
    run_stage("reconstruct", photo_folder, run)
    run_stage("pairs", photo_folder, run, "--export", str(export))
    first, second = map(json.loads, (run / "stages.jsonl").read_text().splitlines())
    assert (first["stage"], second["stage"]) == ("reconstruct", "pairs")
    assert second["step"] > first["step"] > 0
    assert (run / "loss.png").exists()
    assert list(run.glob("sheet-*.png"))
    picture = EmbeddedBackend.load(export).draw("me", None, num_inference_steps=2)
    assert picture.shape == (128, 128, 3)


def test_a_rewarded_stage_keeps_its_critic(photo_folder, tmp_path):
    torch.manual_seed(0)
    recogniser, run = tmp_path / "recogniser", tmp_path / "run"
    FaceRecogniser().save_pretrained(recogniser)
    words = ["--rewarded", "2", "--critic-weight", "0.1", "--reward-recognisers", str(recogniser)]
    run_stage("pairs", photo_folder, run, *words)
    run_stage("pairs", photo_folder, run, *words)
    steps = [json.loads(line)["step"] for line in (run / "stages.jsonl").read_text().splitlines()]
    kept = torch.load(run / "critic.pt", weights_only=True)
    assert kept["steps"] == steps[1] > steps[0] > 0


def test_a_checkpoint_restores_weights_averages_and_counters(tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path, "tiny", "cpu")
    state.step, state.images_seen = 7, 28
    save_state(tmp_path, state)
    torch.manual_seed(1)
    again = load_state(tmp_path, "tiny", "cpu")
    assert (again.step, again.images_seen) == (7, 28)
    for name, tensor in state.denoiser.state_dict().items():
        assert torch.equal(tensor, again.denoiser.state_dict()[name]), name


def test_a_new_run_can_start_from_an_exported_model(tmp_path):
    torch.manual_seed(0)
    state = load_state(tmp_path / "one", "tiny", "cpu")
    save_model(tmp_path / "export", state.denoiser, state.adapter)
    again = load_state(tmp_path / "two", "mini", "cpu", start_from=tmp_path / "export")
    assert again.step == 0
    for name, tensor in state.denoiser.state_dict().items():
        found = again.averaged_denoiser.state_dict()[name]
        torch.testing.assert_close(found, tensor, atol=1e-3, rtol=1e-3)  # half precision


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.02), (0.05, 0.5), (0.5, 1.0), (0.9, 0.5), (1.0, 0.0)]
)
def test_the_learning_rate_rises_stays_and_falls(progress, factor):
    assert schedule(progress, warm=0.1, decay=0.2) == pytest.approx(factor)


def test_the_whole_recipe_runs_every_stage_in_the_papers_order(tmp_path):
    class Arguments:
        run, hours, people, workers, model, device = tmp_path, 1.0, 64, 1, "mini", "cpu"

    modules = [line[2] for line in commands(Arguments())]  # type: ignore[arg-type]
    stages = [module.split(".")[-1] for module in modules if "stages" in module]
    assert stages == [
        "reconstruct",
        "pairs",
        "quality_reconstruct",
        "quality_pairs",
        "quality_pairs",
        "upsample",
        "refine",
    ]
    assert modules[-1] == "training.turning"
    assert sum(SHARES.values()) == pytest.approx(1.0)
    assert set(MODEL_SIZES) >= {"mini", "base", "tiny"}
