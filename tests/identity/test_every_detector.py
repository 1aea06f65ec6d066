from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imagine.core import ImageArray
from imagine.errors import UnknownName
from imagine.identity import FACE_DETECTORS, FaceDetector
from imagine.settings import Settings
from tests.identity.tiny_pack import bright_cells


@pytest.fixture(scope="module", params=FACE_DETECTORS.names())
def detector(request: pytest.FixtureRequest, settings: Settings) -> FaceDetector:
    return FACE_DETECTORS.get(request.param).load(settings)


@pytest.fixture
def two_faces(detector: FaceDetector, astronaut: ImageArray) -> ImageArray:
    if detector.name == "insightface":
        return bright_cells((14, 5), (4, 12))
    return np.hstack([astronaut, astronaut])


def test_it_keeps_the_contract(detector: FaceDetector) -> None:
    assert isinstance(detector, FaceDetector)
    assert detector.name in FACE_DETECTORS.names()
    assert detector.licence


def test_faces_come_from_left_to_right(detector: FaceDetector, two_faces: ImageArray) -> None:
    faces = detector.detect(two_faces)
    assert len(faces) == 2
    assert faces[0].box[0] < faces[1].box[0]


def test_landmarks_are_eyes_nose_and_mouth_in_the_box(
    detector: FaceDetector, two_faces: ImageArray
) -> None:
    for face in detector.detect(two_faces):
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < nose[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]
        assert np.all(face.landmarks >= face.box[:2]) and np.all(face.landmarks <= face.box[2:])


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 400, 3), (200, 300, 3)])
def test_a_picture_of_nothing_has_no_faces(
    detector: FaceDetector, shape: tuple[int, int, int]
) -> None:
    assert detector.detect(np.full(shape, 30, np.uint8)) == []


def test_the_picture_is_left_as_it_was(detector: FaceDetector, two_faces: ImageArray) -> None:
    before = two_faces.copy()
    detector.detect(two_faces)
    assert np.array_equal(two_faces, before)


def test_threads_may_share_it(detector: FaceDetector, two_faces: ImageArray) -> None:
    alone = [face.box for face in detector.detect(two_faces)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector.detect, [two_faces] * 6))
    assert all([face.box for face in faces] == alone for faces in together)


def test_an_unknown_detector_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="dlib, insightface"):
        FACE_DETECTORS.get("crystal_ball")
