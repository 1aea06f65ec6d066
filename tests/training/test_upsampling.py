from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from imagine.errors import InvalidInput
from imagine.models.face_recogniser import FaceRecogniser
from training.datasets import face_theta
from training.estimates import estimates_path
from training.people.cache import PhotoRecord, write_shard
from training.upsampling import (
    CROP,
    EYE_WEIGHT,
    FACE_WEIGHT,
    UpsamplingPhotos,
    importance,
    laplacian_levels,
    roughen,
    seen_difference,
    theta_within,
    upsampling_loss,
)

LANDMARKS = [[100.0, 110.0], [156.0, 110.0], [128.0, 148.0], [108.0, 180.0], [148.0, 180.0]]


def record(person: int, photo: int) -> PhotoRecord:
    box = [68.0, 60.0, 188.0, 210.0]
    return PhotoRecord(person, photo, photo, "selfie", "me", {}, LANDMARKS, box, visible=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three people, two photos each; an estimate is its photo at every second pixel."""
    folder = tmp_path_factory.mktemp("photos")
    images = np.random.default_rng(0).integers(1, 255, (6, 256, 256, 3), dtype=np.uint8)
    records = [record(person, photo) for person in range(3) for photo in range(2)]
    write_shard(folder, "shard-0000000", images, records)
    estimates = images[:, ::2, ::2].copy()
    left = estimates.any(axis=(1, 2, 3)).astype(int)
    path = estimates_path(folder, "shard-0000000", "abc")
    np.savez(path, pictures=estimates, steps_left=left)
    return folder


def test_windows_of_the_small_and_the_large_picture_show_the_same_place(folder, monkeypatch):
    monkeypatch.setattr("training.upsampling.PLAIN_SHARE", 0.0)
    batch = UpsamplingPhotos(folder, "abc", "cpu", 0).sample(8)
    assert batch.large.shape[2:] == batch.weights.shape[2:] == (2 * CROP, 2 * CROP)
    assert torch.equal(batch.small, batch.large[:, :, ::2, ::2])


def test_plain_inputs_are_shrunk_photos(folder):
    photos = UpsamplingPhotos(folder, "abc", "cpu", 0)
    batch = photos.whole(photos.kept_back, plain=True)
    shrunk = functional.avg_pool2d(batch.large, 2)
    torch.testing.assert_close(batch.small, shrunk, atol=1 / 127, rtol=0)


def test_people_kept_back_are_not_trained_on(folder):
    photos = UpsamplingPhotos(folder, "abc", "cpu", 0)
    assert (photos.person_count, len(photos), photos.kept_back) == (3, 4, [4, 5])


def test_without_estimates_the_command_that_makes_them_is_named(folder):
    with pytest.raises(InvalidInput, match=r"no estimates by the model xyz.*training\.estimates"):
        UpsamplingPhotos(folder, "xyz", "cpu", 0)


def test_eyes_count_most_and_the_face_more_than_the_rest():
    weights = importance(record(0, 0), 256)
    assert weights[110, 100] == weights[110, 156] == EYE_WEIGHT
    assert weights[200, 128] == FACE_WEIGHT
    assert weights[10, 10] == 1


def test_an_aligned_face_is_the_same_from_the_picture_and_from_a_window_of_it():
    # Smooth, so that rounding of coordinates does not show.
    picture = functional.interpolate(torch.rand(1, 3, 16, 16), size=256, mode="bicubic")
    small_face = np.array([[108, 120], [148, 120], [128, 146], [114, 168], [142, 168]], np.float32)
    theta = face_theta(small_face, 256)
    left, top, side = 30, 40, 192
    window = picture[:, :, top : top + side, left : left + side]

    def aligned(image: torch.Tensor, given: np.ndarray) -> torch.Tensor:
        grid = functional.affine_grid(
            torch.from_numpy(given)[None], [1, 3, 64, 64], align_corners=False
        )
        return functional.grid_sample(image, grid, align_corners=False)

    whole = aligned(picture, theta)
    torch.testing.assert_close(
        aligned(window, theta_within(theta, 256, left, top, side)), whole, atol=1e-3, rtol=0
    )


def test_a_pyramid_holds_all_but_the_smallest_picture():
    image = torch.rand(1, 3, 16, 16)
    rebuilt = functional.avg_pool2d(image, 4)
    for level in reversed(laplacian_levels(image, 2)):
        rebuilt = functional.interpolate(rebuilt, scale_factor=2, mode="bilinear") + level
    torch.testing.assert_close(rebuilt, image)


def test_the_truth_costs_nothing_and_a_wrong_eye_more_than_a_wrong_corner(folder):
    torch.manual_seed(0)
    photos = UpsamplingPhotos(folder, "abc", "cpu", 0)
    batch = photos.whole(photos.kept_back[:1], plain=False)
    recogniser = FaceRecogniser().requires_grad_(False)
    assert float(upsampling_loss(batch.large, batch, recogniser)) == pytest.approx(0, abs=1e-5)
    eye, corner = batch.large.clone(), batch.large.clone()
    eye[..., 105:115, 95:105] = 0
    corner[..., 5:15, 5:15] = 0
    assert upsampling_loss(eye, batch) > upsampling_loss(corner, batch) > 0
    assert upsampling_loss(eye, batch, recogniser) > upsampling_loss(eye, batch)


def test_the_recogniser_sees_detail_and_passes_its_gradient_on():
    recogniser = FaceRecogniser().requires_grad_(False)
    true = torch.rand(1, 3, 256, 256)
    drawn = functional.avg_pool2d(true, 3, 1, 1).requires_grad_()
    theta = torch.from_numpy(face_theta(np.array(LANDMARKS, np.float32), 256))[None]
    difference = seen_difference(recogniser, drawn, true, theta)
    difference.backward()
    assert float(difference.detach()) > 0
    assert drawn.grad is not None and drawn.grad.abs().sum() > 0


def test_roughening_keeps_size_and_range_and_changes_most_pictures():
    random = np.random.default_rng(0)
    picture = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    rough = [roughen(picture, random) for _ in range(8)]
    assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in rough)
    assert sum(not np.array_equal(one, picture) for one in rough) >= 4
