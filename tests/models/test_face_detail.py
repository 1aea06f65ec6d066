import pytest
import torch

from imagine.models.face_detail import SHARE, describe_detail, with_detail

MIDDLE = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])  # the middle half of a picture


@pytest.fixture
def crops():
    torch.manual_seed(0)
    return torch.rand(3, 3, 64, 64) * 0.4 - 0.2


def flat(side=128):
    return torch.zeros(1, 3, side, side)


def test_detail_is_light_and_shade_without_tone_or_colour(crops):
    detail = describe_detail(crops)
    assert detail.shape == (1, 1, 64, 64)
    torch.testing.assert_close(describe_detail(crops + 0.3), detail, atol=1e-5, rtol=0)
    assert describe_detail(torch.full((2, 3, 64, 64), 0.4)).abs().max() < 1e-5
    red = torch.tensor([0.299 + 0.587, -0.299, 0.0])[:, None, None]  # as light as grey
    tinted = describe_detail(crops + 0.1 * red * torch.rand(3, 1, 64, 64))
    torch.testing.assert_close(tinted, detail, atol=0.02, rtol=0)


def test_what_one_of_several_selfies_shows_is_left_out():
    one = torch.zeros(1, 3, 64, 64)
    one[:, :, 28:32, 20:24] = 1.0  # a speck on one of them
    assert describe_detail(one).abs().max() > 0.5
    assert describe_detail(torch.cat([one, torch.zeros(2, 3, 64, 64)])).abs().max() == 0.0


def test_eyes_become_those_of_the_selfies_and_mouth_and_surroundings_stay(crops):
    detail = describe_detail(crops)
    shown = with_detail(flat(), MIDDLE, detail)
    assert shown.shape == (1, 3, 128, 128)
    added = shown.abs().amax((0, 1))
    # The face's rows 32 to 96; eyes at 0.46 of it, the mouth at 0.8.
    assert added[58:64, 48:80].max() > 0.3 * SHARE * detail.abs().max()
    assert not added[83:92, 56:72].any()
    assert not added[:32].any() and not added[:, :32].any()
    torch.testing.assert_close(shown[:, 0], shown[:, 2])  # no colour


def test_a_face_that_has_the_detail_already_stays(crops):
    face = crops[:1]
    once = with_detail(face, torch.eye(2, 3)[None], describe_detail(face))
    torch.testing.assert_close(once, face, atol=1e-4, rtol=0)


def test_half_the_strength_is_half_of_the_exchange(crops):
    detail = describe_detail(crops)
    whole, half, none = (with_detail(flat(), MIDDLE, detail, share) for share in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half * 2, whole)
    assert not none.any()


def test_rows_have_no_part_in_one_another(crops):
    detail, pictures = describe_detail(crops), torch.rand(2, 3, 64, 64)
    thetas = torch.cat([MIDDLE, MIDDLE * 0.8])
    both = with_detail(pictures, thetas, detail)
    torch.testing.assert_close(both[1:], with_detail(pictures[1:], thetas[1:], detail))
