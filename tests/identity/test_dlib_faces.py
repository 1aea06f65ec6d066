import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagine.core import ImageArray
from imagine.errors import CorruptWeights, MissingExtra, MissingWeights
from imagine.identity import FaceDetector, FaceEncoder, dlib_faces
from imagine.settings import Settings


@pytest.mark.parametrize("degrees", [20, 45, 90, 180, 300])
def test_a_tilted_face_is_found_and_known_again(
    dlib_detector: FaceDetector, dlib_encoder: FaceEncoder, astronaut: ImageArray, degrees: int
) -> None:
    tilted = np.array(Image.fromarray(astronaut).rotate(degrees, fillcolor=(128, 128, 128)))
    (upright,), (face,) = dlib_detector.detect(astronaut), dlib_detector.detect(tilted)
    distance = dlib_encoder.distance(
        dlib_encoder.embed(astronaut, upright), dlib_encoder.embed(tilted, face)
    )
    assert distance < 0.25  # measured 0.00 to 0.14; a stranger is beyond 0.6


def test_landmarks_of_a_tilted_face_are_mapped_back(
    dlib_detector: FaceDetector, astronaut: ImageArray
) -> None:
    (upright,) = dlib_detector.detect(astronaut)
    (face,) = dlib_detector.detect(np.ascontiguousarray(np.rot90(astronaut, 2)))
    expected = astronaut.shape[0] - upright.landmarks
    assert np.abs(face.landmarks - expected).max() < 4.0  # pixels, of 43 between the eyes


@pytest.mark.parametrize("side", [96, 128, 512, 3000])
def test_a_face_is_found_in_small_and_large_pictures(
    dlib_detector: FaceDetector, astronaut: ImageArray, side: int
) -> None:
    (original,) = dlib_detector.detect(astronaut)
    picture = np.array(Image.fromarray(astronaut).resize((side, side)))
    (face,) = dlib_detector.detect(picture)
    expected = original.landmarks * side / astronaut.shape[0]
    assert np.abs(face.landmarks - expected).max() < 5.0 * side / astronaut.shape[0]


def test_six_people_are_found_and_kept_apart(
    dlib_detector: FaceDetector, dlib_encoder: FaceEncoder, group_photo: ImageArray
) -> None:
    vectors = [dlib_encoder.embed(group_photo, f) for f in dlib_detector.detect(group_photo)]
    assert len(vectors) == 6
    strangers = [dlib_encoder.distance(a, b) for i, a in enumerate(vectors) for b in vectors[:i]]
    assert min(strangers) > dlib_encoder.same_person_distance


@pytest.mark.parametrize("degrees", [0, 3, 5, 10])
def test_the_helmet_beside_the_astronaut_is_not_a_face(
    dlib_detector: FaceDetector, astronaut: ImageArray, degrees: int
) -> None:
    tilted = np.array(Image.fromarray(astronaut).rotate(degrees, fillcolor=(128, 128, 128)))
    assert len(dlib_detector.detect(tilted)) == 1


def test_a_missing_weight_package_names_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlib_faces, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match="pip install face-recognition-models"):
        dlib_faces.DlibEncoder.load(Settings())


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "shape.dat"
    path.write_bytes(b"not weights")
    with pytest.raises(CorruptWeights, match=r"shape\.dat .*11 bytes"):
        dlib_faces.DlibDetector(path)


def test_missing_dlib_names_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingExtra, match="pip install dlib-bin"):
        dlib_faces.DlibDetector.load(Settings())


def test_the_non_commercial_landmarks_are_never_opened() -> None:
    text = Path(dlib_faces.__file__).read_text()
    assert "shape_predictor_68" not in text
    assert "import face_recognition_models" not in text
