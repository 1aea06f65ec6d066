"""What the real networks say of the sample people, as the enrolment rules ask them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.identity import build_identity
from imagine.service.loaded_models import LoadedModels
from imagine.service.settings import ServiceSettings
from tests.service.conftest import places_in

REAL_AGES = LoadedModels.apparent_ages
AHEAD = 9.0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> LoadedModels:
    return LoadedModels(ServiceSettings(backend="fake"), places_in(tmp_path_factory.mktemp("m")))


def sample(models: LoadedModels, person: str, number: int) -> Path:
    return models.settings.assets_directory / "people" / person / f"selfie_{number}.jpg"


def pixels(path: Path) -> ImageArray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_straight_face_is_described_and_an_empty_frame_shows_nobody(
    models: LoadedModels,
) -> None:
    frame = models.measure_frame(pixels(sample(models, "person-b", 1)), AHEAD)
    assert frame.face_count == 1 and abs(frame.yaw_degrees) <= AHEAD
    assert frame.embedding is not None and frame.embedding.shape == (models.embedding_size,)
    nobody = models.measure_frame(np.full((480, 640, 3), 90, np.uint8), AHEAD)
    assert (nobody.face_count, nobody.embedding) == (0, None)


def test_two_faces_are_counted(models: LoadedModels) -> None:
    one = pixels(sample(models, "person-b", 1))
    assert models.measure_frame(np.hstack([one, one]), AHEAD).face_count == 2


def test_a_mirrored_face_is_turned_the_other_way_and_not_described_when_turned(
    models: LoadedModels,
) -> None:
    image = pixels(sample(models, "person-b", 1))
    yaw = models.measure_frame(image, AHEAD).yaw_degrees
    mirrored = models.measure_frame(image[:, ::-1].copy(), AHEAD).yaw_degrees
    assert np.sign(yaw) != np.sign(mirrored) or abs(yaw) + abs(mirrored) < 4.0
    assert models.measure_frame(image, 0.0).embedding is None


def test_ages_of_crops_are_near_those_of_whole_photos(models: LoadedModels) -> None:
    detector, encoder = models.faces
    photos = [sample(models, "person-c", number) for number in (1, 2)]
    face = build_identity(photos, detector, encoder, models.settings)
    assert all(30.0 < age < 60.0 for age in REAL_AGES(models, face))
