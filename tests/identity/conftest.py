from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from imagine.core import ImageArray
from imagine.identity import FACE_DETECTORS, FACE_ENCODERS, FaceDetector, FaceEncoder
from imagine.settings import Settings
from tests.identity.tiny_pack import build_tiny_pack


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    pack = build_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")
    return Settings(insightface_pack=pack)


@pytest.fixture(scope="session")
def dlib_detector(settings: Settings) -> FaceDetector:
    return FACE_DETECTORS.get("dlib").load(settings)


@pytest.fixture(scope="session")
def dlib_encoder(settings: Settings) -> FaceEncoder:
    return FACE_ENCODERS.get("dlib").load(settings)


@pytest.fixture(scope="session")
def astronaut() -> ImageArray:
    """The public-domain portrait of Eileen Collins that comes with scikit-image, 512x512."""
    picture = np.array(skimage.data.astronaut())
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="session")
def group_photo() -> ImageArray:
    """Six people, read from the insightface package where it lies."""
    spec = find_spec("insightface")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "data" / "images" / "t1.jpg"
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))
