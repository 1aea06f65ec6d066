import pytest
import torch

from imagine.identity.align import head_mask
from imagine.models.face_recogniser import aligned
from imagine.models.face_refiner import FaceRefiner, calm_colours, pasted

THETAS = torch.tensor([[[0.5, -0.1, 0.2], [0.1, 0.5, -0.1]]])


@pytest.fixture
def taught() -> FaceRefiner:
    """As if trained: what it adds is not zero any more."""
    torch.manual_seed(0)
    refiner = FaceRefiner(widths=(8, 16, 16), heads=2, crop_size=32).eval()
    torch.nn.init.normal_(refiner.leave.weight, std=0.1)
    return refiner.requires_grad_(False)


def seen(refiner, *crops):
    return refiner.describe(torch.stack(crops))


def test_untrained_it_leaves_pictures_as_they_are():
    refiner = FaceRefiner(widths=(8, 16, 16), heads=2, crop_size=32)
    pictures = torch.rand(2, 3, 64, 64)
    selfies = refiner.describe(torch.rand(1, 3, 32, 32))
    assert torch.equal(refiner.refine(pictures, THETAS.expand(2, 2, 3), selfies), pictures)


def test_another_person_makes_another_face_and_leaves_the_rest(taught):
    picture, one, other = torch.rand(1, 3, 64, 64), torch.rand(3, 32, 32), torch.rand(3, 32, 32)
    first = taught.refine(picture, THETAS, seen(taught, one))
    second = taught.refine(picture, THETAS, seen(taught, other))
    assert (first - second).abs().max() > 1e-3
    inside = pasted(torch.ones(1, 1, 32, 32), THETAS, (64, 64)) > 0
    outside = ~inside.expand_as(picture)
    assert outside.any()
    assert torch.equal(first[outside], picture[outside])


def test_what_is_added_lies_within_the_head_that_selfies_are_cut_to(taught):
    mask = torch.from_numpy(head_mask(32)).permute(2, 0, 1)[None]
    torch.testing.assert_close(taught.head, mask, atol=1e-5, rtol=0)


def test_the_correction_is_taken_further_in_the_face_than_at_the_mouth_and_beside_it():
    emphasis = FaceRefiner().emphasis[0, 0]
    eye, mouth, ear = emphasis[45, 35], emphasis[77, 48], emphasis[45, 4]
    assert eye == emphasis.max() > mouth > ear == 0.0


def test_colours_finer_than_some_pixels_are_no_part_of_a_correction():
    faces = torch.rand(1, 3, 32, 32) * 2 - 1
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    broad = red[:, None, None].expand(1, 3, 32, 32)
    torch.testing.assert_close(calm_colours(broad, faces), broad)
    checks = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    fine = torch.where(checks.bool(), red[:, None, None], blue[:, None, None])[None]
    calm = calm_colours(fine, faces)
    assert (calm[:, 0] - calm[:, 2]).std() < 0.01
    # How light it is stays as fine as it was.
    torch.testing.assert_close(luma(calm), luma(fine), atol=1e-5, rtol=0)


def test_a_picture_without_colours_is_corrected_without_colours():
    grey = torch.rand(1, 1, 32, 32).expand(1, 3, 32, 32)
    added = torch.rand(1, 3, 32, 32)
    calm = calm_colours(added, grey)
    torch.testing.assert_close(calm, luma(added).expand_as(calm))


def luma(pictures):
    return (pictures * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def test_half_the_strength_is_half_of_the_correction(taught):
    picture, selfies = torch.rand(1, 3, 64, 64), seen(taught, torch.rand(3, 32, 32))
    whole = taught.refine(picture, THETAS, selfies) - picture
    half = taught.refine(picture, THETAS, selfies, strength=0.5) - picture
    torch.testing.assert_close(half, whole / 2, atol=1e-5, rtol=0)


def test_the_order_of_the_selfies_does_not_matter(taught):
    picture, one, other = torch.rand(1, 3, 64, 64), torch.rand(3, 32, 32), torch.rand(3, 32, 32)
    torch.testing.assert_close(
        taught.refine(picture, THETAS, seen(taught, one, other)),
        taught.refine(picture, THETAS, seen(taught, other, one)),
        atol=1e-5,
        rtol=0,
    )


def test_a_row_does_not_see_its_neighbours(taught):
    pictures, thetas = torch.rand(2, 3, 64, 64), THETAS.expand(2, 2, 3)
    selfies = seen(taught, torch.rand(3, 32, 32))
    together = taught.refine(pictures, thetas, selfies)
    alone = taught.refine(pictures[:1], thetas[:1], selfies)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_what_is_pasted_lies_where_it_was_cut():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    smooth = torch.stack([x, y, x * y])[None]
    back = pasted(aligned(smooth, THETAS, 64), THETAS, (64, 64))
    inside = pasted(torch.ones(1, 1, 64, 64), THETAS, (64, 64)) > 0.999
    torch.testing.assert_close(
        back[inside.expand_as(back)], smooth[inside.expand_as(smooth)], atol=0.02, rtol=0
    )
