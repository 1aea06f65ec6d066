"""models plan, models doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imagine.cli import needs
from tests.backends.tiny_flux2_klein import save_tiny
from tests.cli.conftest import Run


def test_a_plan_reads_as_plain_words(run: Run) -> None:
    done = run("models", "plan", "sdxl_faceid", "--gpu", "12GB")
    assert done.status == 0 and not done.err
    assert done.out.startswith("sdxl_faceid at 1024x1024 pixels on 12.0 GB:")
    assert "precision: float16" in done.out and "batch: 13 rows" in done.out


def test_smaller_pictures_are_planned_with_more_rows(run: Run) -> None:
    large, small = (
        json.loads(run("models", "plan", "sdxl_faceid", "--gpu", "8GB", *size, "--json").out)
        for size in ((), ("--size", "512"))
    )
    assert small["rows"] > large["rows"] and (small["size"], large["size"]) == (512, 1024)


def test_a_plan_may_be_allowed_eight_bits(run: Run) -> None:
    words = ("models", "plan", "flux2_klein", "--gpu", "13GB", "--json")
    assert json.loads(run(*words).out)["storage"] == "bfloat16"
    assert json.loads(run(*words, "--float8").out)["storage"] == "float8"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nonsense", "--gpu", "12GB"), "Known: embedded"),
        (("fake", "--gpu", "12GB"), "no memory figures"),
        (("flux2_klein", "--gpu", "much"), "Write 12GB"),
        (("flux2_klein", "--gpu", "1GB"), "does not fit in 1.0 GB"),
        (("flux2_klein", "--gpu", "24GB", "--size", "1001"), "multiple of 16"),
        (("flux2_klein", "--gpu", "24GB", "--dtype", "int3"), "Known: bfloat16"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence_and_status_2(
    run: Run, words: tuple[str, ...], expected: str
) -> None:
    done = run("models", "plan", *words)
    assert done.status == 2 and expected in done.err and not done.out


def test_without_a_gpu_its_size_must_be_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("models", "plan", "embedded")
    assert done.status == 2 and "--gpu 12GB" in done.err


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No assets, no hub cache, no face packs."""
    monkeypatch.setenv("IMAGINE_ASSETS_DIR", str(tmp_path / "assets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("IMAGINE_INSIGHTFACE_PACK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "size"), [("sd15_faceid", "97 MB"), ("sdxl_faceid", "1.1 GB")])
def test_doctor_names_what_a_faceid_backend_lacks_its_licence_size_and_command(
    run: Run, empty_machine: Path, name: str, size: str
) -> None:
    done = run("models", "doctor", name)
    assert done.status == 5
    assert "missing  base Stable Diffusion" in done.out
    assert f"missing  adapter IP-Adapter FaceID ({size} in half precision" in done.out
    assert "LicenseRef-IP-Adapter-FaceID-NonCommercial, research-only" in done.out
    assert "convert_adapter" in done.out and "hf download h94/IP-Adapter-FaceID" in done.out
    assert "missing  face pack buffalo_l (0.3 GB" in done.out
    assert "Not for commercial use" in done.out


def test_doctor_says_how_to_get_klein_and_that_it_is_free(run: Run, empty_machine: Path) -> None:
    done = run("models", "doctor", "flux2_klein")
    assert done.status == 5
    assert "missing  base FLUX.2 klein 4B (16 GB, Apache-2.0, permissive)" in done.out
    assert "hf download black-forest-labs/FLUX.2-klein-4B" in done.out
    assert "Free for commercial use.\n1 of 1 parts are missing." in done.out


def test_doctor_finds_klein_and_says_that_this_size_of_it_is_not_vouched_for(
    run: Run, empty_machine: Path
) -> None:
    save_tiny(empty_machine / "assets" / "models" / "flux2-klein")
    done = run("models", "doctor", "flux2_klein", "--json")
    assert done.status == 0
    (need,) = json.loads(done.out)["needs"]
    assert need["is_here"] and need["licence"] == "LicenseRef-unknown, non-commercial"
    assert json.loads(done.out)["is_free"] is False


def test_doctor_refuses_a_pickle_where_weights_should_be(run: Run, empty_machine: Path) -> None:
    folder = save_tiny(empty_machine / "assets" / "models" / "flux2-klein")
    (weights,) = (folder / "vae").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    done = run("models", "doctor", "flux2_klein")
    assert done.status == 5 and "is a pickle" in done.out


def test_doctor_asks_for_clip_when_the_adapter_looks_at_faces(
    run: Run, empty_machine: Path
) -> None:
    adapter = empty_machine / "assets" / "models" / "sd15-faceid" / "ip_adapter" / "a.safetensors"
    adapter.parent.mkdir(parents=True)
    keys = (
        "image_proj.proj.0.weight",
        "image_proj.norm.weight",
        "image_proj.perceiver_resampler.proj_in.weight",
        "ip_adapter.1.to_k_ip.weight",
    )
    save_file({key: torch.zeros(2, 2) for key in keys}, adapter)
    done = run("models", "doctor", "sd15_faceid")
    assert "ok       adapter" in done.out
    assert "missing  image encoder CLIP ViT-H of LAION (1.3 GB in half precision, MIT)" in done.out


def test_doctor_names_a_missing_package_with_its_pip_command(
    run: Run, empty_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "find_spec", lambda name: None)
    done = run("models", "doctor", "sd15_faceid")
    assert "missing  package insightface" in done.out
    assert "pip install 'imagine-yourself[insightface]'" in done.out


def test_the_backend_that_paints_needs_nothing(run: Run, empty_machine: Path) -> None:
    done = run("models", "doctor", "fake")
    assert done.status == 0 and "fake has everything it needs." in done.out


def test_doctor_of_embedded_names_both_parts(run: Run, empty_machine: Path) -> None:
    done = run("models", "doctor", "embedded")
    assert done.status == 5
    assert "missing  base imagine-mini (51 MB, Apache-2.0, permissive)" in done.out
    assert "git checkout -- assets/models" in done.out
    assert "text encoder all-MiniLM-L6-v2 (90 MB, Apache-2.0, permissive)" in done.out


def test_doctor_of_an_unknown_backend_lists_the_known(run: Run) -> None:
    done = run("models", "doctor", "nonsense")
    assert done.status == 2 and "Known: embedded" in done.err
