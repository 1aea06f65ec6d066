import pytest
import torch

from imagine.models.face_colours import with_natural_mouths

# The face fills the middle half of a picture of 128: its mouth lies about (64, 83).
THETAS = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
SKIN, BLUE = torch.tensor([0.3, 0.0, -0.2]), torch.tensor([-0.6, -0.3, 0.6])


def portrait(mouth, light=(0.0, 0.0, 0.0)):
    """(1, 3, 128, 128) of skin with a mouth of another colour, in some light."""
    picture = SKIN.view(1, 3, 1, 1).repeat(1, 1, 128, 128)
    picture[:, :, 80:86, 56:72] = torch.as_tensor(mouth).view(1, 3, 1, 1)
    return picture + torch.tensor(light).view(1, 3, 1, 1)


def luma(colours):
    return (colours * torch.tensor([0.299, 0.587, 0.114])).sum()


def test_a_blue_mouth_becomes_a_grey_that_is_as_light():
    shown = with_natural_mouths(portrait(BLUE), THETAS)[0, :, 83, 64]
    assert shown.std() < 0.02
    assert luma(shown) == pytest.approx(float(luma(BLUE)), abs=0.02)


@pytest.mark.parametrize("mouth", [(0.5, -0.3, -0.3), (0.6, 0.6, 0.6), (-0.9, -0.95, -0.95)])
def test_lips_teeth_and_shadow_stay_as_they_are(mouth):
    picture = portrait(mouth)
    assert torch.allclose(with_natural_mouths(picture, THETAS), picture, atol=1e-5)


def test_nothing_changes_beside_the_mouth():
    picture = portrait(SKIN)
    picture[:, :, :76] = BLUE.view(1, 3, 1, 1)  # eyes, say
    shown = with_natural_mouths(picture, THETAS)
    assert torch.equal(shown[:, :, :64], picture[:, :, :64])
    assert torch.equal(shown[:, :, 110:], picture[:, :, 110:])


def test_in_blue_light_a_mouth_may_be_as_blue_as_the_face():
    picture = portrait(SKIN, light=(-0.5, -0.1, 0.4))
    assert torch.allclose(with_natural_mouths(picture, THETAS), picture, atol=1e-5)
