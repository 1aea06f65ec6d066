"""The folded pass against `Denoiser.forward`, which it must equal."""

import pytest
import torch

from imagine.backends.folded_denoiser import FoldedDenoiser, Look
from imagine.models.denoiser import Denoiser

TOLERANCE = 1e-5  # as a share of the largest value: the same sums in another order
TEXT, PERSON = 384, 32


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    denoiser = Denoiser(image_size=64, width=64, depth=2, heads=2, identity_width=PERSON)
    for parameter in denoiser.parameters():  # none may be one or zero, or its place is not tested
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.8, std=0.3)
        else:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return denoiser.eval()


@pytest.fixture(scope="module")
def folded(denoiser):
    return FoldedDenoiser(denoiser)


class Wish:
    """A picture's tokens and noise level, and its rows both ways."""

    def __init__(self, seed, prompt_tokens, person_tokens, sigma):
        random = torch.Generator().manual_seed(seed)
        self.text = torch.randn((1, prompt_tokens, TEXT), generator=random)
        self.person = torch.randn((1, person_tokens, PERSON), generator=random)
        self.image = torch.randn((3, 64, 64), generator=random)
        self.sigma = torch.tensor([sigma])

    def look(self, folded, owner, weight, with_text, with_person):
        modulation = folded.modulation(self.sigma, self.text if with_text else None)[0]
        text = folded.project_text(self.text) if with_text else None
        person = folded.project_identity(self.person) if with_person else None
        return Look(owner, weight, modulation, text, person)

    def plainly(self, denoiser, with_text, with_person):
        conditioning = denoiser.condition(
            self.text,
            torch.full(self.text.shape[:2], with_text),
            self.person,
            torch.full(self.person.shape[:2], with_person),
            torch.ones(1),
        )
        return denoiser(self.image[None], self.sigma, conditioning)[0]


def close(first, second):
    return bool((first - second).abs().max() < TOLERANCE * second.abs().max())


ROWS = [(False, False), (True, False), (True, True)]
WEIGHTS = (-1.0, -0.5, 2.5)


@pytest.mark.parametrize("row", ROWS)
@torch.inference_mode()
def test_every_kind_of_row_equals_the_plain_forward(denoiser, folded, row):
    wish = Wish(1, 9, 34, 0.7)
    estimate = folded(wish.image[None], [wish.look(folded, 0, 1.0, *row)])[0]
    plain = wish.plainly(denoiser, *row)
    assert plain.abs().max() > 0.1
    assert close(estimate, plain)


@torch.inference_mode()
def test_the_weighted_sum_is_that_of_the_plain_estimates(denoiser, folded):
    wish = Wish(2, 5, 17, 0.3)
    pairs = list(zip(WEIGHTS, ROWS, strict=True))
    looks = [wish.look(folded, 0, weight, *row) for weight, row in pairs]
    plain = sum(weight * wish.plainly(denoiser, *row) for weight, row in pairs)
    assert close(folded(wish.image[None], looks)[0], plain)


@torch.inference_mode()
def test_a_picture_has_the_same_bits_alone_and_in_any_crowd(folded):
    crowd = [Wish(3, 5, 17, 0.9), Wish(4, 12, 51, 0.5), Wish(5, 3, 17, 0.1)]
    used = [ROWS, ROWS[1:], ROWS[:2]]
    looks = [
        [wish.look(folded, owner, 1.0 / len(rows), *row) for row in rows]
        for owner, (wish, rows) in enumerate(zip(crowd, used, strict=True))
    ]
    images = torch.stack([wish.image for wish in crowd])
    together = folded(images, [look for own in looks for look in own])
    for owner, wish in enumerate(crowd):
        alone = [
            wish.look(folded, 0, look.weight, *row)
            for look, row in zip(looks[owner], used[owner], strict=True)
        ]
        (picture,) = folded(wish.image[None], alone)
        if folded_is_packed(folded):
            assert torch.equal(picture, together[owner])
        assert close(picture, together[owner])


def folded_is_packed(folded):
    return folded._tokens.__self__.is_packed


@torch.inference_mode()
def test_changing_one_persons_tokens_moves_no_other_picture(folded):
    mine, yours = Wish(6, 5, 17, 0.9), Wish(7, 5, 17, 0.9)
    images = torch.stack([mine.image, yours.image])

    def draw():
        looks = [wish.look(folded, i, 1.0, True, True) for i, wish in enumerate((mine, yours))]
        return folded(images, looks)

    first = draw()
    mine.person = 5.0 * torch.randn_like(mine.person)
    second = draw()
    assert (first[0] - second[0]).abs().max() > 0.01
    assert torch.equal(first[1], second[1])
