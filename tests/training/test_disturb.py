from __future__ import annotations

import numpy as np
import torch

from imagine.identity.align import mask_background
from training import disturb
from training.disturb import disturb_references


def crops(count: int = 64, size: int = 48) -> torch.Tensor:
    torch.manual_seed(0)
    smooth = torch.rand(count, 3, 6, 6)
    big = torch.nn.functional.interpolate(smooth, size=(size, size), mode="bilinear")
    return big * 2 - 1


def test_disturbed_references_stay_pictures_and_about_half_are_left_alone() -> None:
    given = crops()
    disturbed = disturb_references(given)
    assert disturbed.shape == given.shape
    assert disturbed.abs().max() <= 1
    untouched = int((disturbed == given).flatten(1).all(1).sum())
    assert 16 <= untouched <= 48


def test_what_is_not_head_stays_grey_whatever_the_camera_did() -> None:
    corner = (slice(None), slice(None), slice(0, 4), slice(0, 4))
    masked = np.stack([mask_background(np.full((48, 48, 3), 8 * v, np.uint8)) for v in range(32)])
    given = torch.from_numpy(masked).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.allclose(disturb_references(given)[corner], given[corner], atol=0.01)


def test_compressing_finely_changes_little_and_keeps_the_mean() -> None:
    unit = (crops() + 1) / 2
    compressed = disturb._compress(unit)
    assert (compressed - unit).abs().max() < 0.6
    assert torch.allclose(compressed.mean((2, 3)), unit.mean((2, 3)), atol=0.02)


def test_the_cosine_transform_is_orthonormal() -> None:
    basis = disturb._cosines("cpu")
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-5)


def test_two_calls_disturb_differently() -> None:
    given = crops()
    assert not torch.equal(disturb_references(given), disturb_references(given))


def test_a_batch_of_which_nothing_is_chosen_stays_as_it_is() -> None:
    for _ in range(8):
        assert disturb_references(crops(count=1)).shape == (1, 3, 48, 48)
