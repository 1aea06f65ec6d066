"""The small network that makes a drawn face that person's, looking at the selfies' own pixels.

The denoiser has one token for both lids of an eye and draws everybody a little like the average.
This network sees the drawn face and the faces of the selfies set upright side by side, and corrects
the drawn one: pose, light and expression stay, the features become the person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from imagine.models.blocks import RMSNorm, attend, sine_cosine_positions
from imagine.models.face_recogniser import aligned, soft_ellipse

# Feature maps of the selfies of a person: (photos, width, h, w) at half of the crop's side, a
# quarter and an eighth.
SelfieMaps = tuple[Tensor, Tensor, Tensor]


# The correction as it is taught is timid: a mean over all that might be meant. At use it is taken
# further within the face, less at the mouth, which has the expression that was asked for, and not
# at all beside the face, where hair has the colour that was asked for. Measured, training/LOG.md.
EMPHASIS, EMPHASIS_AT_THE_MOUTH = 1.5, 0.4
COLOUR_DETAIL = 4  # pixels; finer colours of the correction are noise
COLOURLESS = 0.1  # mean distance from grey below which a picture is one without colours
_LUMA = (0.299, 0.587, 0.114)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.second(functional.silu(self.norm(self.first(hidden))))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """A face at half, a quarter and an eighth of its side."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.enter = nn.Conv2d(3 * 4, fine, 3, padding=1)
        self.fine = _ResidualBlock(fine)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(middle), _ResidualBlock(middle))
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = _ResidualBlock(coarse)

    def forward(
        self, faces: Tensor, beside: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three maps of faces; what lies `beside` is added at each level before it is worked on."""
        fine = self.enter(functional.pixel_unshuffle(faces, 2))
        fine = self.fine(fine if beside is None else fine + beside[0])
        middle = self.to_middle(fine)
        middle = self.middle(middle if beside is None else middle + beside[1])
        coarse = self.to_coarse(middle)
        return fine, middle, self.coarse(coarse if beside is None else coarse + beside[2])


class _SelfieAttention(nn.Module):
    """Every place of the drawn face asks every place of every selfie.

    Places are part of the question, and both projections start alike, so that a fresh network looks
    at the same place of the selfies first.
    """

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.selfie_norm = RMSNorm(width), RMSNorm(width)
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_key.load_state_dict(self.to_query.state_dict())
        self.query_norm, self.key_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.to_value = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.register_buffer(
            "positions", sine_cosine_positions(side, side, width), persistent=False
        )

    def forward(self, hidden: Tensor, selfies: Tensor) -> Tensor:
        """Look at the selfies.

        Args:
            hidden: (batch, width, h, w) of the drawn face.
            selfies: (batch, photos, width, h, w).
        """
        batch, width, height, columns = hidden.shape
        places = self.norm(hidden.flatten(2).transpose(1, 2))
        positions = self.positions.to(places.dtype)
        seen = self.selfie_norm(selfies.flatten(3).transpose(2, 3))
        query = self.query_norm(self._heads(self.to_query(places + positions)))
        key = self.key_norm(self._heads(self.to_key(seen + positions).flatten(1, 2)))
        value = self._heads(self.to_value(seen).flatten(1, 2))
        added: Tensor = self.to_out(attend(query, key, value))
        return hidden + added.transpose(1, 2).reshape(batch, width, height, columns)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class FaceRefiner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Adds to drawn faces what the selfies show and the drawing lacks.

    Source: restoring a face with references of the same person as in GFRNet (arXiv 1804.04829),
    there by warping one of them; here by attention to all of them, as in texture transformers
    (TTSR, arXiv 2006.04139), without their hard choice of patches.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        widths: tuple[int, int, int] = (48, 128, 192),
        heads: int = 4,
        crop_size: int = 96,
    ) -> None:
        """Build it.

        Args:
            widths: channels at half, a quarter and an eighth of the crop; divisible by 8.
            heads: of the attention.
            crop_size: side of the upright faces, divisible by 8.
        """
        super().__init__()
        fine, middle, coarse = widths
        self.drawn, self.selfies = _Encoder(widths), _Encoder(widths)
        self.beside = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        self.look_coarse = _SelfieAttention(coarse, heads, crop_size // 8)
        self.coarse_out = nn.Sequential(_ResidualBlock(coarse), _ResidualBlock(coarse))
        self.from_coarse = nn.Conv2d(coarse, 4 * middle, 1)
        self.look_middle = _SelfieAttention(middle, heads, crop_size // 4)
        self.middle_out = nn.Sequential(*(_ResidualBlock(middle) for _ in range(3)))
        self.from_middle = nn.Conv2d(middle, 4 * fine, 1)
        self.fine_out = nn.Sequential(_ResidualBlock(fine), _ResidualBlock(fine))
        self.leave = nn.Conv2d(fine, 3 * 4, 3, padding=1)
        self.register_buffer("head", _head(crop_size), persistent=False)
        self.register_buffer("emphasis", _emphasis(crop_size), persistent=False)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(cast("Tensor", self.leave.bias))

    def describe(self, crops: Tensor) -> SelfieMaps:
        """What is looked at of selfies.

        Args:
            crops: (photos, 3, crop_size, crop_size) float in [-1, 1], upright and masked.
        """
        maps: SelfieMaps = self.selfies(crops)
        return maps

    def forward(self, faces: Tensor, selfies: SelfieMaps) -> Tensor:
        """What to add to drawn faces.

        Args:
            faces: (batch, 3, crop_size, crop_size) float in [-1, 1], upright.
            selfies: of `describe`, each (batch, photos, width, h, w).

        Returns:
            Shape of `faces`; nothing outside the head.
        """
        means = [mix(maps.mean(1)) for mix, maps in zip(self.beside, selfies, strict=True)]
        fine, middle, coarse = self.drawn(faces, means)
        coarse = self.coarse_out(self.look_coarse(coarse, selfies[2]))
        middle = middle + functional.pixel_shuffle(self.from_coarse(coarse), 2)
        middle = self.middle_out(self.look_middle(middle, selfies[1]))
        fine = fine + functional.pixel_shuffle(self.from_middle(middle), 2)
        everywhere = functional.pixel_shuffle(self.leave(self.fine_out(fine)), 2)
        within: Tensor = everywhere.float() * self.head
        return within

    def refine(
        self, pictures: Tensor, thetas: Tensor, selfies: SelfieMaps, strength: float = 1.0
    ) -> Tensor:
        """Pictures with the faces of one person in them corrected.

        Args:
            pictures: (batch, 3, h, w) float in [-1, 1].
            thetas: (batch, 2, 3) where the faces are, of `FaceLocator`.
            selfies: of `describe`, of that person.
            strength: share of the correction.
        """
        faces = aligned(pictures, thetas, int(self.config.crop_size))
        fine, middle, coarse = (
            maps[None].expand(len(pictures), -1, -1, -1, -1) for maps in selfies
        )
        added = calm_colours(self(faces, (fine, middle, coarse)), faces) * self.emphasis
        return pictures + strength * pasted(added, thetas, pictures.shape[2:])


def _head(size: int) -> Tensor:
    """(1, 1, size, size) the soft head that selfies are masked with (`identity.align`)."""
    return soft_ellipse(size, (0.5, 0.5), (0.47, 0.53), 1.02, 0.06)[None, None]


def _emphasis(size: int) -> Tensor:
    """(1, 1, size, size) how far the correction is taken at each place of an upright face."""
    face = soft_ellipse(size, (0.5, 0.58), (0.36, 0.42), 1.15, 0.3)
    mouth = soft_ellipse(size, (0.5, 0.8), (0.22, 0.13), 1.15, 0.3)
    return torch.lerp(EMPHASIS * face, torch.tensor(EMPHASIS_AT_THE_MOUTH), mouth)[None, None]


def calm_colours(added: Tensor, faces: Tensor) -> Tensor:
    """A correction without specks of colour, and without any for pictures that have none.

    Args:
        added: (batch, 3, s, s), the correction.
        faces: shape of `added`, what it corrects.
    """
    light = luma(added)
    colour = functional.avg_pool2d(added - light, COLOUR_DETAIL)
    colour = functional.interpolate(
        colour, scale_factor=COLOUR_DETAIL, mode="bilinear", align_corners=False
    )
    colourful = (faces - luma(faces)).abs().mean((1, 2, 3), keepdim=True) / COLOURLESS
    calm: Tensor = light + colour * colourful.clamp(max=1.0)
    return calm


def luma(pictures: Tensor) -> Tensor:
    """(batch, 1, h, w) how light pictures of three channels are."""
    weights = torch.tensor(_LUMA, dtype=pictures.dtype, device=pictures.device)
    return (pictures * weights[:, None, None]).sum(1, keepdim=True)


def pasted(crops: Tensor, thetas: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The reverse of `aligned`: crops at their places in otherwise empty pictures.

    Args:
        crops: (batch, channels, s, s).
        thetas: (batch, 2, 3) transforms of the crop's coordinates to the picture's, in [-1, 1].
        size: height and width of the pictures.
    """
    linear = torch.linalg.inv(thetas[:, :, :2].float())
    back = torch.cat([linear, -linear @ thetas[:, :, 2:].float()], dim=2)
    shape = [len(crops), crops.shape[1], *size]
    grid = functional.affine_grid(back, shape, align_corners=False)
    pictures: Tensor = functional.grid_sample(
        crops.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return pictures
