from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imagine.core import Face, ImageArray, PhotoReport, PhotoVerdict
from imagine.identity import FaceDetector, FaceEncoder, check_photos
from imagine.identity.quality import choose_face, head_pose
from imagine.settings import Settings

Check = Callable[..., PhotoReport]
KEEP, ADVICE, REFUSE = PhotoVerdict.KEEP, PhotoVerdict.KEEP_WITH_ADVICE, PhotoVerdict.REFUSE


@pytest.fixture
def check(dlib_detector: FaceDetector, dlib_encoder: FaceEncoder, settings: Settings) -> Check:
    def check(photo: ImageArray, choose: int | None = None) -> PhotoReport:
        chosen = None if choose is None else {0: choose}
        (report,) = check_photos([photo], dlib_detector, dlib_encoder, settings, chosen)
        return report

    return check


def blurred(photo: ImageArray, radius: float) -> ImageArray:
    return np.array(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius)))


def lit(photo: ImageArray, times: float) -> ImageArray:
    changed: ImageArray = np.clip(photo * times, 0, 255).astype(np.uint8)
    return changed


def shrunk(photo: ImageArray, side: int) -> ImageArray:
    return np.array(Image.fromarray(photo).resize((side, side)))


def turned(photo: ImageArray, degrees: float) -> ImageArray:
    return np.array(Image.fromarray(photo).rotate(degrees, fillcolor=(128, 128, 128)))


def test_a_good_portrait_is_kept_without_advice(check: Check, astronaut: ImageArray) -> None:
    report = check(astronaut)
    assert (report.verdict, report.codes) == (KEEP, ())
    assert report.sentences == ("A good photo.",)
    assert report.face_count == 1
    assert report.measures["face_size"] > 112


@pytest.mark.parametrize(
    ("change", "verdict", "code"),
    [
        (lambda photo: blurred(photo, 1.5), ADVICE, "blurred"),
        (lambda photo: blurred(photo, 3), REFUSE, "blurred"),
        (lambda photo: lit(photo, 0.3), ADVICE, "too_dark"),
        (lambda photo: lit(photo, 0.1), REFUSE, "too_dark"),
        (lambda photo: lit(photo, 1.3), ADVICE, "too_bright"),
        (lambda photo: lit(photo, 1.6), REFUSE, "too_bright"),
        (lambda photo: shrunk(photo, 400), ADVICE, "small_face"),
        (lambda photo: shrunk(photo, 200), REFUSE, "small_face"),
        (lambda photo: turned(photo, 90), ADVICE, "tilted"),
        (lambda photo: photo[:150], ADVICE, "cut_off"),
        (lambda photo: photo[:, 200:], ADVICE, "cut_off"),
        (lambda photo: photo[300:], REFUSE, "no_face"),
        (lambda photo: np.hstack([photo, photo]), REFUSE, "several_faces"),
    ],
)
def test_each_fault_is_noticed(
    check: Check,
    astronaut: ImageArray,
    change: Callable[[ImageArray], ImageArray],
    verdict: PhotoVerdict,
    code: str,
) -> None:
    report = check(np.ascontiguousarray(change(astronaut)))
    assert code in report.codes
    assert report.verdict is verdict
    assert len(report.sentences) == len(report.codes)


def test_dark_skin_in_good_light_is_not_called_dark(check: Check, astronaut: ImageArray) -> None:
    report = check(lit(astronaut, 0.45))  # skin of 83 instead of 184, highlights of 99
    assert "too_dark" not in report.codes


def test_six_people_ask_which(check: Check, group_photo: ImageArray) -> None:
    report = check(group_photo)
    assert report.face_count == 6
    assert report.sentences == ("Six faces. Crop to yours, or say which: 0 is left, 5 is right.",)


def test_two_faces_ask_which_with_the_promised_sentence(
    check: Check, astronaut: ImageArray
) -> None:
    report = check(np.hstack([astronaut, astronaut]))
    assert report.sentences == ("Two faces. Crop to yours, or say which: 0 is left.",)


def test_a_chosen_face_is_judged_alone(check: Check, group_photo: ImageArray) -> None:
    assert check(group_photo, choose=0).verdict is KEEP
    assert "turned_aside" in check(group_photo, choose=1).codes


@pytest.mark.parametrize("choose", [1, -1])
def test_a_face_that_is_not_there_cannot_be_chosen(
    check: Check, astronaut: ImageArray, choose: int
) -> None:
    report = check(astronaut, choose=choose)
    assert report.codes == ("no_such_face",)
    assert "one face, number 0" in report.sentences[0]


def face_at(x: float, eyes: float) -> Face:
    points = np.array([[-0.5, 0], [0.5, 0], [0, 0.57], [-0.4, 1.1], [0.4, 1.1]]) * eyes
    landmarks = (points + np.array([x, 100])).astype(np.float32)
    return Face((x - eyes, 100 - eyes, x + eyes, 100 + eyes), landmarks, 1.0)


def test_a_small_face_in_the_background_is_mentioned_not_asked_about() -> None:
    choice = choose_face([face_at(50, 10), face_at(200, 60)], None)
    assert choice.face is not None and choice.face.box[0] == 140
    assert [finding.code for finding in choice.findings] == ["bystanders"]


@pytest.mark.parametrize("roll", [-40, 0, 25])
@pytest.mark.parametrize("yaw", [-35, 0, 20])
@pytest.mark.parametrize("pitch", [-15, 0, 15])
def test_the_pose_of_the_model_head_is_found_again(yaw: float, pitch: float, roll: float) -> None:
    # y points down and z to the camera; eyes, then the nose tip of `head_pose`'s head.
    head = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.57, 0.55]])
    a, b, c = np.radians([yaw, pitch, roll])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    shake = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]])
    points = ((head @ nod.T @ shake.T)[:, :2] @ tilt.T * 80 + 300).astype(np.float32)
    assert head_pose(points) == pytest.approx((yaw, pitch, roll), abs=1.0)
