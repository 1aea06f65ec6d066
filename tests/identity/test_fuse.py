from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imagine.core import CROP_SIZE, Identity, ImageArray, PhotoVerdict
from imagine.errors import (
    DifferentPeople,
    InvalidInput,
    NoFaceFound,
    PoorPhoto,
    SeveralFaces,
    UnreadablePhoto,
)
from imagine.identity import (
    FaceDetector,
    FaceEncoder,
    PhotoSource,
    build_identity,
    check_photos,
    identity_of_crops,
    wipe,
)
from imagine.identity.fuse import fuse_embeddings
from imagine.settings import Settings

SETTINGS = Settings()


@pytest.fixture
def pair(
    dlib_detector: FaceDetector, dlib_encoder: FaceEncoder
) -> tuple[FaceDetector, FaceEncoder]:
    return dlib_detector, dlib_encoder


@pytest.fixture(scope="module")
def selfies(astronaut: ImageArray) -> list[ImageArray]:
    """Three unlike photos of one person."""
    nearer = Image.fromarray(astronaut[:300, 80:380]).resize((600, 600))
    return [astronaut, np.array(nearer), np.ascontiguousarray((astronaut * 0.7).astype(np.uint8))]


@pytest.fixture(scope="module")
def stranger(group_photo: ImageArray) -> ImageArray:
    return np.ascontiguousarray(group_photo[200:480, 640:860])


def test_three_selfies_become_one_identity(
    pair: tuple[FaceDetector, FaceEncoder], selfies: list[ImageArray]
) -> None:
    me = build_identity(selfies, *pair, SETTINGS)
    assert me.crops.shape == (3, CROP_SIZE, CROP_SIZE, 3)
    assert me.embeddings.shape == (3, 128) and me.embedding.shape == (128,)
    assert me.recogniser == "dlib"
    assert [report.name for report in me.reports] == ["selfie 1", "selfie 2", "selfie 3"]
    assert all(pair[1].distance(me.embedding, vector) < 0.3 for vector in me.embeddings)


def test_crops_from_elsewhere_are_measured_as_their_photos_were(
    pair: tuple[FaceDetector, FaceEncoder], selfies: list[ImageArray]
) -> None:
    me = build_identity(selfies, *pair, SETTINGS)
    again = identity_of_crops(me.crops, *pair, SETTINGS, me.reports)
    assert (again.fingerprint, again.reports) == (me.fingerprint, me.reports)
    for before, after in zip(me.embeddings, again.embeddings, strict=True):
        assert pair[1].distance(before, after) < 0.3


def test_crops_that_are_not_one_person_are_refused(
    pair: tuple[FaceDetector, FaceEncoder], selfies: list[ImageArray], stranger: ImageArray
) -> None:
    mine = build_identity(selfies[:1], *pair, SETTINGS).crops
    others = build_identity([stranger], *pair, SETTINGS).crops
    with pytest.raises(DifferentPeople, match="Face 1 and Face 2"):
        identity_of_crops(np.concatenate([mine, others]), *pair, SETTINGS)
    with pytest.raises(NoFaceFound, match="Face 2 of 2"):
        identity_of_crops(np.concatenate([mine, np.full_like(mine, 90)]), *pair, SETTINGS)
    with pytest.raises(InvalidInput, match="at most"):
        identity_of_crops(np.repeat(mine, 6, axis=0), *pair, SETTINGS)


def test_photos_keep_their_order(
    pair: tuple[FaceDetector, FaceEncoder], selfies: list[ImageArray]
) -> None:
    forward = build_identity(selfies, *pair, SETTINGS)
    backward = build_identity(selfies[::-1], *pair, SETTINGS)
    assert np.array_equal(forward.crops, backward.crops[::-1])
    assert forward.fingerprint != backward.fingerprint


def test_the_fingerprint_is_the_same_every_time(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray
) -> None:
    first, second = (build_identity([astronaut], *pair, SETTINGS) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64 and int(first.fingerprint, 16)


def test_the_odd_one_out_is_named_by_its_file(
    pair: tuple[FaceDetector, FaceEncoder],
    selfies: list[ImageArray],
    stranger: ImageArray,
    tmp_path: Path,
) -> None:
    Image.fromarray(stranger).save(tmp_path / "party.png")
    photos: list[PhotoSource] = [selfies[0], tmp_path / "party.png", selfies[1]]
    with pytest.raises(DifferentPeople, match=r"^party\.png seems to show somebody else") as caught:
        build_identity(photos, *pair, SETTINGS)
    assert "selfie 3 seems" not in str(caught.value)


def test_of_two_different_people_nobody_is_the_odd_one(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray, stranger: ImageArray
) -> None:
    with pytest.raises(DifferentPeople, match=r"^selfie 1 and selfie 2 do not seem"):
        build_identity([astronaut, stranger], *pair, SETTINGS)


@pytest.mark.parametrize(
    ("count", "words"), [(0, "No photo was given"), (6, "6 photos were given; at most 5")]
)
def test_no_photo_and_too_many_are_refused(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray, count: int, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        build_identity([astronaut] * count, *pair, SETTINGS)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("text", UnreadablePhoto),
        ("landscape", NoFaceFound),
        ("group", SeveralFaces),
        ("blurred", PoorPhoto),
    ],
)
def test_a_refused_photo_raises_its_own_error(
    pair: tuple[FaceDetector, FaceEncoder],
    astronaut: ImageArray,
    group_photo: ImageArray,
    bad: str,
    error: type[Exception],
) -> None:
    blurred = np.array(Image.fromarray(astronaut).filter(ImageFilter.GaussianBlur(3)))
    photos: dict[str, PhotoSource] = {
        "text": b"hello",
        "landscape": np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 300, 3)),
        "group": group_photo,
        "blurred": blurred,
    }
    with pytest.raises(error, match="selfie 2"):
        build_identity([astronaut, photos[bad]], *pair, SETTINGS)


