import pytest
import torch

from imagine.models.face_turn import ASIDE, FRONTAL, FaceTurn, differences, looking_ahead


def face(nose):
    """(1, 3, 128, 128) with two dark eyes and a bright nose, that far off their middle."""
    crop = torch.zeros(1, 3, 128, 128)
    for eye in (44, 84):
        crop[:, :, 56:64, eye - 6 : eye + 6] = -0.8
    middle = 64 + round(40 * nose)
    crop[:, :, 64:84, middle - 4 : middle + 4] = 0.8
    return crop


def test_a_face_that_is_its_own_mirror_has_no_differences():
    assert torch.allclose(differences(face(0.0)), torch.zeros(1), atol=1e-5)


def test_a_mirrored_face_differs_the_other_way():
    aside = face(0.2)
    assert differences(aside).abs().max() > 0.5
    assert torch.allclose(differences(aside.flip(3)), -differences(aside), atol=1e-4)


def test_brighter_photos_and_photos_of_another_size_are_read_alike():
    aside = face(0.2)
    assert torch.allclose(differences(aside * 0.5 + 0.2), differences(aside), rtol=0.05, atol=0.05)
    larger = aside.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(differences(larger), differences(aside), atol=1e-5)


def test_a_turn_is_one_number_a_photo():
    assert FaceTurn()(torch.rand(5, 3, 96, 96) * 2 - 1).shape == (5,)


@pytest.mark.parametrize(
    ("turns", "chosen", "share"),
    [
        ([0.0, 0.05, -0.3], [True, True, False], 1.0),
        ([-FRONTAL], [True], 1.0),
        ([(FRONTAL + ASIDE) / 2, 0.4], [True, False], 0.5),
        ([-0.5], [True], 0.0),
    ],
)
def test_photos_from_the_front_are_preferred_and_others_count_less(turns, chosen, share):
    ahead, how_well = looking_ahead(torch.tensor(turns))
    assert ahead.tolist() == chosen
    assert how_well == pytest.approx(share)
