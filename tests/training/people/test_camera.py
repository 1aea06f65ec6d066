import numpy as np
import pytest

from training.people.camera import Lens, sample_lens, take

SIZE = 64


@pytest.fixture
def picture() -> np.ndarray:
    """A sharp edge down the middle, grey on the left."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    image[:, SIZE // 2 :] = 170
    return image


@pytest.fixture
def near() -> np.ndarray:
    return np.zeros((SIZE, SIZE), np.float32)


def photograph(image: np.ndarray, depth: np.ndarray, lens: Lens) -> np.ndarray:
    return take(image, depth, lens, np.random.default_rng(0)).astype(int)


def test_a_perfect_camera_changes_nothing(picture, near) -> None:
    assert (photograph(picture, near, Lens()) == picture).all()


def test_what_is_far_is_blurred_and_the_face_stays_sharp(picture, near) -> None:
    lens = Lens(aperture=0.03)
    assert (photograph(picture, near, lens) == picture).all()
    far = photograph(picture, np.ones_like(near), lens)
    assert 100 < far[SIZE // 2, SIZE // 2 - 1, 0] < 160


def test_the_face_does_not_run_out_into_a_blurred_background(near) -> None:
    depth = near.copy()
    depth[:, : SIZE // 2] = 1
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:, SIZE // 2 :] = 255
    taken = photograph(image, depth, Lens(aperture=0.04))
    assert taken[:, : SIZE // 2 - 3].max() <= 2


def test_noise_leaves_the_mean_and_comes_from_the_generator(picture, near) -> None:
    lens = Lens(noise=0.03)
    taken = photograph(picture, near, lens)
    assert taken.std() > picture.std() and abs(taken.mean() - picture.mean()) < 1
    assert (taken == photograph(picture, near, lens)).all()


def test_a_poor_jpeg_differs_more_than_a_good_one(near) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8)
    image = grey.repeat(3, axis=2)
    good, poor = (photograph(image, near, Lens(quality=q)) for q in (95, 40))
    assert np.abs(good - image).mean() < 0.6 * np.abs(poor - image).mean()


def test_a_cast_colours_grey_and_saturation_zero_takes_colour_out(picture, near) -> None:
    red = photograph(picture, near, Lens(cast=(1.1, 0.9)))
    assert (red[..., 0] > red[..., 2]).all()
    picture[..., 0] = 200
    grey = photograph(picture, near, Lens(saturation=0.0))
    assert np.ptp(grey, axis=2).max() <= 1


@pytest.mark.parametrize("selfie", [True, False])
def test_sampled_lenses_keep_a_picture_readable(selfie: bool, picture, near) -> None:
    generator = np.random.default_rng(2)
    lenses = [sample_lens(generator, selfie) for _ in range(60)]
    assert len({lens.quality for lens in lenses}) > 10
    for lens in lenses[:20]:
        taken = photograph(picture, near, lens)
        assert taken[:, SIZE // 2 + 8 :].mean() - taken[:, : SIZE // 2 - 8].mean() > 40
