from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imagine.core import Face, ImageArray
from imagine.identity import FACE_ENCODERS, FaceDetector, FaceEncoder
from imagine.settings import Settings


@pytest.fixture(scope="module", params=FACE_ENCODERS.names())
def encoder(request: pytest.FixtureRequest, settings: Settings) -> FaceEncoder:
    return FACE_ENCODERS.get(request.param).load(settings)


@pytest.fixture(scope="module")
def face(dlib_detector: FaceDetector, astronaut: ImageArray) -> Face:
    return dlib_detector.detect(astronaut)[0]


def test_it_keeps_the_contract(encoder: FaceEncoder) -> None:
    assert isinstance(encoder, FaceEncoder)
    assert encoder.name in FACE_ENCODERS.names()
    assert encoder.licence
    assert encoder.same_person_distance > 0


def test_a_face_becomes_one_finite_vector(
    encoder: FaceEncoder, astronaut: ImageArray, face: Face
) -> None:
    vector = encoder.embed(astronaut, face)
    assert vector.ndim == 1 and vector.dtype == np.float32
    assert np.isfinite(vector).all() and np.any(vector)


def test_the_same_face_gives_the_same_vector_in_any_thread(
    encoder: FaceEncoder, astronaut: ImageArray, face: Face
) -> None:
    alone = encoder.embed(astronaut, face)
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: encoder.embed(astronaut, face), range(4)))
    assert all(np.array_equal(vector, alone) for vector in together)


def test_distance_is_nothing_to_oneself_and_the_same_both_ways(encoder: FaceEncoder) -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    assert encoder.distance(first, first) == 0.0
    assert encoder.distance(first, second) == encoder.distance(second, first) > 0


def test_half_the_light_does_not_make_another_person(
    encoder: FaceEncoder, astronaut: ImageArray, face: Face
) -> None:
    bright, dim = encoder.embed(astronaut, face), encoder.embed(astronaut // 2, face)
    assert 0 < encoder.distance(bright, dim) < encoder.same_person_distance
