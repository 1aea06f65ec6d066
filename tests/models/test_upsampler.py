import pytest
import torch
from torch.nn import functional

from imagine.models.upsampler import Upsampler


@pytest.fixture
def taught() -> Upsampler:
    """As if trained: nothing is zero any more."""
    torch.manual_seed(0)
    upsampler = Upsampler(widths=(16, 16, 16), heads=2, identity_width=8).eval()
    for parameter in upsampler.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return upsampler


def test_untrained_it_is_the_bicubic_enlargement():
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    drawn = Upsampler(widths=(16, 16, 16), identity_width=8)(images, torch.randn(2, 5, 8))
    plain = functional.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(drawn, plain)


def test_the_gates_let_nobody_in_before_training(taught):
    images, one, other = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    for look in (taught.look_first, taught.look_coarse, taught.look_last):
        torch.nn.init.zeros_(look.identity_gate)
    assert torch.equal(taught(images, one), taught(images, other))


def test_the_person_changes_the_picture(taught):
    images = torch.rand(1, 3, 32, 32)
    one, other = (taught(images, torch.randn(1, 5, 8)) for _ in range(2))
    assert (one - other).abs().max() > 1e-3


def test_no_tokens_and_only_masked_tokens_both_mean_nobody(taught):
    images, tokens = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 8)
    masked = taught(images, tokens, torch.zeros(1, 5, dtype=torch.bool))
    # The softmax over masked tokens sums in another order.
    torch.testing.assert_close(masked, taught(images, tokens[:, :0]), atol=1e-5, rtol=0)


def test_a_row_does_not_see_its_neighbours(taught):
    images, tokens = torch.rand(2, 3, 32, 32), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [False] * 5])
    together = taught(images, tokens, mask)
    for row in range(2):
        alone = taught(images[row : row + 1], tokens[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_pictures_need_not_be_square(taught):
    assert taught(torch.rand(1, 3, 24, 40), torch.randn(1, 5, 8)).shape == (1, 3, 48, 80)


def test_a_side_that_cannot_be_halved_three_times_is_refused(taught):
    with pytest.raises(ValueError, match="divisible by 8"):
        taught(torch.rand(1, 3, 24, 36), torch.randn(1, 5, 8))