def test_every_refused_photo_is_named_at_once(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray
) -> None:
    with pytest.raises(UnreadablePhoto, match=r"selfie 1 .*selfie 3: No face"):
        build_identity([b"hello", astronaut, astronaut[300:]], *pair, SETTINGS)


def test_a_face_can_be_chosen_in_a_group(
    pair: tuple[FaceDetector, FaceEncoder], group_photo: ImageArray, stranger: ImageArray
) -> None:
    me = build_identity([stranger, group_photo], *pair, SETTINGS, choose={1: 3})
    assert me.photo_count == 2


def test_choosing_in_a_photo_that_is_not_there_is_an_error(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray
) -> None:
    with pytest.raises(InvalidInput, match="photo 3"):
        build_identity([astronaut], *pair, SETTINGS, choose={3: 0})


def test_checking_reports_bad_photos_and_raises_nothing(
    pair: tuple[FaceDetector, FaceEncoder],
    selfies: list[ImageArray],
    stranger: ImageArray,
    tmp_path: Path,
) -> None:
    photos: list[PhotoSource] = [*selfies[:2], tmp_path / "gone.jpg", stranger]
    reports = check_photos(photos, *pair, SETTINGS)
    assert [report.codes[:1] for report in reports[2:]] == [("unreadable",), ("different_person",)]
    assert [report.verdict is PhotoVerdict.REFUSE for report in reports] == [
        False,
        False,
        True,
        True,
    ]
    assert reports[2].name == "gone.jpg"


def test_the_same_photo_twice_is_kept_with_advice(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray
) -> None:
    me = build_identity([astronaut, astronaut], *pair, SETTINGS)
    assert me.photo_count == 2
    assert me.reports[1].codes == ("duplicate",)
    assert me.reports[1].sentences[0].startswith("The very same photo as selfie 1")


def test_equal_file_names_of_two_folders_stay_apart(
    pair: tuple[FaceDetector, FaceEncoder], tmp_path: Path
) -> None:
    reports = check_photos([tmp_path / "a" / "me.jpg", tmp_path / "b" / "me.jpg"], *pair, SETTINGS)
    assert [report.name for report in reports] == ["me.jpg (photo 1)", "me.jpg (photo 2)"]


def test_one_stray_photo_hardly_moves_the_fused_embedding() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=128)
    true /= np.linalg.norm(true)
    stray = rng.normal(size=128)
    vectors = true + 0.03 * rng.normal(size=(5, 128))
    vectors[4] = stray / np.linalg.norm(stray)
    fused = fuse_embeddings(vectors.astype(np.float32))
    mean = vectors.mean(axis=0)
    assert np.linalg.norm(fused - true) < 0.75 * np.linalg.norm(mean - true)


@pytest.mark.parametrize("length", [1.0, 1.47])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_fused_embedding_has_the_length_of_its_parts(count: int, length: float) -> None:
    vectors = np.random.default_rng(1).normal(size=(count, 64)) + 2.0
    vectors *= length / np.linalg.norm(vectors, axis=1, keepdims=True)
    fused = fuse_embeddings(vectors.astype(np.float32))
    assert np.linalg.norm(fused) == pytest.approx(length, rel=1e-4)


def test_identical_embeddings_fuse_to_themselves() -> None:
    vector = np.arange(1, 9, dtype=np.float32)
    assert fuse_embeddings(np.stack([vector] * 3)) == pytest.approx(vector)


def test_wiping_leaves_nothing_of_the_person(
    pair: tuple[FaceDetector, FaceEncoder], astronaut: ImageArray
) -> None:
    me: Identity = build_identity([astronaut], *pair, SETTINGS)
    wipe(me)
    assert not me.crops.any() and not me.embeddings.any() and not me.embedding.any()
    assert "crops" not in repr(me) and "embedding" not in repr(me)
